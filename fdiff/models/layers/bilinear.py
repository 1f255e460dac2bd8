"""Products whose gradients are computed in other ways than JAX's, which a CPU is slow at."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Map = Callable[[jax.Array, jax.Array], jax.Array]


def bilinear(forward: Map, to_x: Map, to_kernel: Map, differentiated: Map | None = None) -> Map:
    """forward(x, kernel) -> y, linear in each, with the gradients that a CPU is given:

        sum(forward(x, kernel) * y) = sum(x * to_x(kernel, y)) = sum(kernel * to_kernel(x, y))

    JAX's own are products too, but in other forms: that for the kernel of a convolution is a convolution with a kernel
    as large as the picture, for instance, and up to eight times slower than products of matrices. `differentiated` is
    forward as a CPU computes it on the way to a gradient, where it may round in other ways.
    """
    def from_kernel(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return forward(x, kernel)

    @jax.custom_jvp
    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return forward(x, kernel)

    def derivative(arrays: tuple[jax.Array, jax.Array], changes: tuple[Any, Any]) -> tuple[jax.Array, Any]:
        (x, kernel), (dx, dkernel) = arrays, changes
        parts = []
        if not isinstance(dx, SymbolicZero):
            parts.append(_linear(from_kernel, to_x, kernel, dx))
        if not isinstance(dkernel, SymbolicZero):
            parts.append(_linear(forward, to_kernel, x, dkernel))
        return along(x, kernel), sum(parts[1:], parts[0])

    along = bilinear(_either(differentiated, forward), to_x, to_kernel) if differentiated else run
    run.defjvp(derivative, symbolic_zeros=True)
    return run


def _either(on_cpu: Map, other: Map) -> Map:
    def run(x: jax.Array, y: jax.Array) -> jax.Array:
        found: jax.Array = jax.lax.platform_dependent(x, y, cpu=on_cpu, default=other)
        return found

    return run


def transposed(function: Map, like: Any, fixed: jax.Array, y: jax.Array) -> jax.Array:
    """What JAX makes of y -> x of function(fixed, x) -> y, where x is like that one."""
    x: jax.Array = jax.linear_transpose(partial(function, fixed), like)(y)[0]
    return x


def _linear(function: Map, on_cpu: Map, fixed: jax.Array, x: jax.Array) -> jax.Array:
    """function(fixed, x), whose gradient for x is on_cpu(fixed, y) on a CPU."""
    back = _either(on_cpu, partial(transposed, function, jax.typeof(x)))
    y: jax.Array = linear.bind(fixed, x, function=function, transpose=back)
    return y


# function(fixed, x), linear in x, whose transpose is transpose(fixed, y), and the other way around. Of what JAX has for
# this, custom_vjp knows no forward mode, custom_jvp transposes what is inside, and linear_call knows no vmap.
linear = Primitive("linear")


def _apply(fixed: Any, x: Any, *, function: Map, transpose: Map) -> Any:
    return function(fixed, x)


def _derivative(arrays: Any, changes: Any, *, function: Map, transpose: Map) -> tuple[Any, Any]:
    (fixed, x), (dfixed, dx) = arrays, changes
    y = linear.bind(fixed, x, function=function, transpose=transpose)
    parts = []
    if not isinstance(dx, ad.Zero):
        parts.append(linear.bind(fixed, dx, function=function, transpose=transpose))
    if not isinstance(dfixed, ad.Zero):
        parts.append(jax.jvp(lambda fixed: function(fixed, x), (fixed,), (dfixed,))[1])
    return y, sum(parts[1:], parts[0])


def _transpose(y: Any, fixed: Any, x: Any, *, function: Map, transpose: Map) -> list[Any]:
    if isinstance(y, ad.Zero):
        return [None, ad.Zero(x.aval)]
    return [None, linear.bind(fixed, y, function=transpose, transpose=function)]


def _batched(arrays: Any, axes: Any, *, function: Map, transpose: Map) -> tuple[Any, int]:
    return jax.vmap(function, axes)(*arrays), 0


linear.def_impl(_apply)
linear.def_abstract_eval(lambda fixed, x, *, function, transpose: jax.make_jaxpr(function)(fixed, x).out_avals[0])
ad.primitive_jvps[linear] = _derivative
ad.primitive_transposes[linear] = _transpose
batching.primitive_batchers[linear] = _batched
mlir.register_lowering(linear, mlir.lower_fun(_apply, multiple_results=False))
