"""Products with matrices that may be quantised."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from convert.quantized import INTEGERS, Quantized, Streamed

LAST = (((1,), (1,)), ((), ()))  # (n, in) and (out, in) -> (n, out)
BASE, LARGEST = 256, 127 * 256 + 127  # of the two digits that a number of an input is written in


def product(x: jax.Array, kernel: jax.Array | Quantized | Streamed, dtype: Any = None) -> jax.Array:
    """x @ kernel: (..., in) and (in, out) -> (..., out), in `dtype`, or else that of x.

    Kernels of int8 and int4 are not widened on CPUs: x is written as scale * (256 high + low), a scale for each row
    and two digits of 8 bits, and whole numbers are multiplied. That is off by 1 / 65,534 of the largest number of a
    row at most. No kernel is widened before x is there, or a compiled program would widen several of them at once.
    """
    if isinstance(kernel, Streamed):
        kernel = kernel.fetched(after=x)
    if not isinstance(kernel, Quantized):
        return jnp.dot(x, kernel, preferred_element_type=dtype)
    flat = x.reshape(-1, x.shape[-1])
    there = flat[:1, :1] == flat[:1, :1]  # false for NaN alone, which the compiler cannot know
    codes = kernel.parts["codes"]
    if codes.dtype == jnp.uint8:  # bytes, which are taken apart before: that waits, too
        kernel = dataclasses.replace(kernel, parts={**kernel.parts, "codes": jnp.where(there, codes, 0)})
    if kernel.kind in INTEGERS:
        y = int8_product(flat, INTEGERS[kernel.kind](kernel.parts), kernel.parts["scales"])
    else:
        y = jax.lax.dot_general(flat, jnp.where(there, kernel.rows(), jnp.nan), LAST, preferred_element_type=dtype)
    return y.astype(dtype or x.dtype).reshape(*x.shape[:-1], -1)


@jax.custom_jvp
def int8_product(x: jax.Array, codes: jax.Array, scales: jax.Array) -> jax.Array:
    """(n, in), whole numbers (out, in) and (out, 1) -> (n, out) in float32."""
    return jax.lax.platform_dependent(x, codes, scales, cpu=_in_digits, default=_widened)


def _in_digits(x: jax.Array, codes: jax.Array, scales: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    steps = jnp.max(jnp.abs(x), axis=-1, keepdims=True) / LARGEST
    numbers = jnp.round(x / jnp.where(steps == 0, 1, steps)).astype(jnp.int32)
    high = (numbers + BASE // 2) >> 8
    dot = partial(jax.lax.dot_general, dimension_numbers=LAST, preferred_element_type=jnp.int32)
    first, second = (dot(digit.astype(jnp.int8), codes).astype(jnp.float32) for digit in (high, numbers - BASE * high))
    return (BASE * first + second) * steps * scales.T


def _widened(x: jax.Array, codes: jax.Array, scales: jax.Array) -> jax.Array:
    y: jax.Array = jax.lax.dot_general(x, codes.astype(x.dtype), LAST, preferred_element_type=jnp.float32)
    return y * scales.T


def _in_codes(x: jax.Array, codes: jax.Array) -> jax.Array:
    return _widened(x, codes, jnp.ones((1, 1), jnp.float32))


int8_product.defjvps(
    lambda d_x, y, x, codes, scales: _widened(d_x, codes, scales),
    None,
    lambda d_scales, y, x, codes, scales: _in_codes(x, codes) * d_scales.T,
)
