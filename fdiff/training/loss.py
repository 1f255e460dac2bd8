"""What a denoiser is trained on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fdiff import keys
from fdiff.sampling import Network
from fdiff.schedulers import Scheduler


def denoising_loss(network: Network, scheduler: Scheduler, x0: jax.Array, key: jax.Array) -> jax.Array:
    """The mean squared error of the network's prediction at random timesteps (Ho et al. 2020, eq. 14).

        t ~ uniform, noise ~ N(0, 1), loss = mean |network(alpha x0 + sigma noise, t) - target|^2

    Args:
        network: (x, t) -> out, with t (b,).
        scheduler: its noise levels, and its prediction_type: epsilon (target: noise), sample (x0), v_prediction.
        x0: (b, ...) clean samples.
        key: a JAX key.
    """
    key_t, key_noise = keys.split(key)
    config: Any = scheduler
    t = jax.random.randint(key_t, x0.shape[:1], 0, config.num_train_timesteps, jnp.int32)
    noise = keys.normal(key_noise, x0.shape)
    out = network(scheduler.add_noise(x0, noise, t), t).astype(jnp.float32)
    return jnp.mean((out - target(scheduler, x0, noise, t)) ** 2)


def target(scheduler: Scheduler, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """What the network should say, by the scheduler's prediction_type. Raises ValueError for one that is not known."""
    kind = getattr(scheduler, "prediction_type", "flow_prediction")
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return x0
    if kind == "v_prediction":
        return scheduler.velocity(x0, noise, t)
    if kind == "flow_prediction":
        return noise - x0
    raise ValueError(f"prediction_type is {kind!r}; training knows epsilon, sample, v_prediction and flow_prediction")
