"""What a denoiser is trained on."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fdiff import keys
from fdiff.sampling import Network
from fdiff.schedulers import Level, Scheduler
from fdiff.schedulers.level import broadcast


def denoising_loss(
    network: Network,
    scheduler: Scheduler,
    x0: jax.Array,
    key: jax.Array,
    *,
    weight: Callable[[Level], jax.Array] | None = None,
) -> jax.Array:
    """The mean squared error of the network's output at random times (Ho et al. 2020, eq. 14).

        t ~ scheduler.times,  noise ~ N(0, 1),  level = scheduler.level(t),  x = alpha x0 + sigma noise
        loss = mean weight |network(c_in x, told) - target|^2

    So a network is asked in training what it is asked in sampling, and the target is what makes the scheduler read x0
    and noise from it: noise, x0, v, a velocity, or what EDM's preconditioning leaves to say.

    Args:
        network: (x, t) -> out shaped like x, with t (b,).
        scheduler: its levels, and what the network predicts there.
        x0: (b, ...) clean samples.
        key: a JAX key.
        weight: level -> (b,), of the error of the network's output; 1 if not given, whatever the network predicts.
            lambda level: level.sigma**2 suits a score, -noise / sigma (Song et al. 2021, eq. 7).

    Raises ValueError for a scheduler that has no levels to train at, or a network whose output is not shaped like x.
    """
    key_t, key_noise = keys.split(key)
    level = scheduler.level(scheduler.times(key_t, x0.shape[:1]))
    noise = keys.normal(key_noise, x0.shape)
    out = network(broadcast(level.c_in, x0) * level.noisy(x0, noise), level.told).astype(jnp.float32)
    if out.shape != x0.shape:
        raise ValueError(f"the network returned shape {out.shape} for samples of shape {x0.shape}; it must be the same")
    error = (out - level.target(x0, noise)) ** 2
    return jnp.mean(error if weight is None else broadcast(weight(level), x0) * error)
