"""The feed-forward layers of transformers."""


import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.messages import show
from fdiff.models.layers.activations import Activation, Dropout, gelu, gelu_tanh, quick_gelu
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.norm import RMSNorm

# name in config.json: the activation, and whether it gates another half of the features (Shazeer 2020)
ACTIVATIONS: dict[str, tuple[Activation, bool]] = {
    "gelu": (gelu, False),
    "gelu-approximate": (gelu_tanh, False),
    "geglu": (gelu, True),
    "geglu-approximate": (quick_gelu, False),
    "swiglu": (nn.silu, True),
    "linear-silu": (nn.silu, False),
}


class FeedForward(nn.Module):
    """A linear map to more features, an activation, a linear map back: (..., c) -> (..., features or c).

    There are inner_features between, or mult * c.
    """

    features: int | None = None
    mult: float = 4
    inner_features: int | None = None
    activation_fn: str = "geglu"
    dropout: float = 0.0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.inner_features or int(self.mult * x.shape[-1])
        features = self.features or x.shape[-1]
        x = Activated(inner, self.activation_fn, self.use_bias, name="net.0")(x)
        x = Dropout(self.dropout, name="net.1")(x)
        return Linear(features, self.use_bias, name="net.2")(x)


class GLUMBConv(nn.Module):
    """A gated bottleneck turned inside out, which sees the pixels beside each: (b, h, w, c) -> (b, h, w, c).

        y = point(a * silu(b)),  (a, b) = depth(silu(inverted(x)))

    inverted and point convolve 1 x 1, to 2 expand_ratio c channels and back, depth 3 x 3 in each channel by itself (Xie
    et al. 2024, section 2.2). With `residual` the result is normalized and x is added.
    """

    expand_ratio: float = 4.0
    residual: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = 2 * int(self.expand_ratio * x.shape[-1])
        y = nn.silu(Conv(inner, 1, padding=0, name="conv_inverted")(x))
        y, gate = jnp.split(Conv(inner, 3, groups=inner, name="conv_depth")(y), 2, axis=-1)
        y = Conv(x.shape[-1], 1, padding=0, use_bias=False, name="conv_point")(y * nn.silu(gate))
        return x + RMSNorm(1e-5, use_bias=True, name="norm")(y) if self.residual else y


class Activated(nn.Module):
    """A linear map and an activation, which multiplies another half of the features if it is a gate."""

    features: int
    activation_fn: str
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.activation_fn not in ACTIVATIONS:
            raise ValueError(
                f"activation_fn {show(self.activation_fn)} is unknown; choose one of {', '.join(ACTIVATIONS)}."
            )
        activation, gates = ACTIVATIONS[self.activation_fn]
        x = Linear(self.features * (2 if gates else 1), self.use_bias, name="proj")(x)
        if not gates:
            return activation(x)
        x, gate = jnp.split(x, 2, axis=-1)
        return x * activation(gate)
