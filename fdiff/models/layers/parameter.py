"""The parameters of layers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convert.quantized import Quantized, Streamed, widened

SHAPES = "shapes"  # a key of this name, beside "params": nothing but shapes is wanted, and no draw is traced


def parameter(module: nn.Module, name: str, init: Callable[..., Any], shape: tuple[int, ...]) -> jax.Array:
    """`kept` as an array: one that is quantised is widened."""
    array: jax.Array = widened(kept(module, name, init, shape))
    return array


def kept(
    module: nn.Module, name: str, init: Callable[..., Any], shape: tuple[int, ...]
) -> jax.Array | Quantized | Streamed:
    """module.param(name, init, shape, float32), quicker: `init` is not traced where `apply` was given the parameter.

    Linen traces it each time to compare shapes, which is a quarter of the time that tracing a U-Net takes.
    A variable of that name in the collection "lora" is added to it, in float32. Raises ValueError where the
    parameter has another shape.
    """
    if not module.has_variable("params", name):
        if module.has_rng(SHAPES):
            zeros: jax.Array = module.variable("params", name, jnp.zeros, shape, jnp.float32).value
            return zeros
        made: jax.Array = module.param(name, init, shape, jnp.float32)
        return made
    value: jax.Array | Quantized | Streamed = module.get_variable("params", name)
    if value.shape != shape:
        path = ".".join((*module.path, name))
        raise ValueError(f"{path} of the parameters has shape {value.shape}, the model needs {shape}; "
                         "pass the parameters of this model")
    if module.has_variable("lora", name):
        difference: jax.Array = module.get_variable("lora", name)
        return (widened(value).astype(jnp.float32) + difference.astype(jnp.float32)).astype(value.dtype)
    return value
