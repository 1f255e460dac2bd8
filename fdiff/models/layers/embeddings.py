"""Embeddings of the time: numbers to vectors that a network can read."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.layers.activations import activation
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.parameter import parameter


def sinusoidal(
    t: jax.Array,
    features: int,
    flip_sin_to_cos: bool = False,
    freq_shift: float = 1.0,
    scale: float = 1.0,
    max_period: float = 10000.0,
) -> jax.Array:
    """sin and cos of t at frequencies from 1 to 1 / max_period (Vaswani et al. 2017): (...) -> (..., features).

    Frequency k is max_period^(-k / (features // 2 - freq_shift)). `flip_sin_to_cos` puts the cosines first.
    The result is float32.
    """
    half = features // 2
    frequencies = np.exp(-math.log(max_period) * np.arange(half) / (half - freq_shift)).astype(np.float32)
    angles = scale * (t.astype(jnp.float32)[..., None] * frequencies)
    parts = [jnp.sin(angles), jnp.cos(angles)]
    if flip_sin_to_cos:
        parts.reverse()
    if features % 2:
        parts.append(jnp.zeros_like(angles[..., :1]))
    return jnp.concatenate(parts, axis=-1)


def sine_places(rows: jax.Array, columns: jax.Array, features: int) -> jax.Array:
    """Where patches are, rows (h,) and columns (w,) -> (h, w, features): sin and cos of the column, then of the row."""
    row, column = (sinusoidal(places, features // 2, freq_shift=0) for places in (rows, columns))
    grid = (len(rows), len(columns), features // 2)
    return jnp.concatenate([jnp.broadcast_to(column, grid), jnp.broadcast_to(row[:, None], grid)], axis=-1)


def scaled_places(rows: int, columns: int, features: int, base: int, scale: float) -> jax.Array:
    """`sine_places` of a picture of so many patches, as if it had `base` of them on a side, divided by `scale`."""
    row, column = (jnp.arange(count) * (base / count) / scale for count in (rows, columns))
    return sine_places(row, column, features)


class GaussianFourierProjection(nn.Module):
    """sin and cos of 2 pi w log t (Song et al. 2021), the checkpoint holding w: (b,) -> (b, 2 features)."""

    features: int
    scale: float = 1.0
    log: bool = True
    flip_sin_to_cos: bool = False

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        frequencies = parameter(self, "weight", nn.initializers.normal(self.scale), (self.features,))
        t = t.astype(jnp.float32)
        if self.log:
            t = jnp.log(t)
        angles = t[:, None] * frequencies.astype(jnp.float32) * (2 * math.pi)
        parts = [jnp.sin(angles), jnp.cos(angles)]
        if self.flip_sin_to_cos:
            parts.reverse()
        return jnp.concatenate(parts, axis=-1)


class TimestepEmbedding(nn.Module):
    """Two linear maps with an activation between: (b, in) -> (b, out_features or features).

    `condition` (b, d) is added to the input through a linear map of its own.
    """

    features: int
    act_fn: str = "silu"
    out_features: int | None = None
    post_act_fn: str | None = None
    use_bias: bool = True
    cond_proj_dim: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        if self.cond_proj_dim is not None:
            project = Linear(x.shape[-1], use_bias=False, name="cond_proj")
            # Called without a condition too, so that its parameter exists in every checkpoint that has it.
            x = x + project(jnp.zeros((1, self.cond_proj_dim)) if condition is None else condition)
        x = activation(self.act_fn)(Linear(self.features, self.use_bias, name="linear_1")(x))
        x = Linear(self.out_features or self.features, self.use_bias, name="linear_2")(x)
        return x if self.post_act_fn is None else activation(self.post_act_fn)(x)
