"""The error of a denoiser of molecules, and the bound of their likelihood."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from fdiff import keys
from fdiff.molecules.graphs import Molecules
from fdiff.pipelines.molecules import MoleculePipeline, denoiser, projected
from fdiff.sampling import Network
from fdiff.schedulers import Scheduler
from fdiff.training.loss import Shares, uniform

LEAST = 1e-10  # of a probability, so that its logarithm is finite


def molecule_loss(
    network: Network, scheduler: Scheduler, x0: jax.Array, mask: jax.Array, key: jax.Array, *, shares: Shares = uniform,
) -> jax.Array:  # fmt: skip
    """The mean squared error of what the network says of each atom (Hoogeboom et al. 2022, eq. 17, weights of 1).

        x = alpha x0 + sigma noise,  loss = mean |network(x, t) - target|^2 over atoms

    The noise of the positions is free of its mean.

    Args:
        network: (x, t) -> out shaped like x, with t (b,).
        scheduler: its levels, and what the network predicts there.
        x0: (b, n, 3 + features) from `MoleculePipeline.encode`; mask: (b, n).
        key: a JAX key.
        shares: (key, shape) -> shares of the way from data to noise, in (0, 1].
    """
    key_shares, key_noise = keys.split(key)
    level = scheduler.level(scheduler.times(shares(key_shares, x0.shape[:1])))
    noise = projected(mask, keys.normal(key_noise, x0.shape))
    out = network(level.noisy(x0, noise), level.told).astype(jnp.float32)
    error = ((out - level.target(x0, noise)) ** 2).mean(-1)
    return (error * mask).sum() / mask.sum()


def negative_log_likelihood(
    pipe: MoleculePipeline, params: Any, molecules: Molecules, key: jax.Array
) -> jax.Array:
    """An unbiased draw (b,) of the bound of -log p(molecule | its number of atoms), in nats (Hoogeboom et al. 2022).

        KL(q(x_T | x0) | N(0, 1)) + T / 2 (SNR(t - 1) / SNR(t) - 1) |noise - out|^2 - log p(x0 | x_0),  t of 1 to T
                                                                                        (their eq. 16 to 19)

    The last term is a normal distribution of the positions in the space free of their mean, and the probability of the
    elements and atomic numbers by how far they are from whole ones. Raises ValueError as `MoleculePipeline.encode`.
    """
    x0, mask = pipe.encode(molecules)
    context = pipe.context({name: molecules.properties[name] for name in pipe.properties}, mask)
    network, steps = denoiser(pipe.egnn, params, mask, context), pipe.scheduler.num_train_timesteps  # type: ignore[attr-defined]
    key_time, key_noise, key_last = (keys.fold_in(key, i) for i in range(3))
    t = 1 + jnp.floor(steps * keys.uniform(key_time, (len(x0),)))
    atoms = mask.sum(-1)
    free = 3.0 * (atoms - 1)

    def levels(at: jax.Array) -> tuple[jax.Array, jax.Array]:
        alpha, sigma = pipe.scheduler.levels(at / steps)
        return alpha[:, None, None], sigma[:, None, None]

    def errors(at: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        alpha, sigma = levels(at)
        noise = projected(mask, keys.normal(key, x0.shape))
        x = alpha * x0 + sigma * noise
        return x, (noise - network(x, at / steps)) ** 2

    (alpha, sigma), (alpha_s, sigma_s) = levels(t), levels(t - 1)
    weight = ((alpha_s * sigma / (sigma_s * alpha)) ** 2 - 1)[:, 0, 0]
    diffusion = steps * 0.5 * weight * errors(t, key_noise)[1].sum((1, 2))
    return _prior(x0, mask, free, *levels(jnp.full_like(t, steps))) + diffusion + _last(
        pipe, x0, mask, free, *levels(jnp.zeros_like(t)), *errors(jnp.zeros_like(t), key_last)
    )


def _prior(x0: jax.Array, mask: jax.Array, free: jax.Array, alpha: jax.Array, sigma: jax.Array) -> jax.Array:
    """KL(N(alpha x0, sigma^2) | N(0, 1)), of positions in their `free` dimensions."""
    means = 0.5 * (alpha * x0) ** 2
    spread = (0.5 * sigma**2 - 0.5 - jnp.log(sigma))[:, 0, 0]
    features = mask.sum(-1) * (x0.shape[-1] - 3)
    return means.sum((1, 2)) + spread * (free + features)


def _last(
    pipe: MoleculePipeline, x0: jax.Array, mask: jax.Array, free: jax.Array, alpha: jax.Array, sigma: jax.Array,
    x: jax.Array, errors: jax.Array,
) -> jax.Array:  # fmt: skip
    """-log p(x0 | x) of x at the least noise."""
    count, sigma_x = len(pipe.elements), (sigma / alpha)[:, 0, 0]
    positions = free * (jnp.log(sigma_x) + 0.5 * jnp.log(2 * jnp.pi) + jnp.log(pipe.scales[0]))
    positions = positions + 0.5 * errors[..., :3].sum((1, 2))

    def log_probability(seen: jax.Array, whole: jax.Array | float, scale: float) -> jax.Array:
        off, width = seen * scale - whole, sigma * scale
        return jnp.log(norm.cdf((off + 0.5) / width) - norm.cdf((off - 0.5) / width) + LEAST)

    logits = log_probability(x[..., 3 : 3 + count], 1.0, pipe.scales[1])
    one_hot = x0[..., 3 : 3 + count] * pipe.scales[1]
    elements = (jax.nn.log_softmax(logits) * one_hot).sum(-1)
    numbers = jnp.zeros_like(elements)
    if x0.shape[-1] > 3 + count:
        whole = jnp.round(x0[..., -1:] * pipe.scales[2])
        numbers = log_probability(x[..., -1:], whole, pipe.scales[2])[..., 0]
    return positions - ((elements + numbers) * mask).sum(-1)
