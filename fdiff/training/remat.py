"""Rematerialisation: the backward pass computes again what lies inside the blocks of a network, to need less memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.scope import Scope

from fdiff.models.layers.transformer_2d import DualTransformer2DModel, Transformer2DModel

# What checkpoints call the parts that a network has many of, one after the other; some of those hold such parts again.
BLOCK = re.compile(r"(^|[._])(resnets|attentions|transformer_blocks|layers|block)\.\d+$")
OF_BLOCKS = (Transformer2DModel, DualTransformer2DModel)


@contextlib.contextmanager
def rematerialized() -> Iterator[None]:
    """Within this, networks keep for the backward pass what enters their blocks, and compute what is inside again.

    A block is a residual block or a layer of a transformer (Chen et al. 2016, section 3). The values, the gradients and
    the dropout are those without it.
    """
    with nn.intercept_methods(_intercept):
        yield


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of pytrees of arrays, of which the backward pass keeps the arguments alone.

    It is jax.checkpoint for CPUs too: their compiler sees through the barrier that JAX puts before the second
    computation, finds that it is the first one's and keeps all of that. So here it begins with numbers that look as if
    they depended on the gradient that comes in, which also lets it begin no earlier.
    """
    @jax.custom_vjp
    def run(parameters: Any, *inputs: Any) -> Any:
        return function(parameters, *inputs)

    def forward(*arguments: Any) -> tuple[Any, Any]:
        return function(*arguments), arguments

    def backward(arguments: Any, gradient: Any) -> Any:
        parameters, *inputs = arguments
        late = jax.lax.platform_dependent(inputs, gradient, cpu=_seemingly_of, default=_after)
        return jax.vjp(function, parameters, *late)[1](gradient)

    run.defvjp(forward, backward)
    return run


def _after(inputs: Any, gradient: Any) -> Any:
    return jax.lax.optimization_barrier((inputs, gradient))[0]


def _seemingly_of(inputs: Any, gradient: Any) -> Any:
    """The inputs, but zeros in samples whose gradient is not a number, and so will be what is made of it."""
    of = next(leaf for leaf in jax.tree.leaves(gradient) if jnp.issubdtype(leaf.dtype, jnp.floating))
    lost = jnp.isnan(of.reshape(len(of), -1)[:, 0])

    def seemingly(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.shape[:1] != lost.shape:
            return leaf
        return jnp.where(lost.reshape(-1, *(1,) * (leaf.ndim - 1)), jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(seemingly, inputs)


def _intercept(method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], context: Any) -> Any:
    """The call of a block as a function of its parameters and inputs; any other call as it is."""
    module = context.module
    inside = not isinstance(module, OF_BLOCKS)  # and no whole model, which has no name
    if context.method_name != "__call__" or not inside or not BLOCK.search(module.name or ""):
        return method(*args, **named)
    leaves, form = jax.tree.flatten((args, named))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}
    path = module.scope.path

    def run(given: Any, arrays: Any) -> Any:
        variables, rngs = given
        args, named = jax.tree.unflatten(form, [arrays.get(i, leaf) for i, leaf in enumerate(leaves)])
        return module.clone(parent=Scope(variables, rngs, path=path), name=None)(*args, **named)

    return recomputed(run)((module.variables, module.scope.rngs), arrays)
