"""What a denoiser is trained on, at which times, and how its error is weighed there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdiff import keys
from fdiff.sampling import Network
from fdiff.schedulers import Level, Scheduler
from fdiff.schedulers.level import broadcast

Weight = Callable[[Level], jax.Array]
Shares = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def denoising_loss(
    network: Network,
    scheduler: Scheduler,
    x0: jax.Array,
    key: jax.Array,
    *,
    weight: Weight | None = None,
    shares: Shares | None = None,
    noise: jax.Array | None = None,
    offset_noise: float = 0.0,
    input_noise: float = 0.0,
) -> jax.Array:
    """The mean squared error of the network's output at random times (Ho et al. 2020, eq. 14).

        t = scheduler.times(shares),  noise ~ N(0, 1),  level = scheduler.level(t),  x = alpha x0 + sigma noise
        loss = mean weight |network(c_in x, told) - target|^2

    So a network is asked in training what it is asked in sampling, and the target is what makes the scheduler read x0
    and noise from it: noise, x0, v, a velocity, or what EDM's preconditioning leaves to say.

    Args:
        network: (x, t) -> out shaped like x, with t (b,).
        scheduler: its levels, and what the network predicts there.
        x0: (b, ..., c) clean samples.
        key: a JAX key.
        weight: level -> (b,), of the error of the network's output; 1 if not given, whatever the network predicts.
            `min_snr` and `p2` make some; lambda level: level.sigma**2 suits a score, -noise / sigma (Song et al.
            2021, eq. 7).
        shares: (key, shape) -> shares of the way from data to noise, in (0, 1]; `uniform` if not given.
        noise: shaped like x0, in place of a draw: standard normal numbers, such as `pairs.optimal` gives each sample.
        offset_noise: the size of noise that is the same all over a channel of a sample and is added to the rest, so
            that pictures may be dark or bright as a whole.
        input_noise: the size of noise that the network sees and is not asked for (Ning et al. 2023, eq. 9).

    Raises ValueError for a scheduler that has no levels to train at, or a network whose output is not shaped like x.
    """
    key_shares, key_noise = keys.split(key)
    level = scheduler.level(scheduler.times((shares or uniform)(key_shares, x0.shape[:1])))
    noise = keys.normal(key_noise, x0.shape) if noise is None else noise
    if offset_noise:
        all_over = (x0.shape[0], *(1,) * (x0.ndim - 2), x0.shape[-1])
        noise = noise + offset_noise * keys.normal(keys.fold_in(key, 2), all_over)
    seen = noise + input_noise * keys.normal(keys.fold_in(key, 3), x0.shape) if input_noise else noise
    out = network(broadcast(level.c_in, x0) * level.noisy(x0, seen), level.told).astype(jnp.float32)
    if out.shape != x0.shape:
        raise ValueError(f"the network returned shape {out.shape} for samples of shape {x0.shape}; it must be the same")
    error = (out - level.target(x0, noise)) ** 2
    return jnp.mean(error if weight is None else broadcast(weight(level), x0) * error)


def min_snr(gamma: float = 5.0) -> Weight:
    """The weight min(SNR, gamma) of the error of x0, SNR = alpha^2 / sigma^2 (Hang et al. 2023, eq. 5).

        weight = min(alpha^2, gamma sigma^2) (x0_of[1] / sigma)^2

    So it is min(SNR, gamma) / SNR for a network that predicts noise, min(SNR, gamma) for one of x0 and
    min(SNR, gamma) / (SNR + 1) for one of v.
    """
    def weight(level: Level) -> jax.Array:
        return jnp.minimum(level.alpha**2, gamma * level.sigma**2) * (level.x0_of[..., 1] / level.sigma) ** 2

    return weight


def p2(gamma: float = 1.0, k: float = 1.0) -> Weight:
    """The weight 1 / (k + SNR)^gamma of the error of noise, SNR = alpha^2 / sigma^2 (Choi et al. 2022, eq. 8)."""
    def weight(level: Level) -> jax.Array:
        return (k + (level.alpha / level.sigma) ** 2) ** -gamma * level.eps_of[..., 1] ** 2

    return weight


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Shares of that shape drawn evenly from (0, 1]."""
    return 1 - keys.uniform(key, shape)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Shares:
    """Shares 1 / (1 + exp(-u)), u ~ N(mean, std^2) (Esser et al. 2024, eq. 19): along a flow, those of sigma."""
    def shares(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.maximum(jax.nn.sigmoid(mean + std * keys.normal(key, shape)), jnp.finfo(jnp.float32).tiny)

    return shares


def stratified(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Shares (b,) drawn evenly from (0, 1], one in each b-th of it, so that losses vary less (Kingma et al. 2021).

    The same offset is used for all, as in their appendix I.1: (u + i / b) mod 1.
    """
    count = shape[0]
    return 1 - (keys.uniform(key, ()) + jnp.arange(count, dtype=jnp.float32) / count) % 1


def withhold(key: jax.Array, rate: float, condition: Any, nothing: Any) -> Any:
    """The condition, a pytree of (b, ...), with a share `rate` of its samples replaced by `nothing`'s.

    Classifier-free guidance needs networks that were trained so (Ho & Salimans 2022, algorithm 1). nothing: of the
    same tree; leaves (b, ...), or (...) for all samples.
    """
    count = jax.tree.leaves(condition)[0].shape[0]
    dropped = keys.uniform(key, (count,)) < rate
    return jax.tree.map(
        lambda told, none: jnp.where(dropped.reshape(-1, *(1,) * (jnp.ndim(told) - 1)), none, told), condition, nothing
    )
