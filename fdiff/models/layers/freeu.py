"""FreeU: what an up block sees, weighed anew (Si et al. 2023)."""

import jax
import jax.numpy as jnp


def freeu(x: jax.Array, skip: jax.Array, backbone: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(x, skip), each (b, h, w, c): half of the channels of x times `backbone`, low frequencies of skip times `low`.

    The frequencies are 0 and -1 along each axis, as in the paper's code; the real part is kept.
    """
    half = jnp.arange(x.shape[-1]) < x.shape[-1] // 2
    ends = jnp.array([0, -1])
    waves = jnp.fft.fft2(skip.astype(jnp.float32), axes=(1, 2))
    gains = jnp.ones(skip.shape[1:3]).at[ends[:, None], ends].set(low)
    filtered = jnp.fft.ifft2(waves * gains[..., None], axes=(1, 2)).real
    return x * jnp.where(half, backbone, 1).astype(x.dtype), filtered.astype(skip.dtype)
