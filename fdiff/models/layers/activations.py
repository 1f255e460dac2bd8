"""Activation functions by the names that config.json files use."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.messages import show

Activation = Callable[[jax.Array], jax.Array]


def mish(x: jax.Array) -> jax.Array:
    """x tanh(log(1 + e^x)) (Misra 2019)."""
    return x * jnp.tanh(jax.nn.softplus(x))


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x), by the error function (Hendrycks and Gimpel 2016)."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """The tanh approximation of `gelu`."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the approximation of `gelu` in CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


FUNCTIONS: dict[str, Activation] = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "mish": mish,
    "relu": jax.nn.relu,
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}


def activation(name: str) -> Activation:
    """Return the activation function of that name; ValueError for a name that no checkpoint uses."""
    if name.lower() not in FUNCTIONS:
        raise ValueError(f"act_fn {show(name)} is unknown; choose one of {', '.join(FUNCTIONS)}.")
    return FUNCTIONS[name.lower()]


class Dropout(nn.Module):
    """Zero a share `rate` of the numbers, where `apply` is given rngs={"dropout": key}; else the identity."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.rate or not self.has_rng("dropout"):
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), jnp.float32(1 - self.rate), x.shape)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)
