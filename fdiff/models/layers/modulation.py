"""What time and guidance do to the tokens of a transformer: norms are shifted and scaled, what is added is gated."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import standardized
from fdiff.models.layers.parameter import parameter


class Modulation(nn.Module):
    """A vector (b, d) to numbers for tokens: `count` arrays (b, 1, features) (Peebles and Xie 2023)."""

    count: int
    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, temb: jax.Array) -> list[jax.Array]:
        numbers = Linear(self.count * self.features, self.use_bias, name="linear")(nn.silu(temb))
        return jnp.split(numbers[:, None], self.count, axis=-1)


def told_by(module: nn.Module, numbers: jax.Array, count: int) -> list[jax.Array]:
    """`count` arrays (b, 1, c), of numbers (b, count or 1, c) and a table of the module (Chen et al. 2023, 2.3)."""
    width = numbers.shape[-1]
    table = parameter(module, "scale_shift_table", nn.initializers.normal(width**-0.5), (count, width))
    return jnp.split(table.astype(numbers.dtype) + numbers, count, axis=1)


def modulated(x: jax.Array, shift: jax.Array, scale: jax.Array, eps: float = 1e-6) -> jax.Array:
    """norm(x) * (1 + scale) + shift, the norm being a layer norm without parameters: (b, n, c)."""
    return standardized(x, eps).astype(x.dtype) * (1 + scale) + shift


def swiglu(x: jax.Array) -> jax.Array:
    """silu(a) * b of the halves a, b of the features (Shazeer 2020): (..., 2 c) -> (..., c)."""
    gate, up = jnp.split(x, 2, axis=-1)
    return nn.silu(gate) * up
