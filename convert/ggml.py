"""The blocks of ggml's quantised tensors, widened by jax.numpy.

A row is cut into blocks of 32 or 256 numbers, each of so many bytes: scales in half precision, and codes of a few bits.
The formats are those of ggml's ggml-common.h, and the numbers those of its dequantize_row functions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


def widened(kind: str, codes: jax.Array) -> jax.Array:
    """Bytes (..., n) of whole blocks -> the numbers (..., blocks * numbers of each), in float32."""
    one = KINDS[kind]
    blocks = codes.reshape(*codes.shape[:-1], -1, one.nbytes)
    return one.widened(blocks).reshape(*codes.shape[:-1], -1)


def _half(two: jax.Array) -> jax.Array:
    """(..., 2) bytes -> (..., 1), the number in half precision that they are."""
    return jax.lax.bitcast_convert_type(two, jnp.float16).astype(jnp.float32)[..., None]


def _nibbles(codes: jax.Array) -> jax.Array:
    """(..., n) -> (..., 2 n): all low halves, then all high ones."""
    return jnp.concatenate([codes & 15, codes >> 4], axis=-1)


def _bits(four: jax.Array) -> jax.Array:
    """(..., 4) bytes -> (..., 32), bit i of them all."""
    return (four[..., None] >> jnp.arange(8, dtype=jnp.uint8) & 1).reshape(*four.shape[:-1], 32)


def _number(codes: jax.Array) -> jax.Array:
    return codes.astype(jnp.float32)


def _q4_0(b: jax.Array) -> jax.Array:
    return _half(b[..., :2]) * (_number(_nibbles(b[..., 2:])) - 8)


def _q4_1(b: jax.Array) -> jax.Array:
    return _half(b[..., :2]) * _number(_nibbles(b[..., 4:])) + _half(b[..., 2:4])


def _q5_0(b: jax.Array) -> jax.Array:
    codes = _nibbles(b[..., 6:]) | _bits(b[..., 2:6]) << 4
    return _half(b[..., :2]) * (_number(codes) - 16)


def _q5_1(b: jax.Array) -> jax.Array:
    codes = _nibbles(b[..., 8:]) | _bits(b[..., 4:8]) << 4
    return _half(b[..., :2]) * _number(codes) + _half(b[..., 2:4])


def _q8_0(b: jax.Array) -> jax.Array:
    return _half(b[..., :2]) * _number(jax.lax.bitcast_convert_type(b[..., 2:], jnp.int8))


def _scales_k(b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The scales and the offsets (..., 8, 1) of the eight parts of a block: 12 bytes, which hold 16 numbers of 6
    bits."""
    first, second, third = b[..., :4], b[..., 4:8], b[..., 8:12]
    scales = jnp.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)
    offsets = jnp.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
    return _number(scales)[..., None], _number(offsets)[..., None]


def _of_eight(b: jax.Array, codes: jax.Array) -> jax.Array:
    """d * scale * code - d_least * offset, for codes (..., 8, 32)."""
    scales, offsets = _scales_k(b[..., 4:16])
    return _half(b[..., :2])[..., None] * scales * _number(codes) - _half(b[..., 2:4])[..., None] * offsets


def _in_eight(codes: jax.Array) -> jax.Array:
    """(..., 128) bytes -> (..., 8, 32): the low halves of 32 of them, then their high ones, and so on."""
    four = codes.reshape(*codes.shape[:-1], 4, 1, 32)
    return jnp.concatenate([four & 15, four >> 4], axis=-2).reshape(*codes.shape[:-1], 8, 32)


def _q4_k(b: jax.Array) -> jax.Array:
    return _of_eight(b, _in_eight(b[..., 16:]))


def _q5_k(b: jax.Array) -> jax.Array:
    fifth = b[..., 16:48][..., None, :] >> jnp.arange(8, dtype=jnp.uint8)[:, None] & 1
    return _of_eight(b, _in_eight(b[..., 48:]) | fifth << 4)


def _q6_k(b: jax.Array) -> jax.Array:
    low = b[..., :128].reshape(*b.shape[:-1], 2, 1, 64)
    low = jnp.concatenate([low & 15, low >> 4], axis=-2).reshape(*b.shape[:-1], 2, 4, 32)
    high = b[..., 128:192].reshape(*b.shape[:-1], 2, 1, 32) >> jnp.arange(0, 8, 2, dtype=jnp.uint8)[:, None] & 3
    codes = (low | high << 4).reshape(*b.shape[:-1], 16, 16)
    scales = _number(jax.lax.bitcast_convert_type(b[..., 192:208], jnp.int8))[..., None]
    return _half(b[..., 208:210])[..., None] * scales * (_number(codes) - 32)


class Kind(NamedTuple):
    """How many numbers a block holds, of how many bytes it is, and what these mean."""

    numbers: int
    nbytes: int
    widened: Callable[[jax.Array], jax.Array]


KINDS = {
    "q4_0": Kind(32, 18, _q4_0), "q4_1": Kind(32, 20, _q4_1), "q5_0": Kind(32, 22, _q5_0),
    "q5_1": Kind(32, 24, _q5_1), "q8_0": Kind(32, 34, _q8_0), "q4_k": Kind(256, 144, _q4_k),
    "q5_k": Kind(256, 176, _q5_k), "q6_k": Kind(256, 210, _q6_k),
}  # fmt: skip
