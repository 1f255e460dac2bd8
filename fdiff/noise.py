"""Noise schedules: how much signal and noise x holds at each training timestep. NumPy, float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def betas(
    schedule: str,
    num_train_timesteps: int,
    beta_start: float,
    beta_end: float,
    trained_betas: Sequence[float] | None = None,
) -> np.ndarray:
    """The variances (num_train_timesteps,) of the forward steps, by the Hub's name of the schedule.

    linear (Ho et al. 2020); scaled_linear, linear in the root (Rombach et al. 2022); squaredcos_cap_v2
    (Nichol & Dhariwal 2021, eq. 17); laplace (Hang et al. 2024); exp; sigmoid (GeoDiff). `trained_betas` goes
    before all.

    Raises ValueError for another name, or trained_betas of another length.
    """
    n = num_train_timesteps
    if trained_betas is not None:
        if len(trained_betas) != n:
            raise ValueError(f"trained_betas has {len(trained_betas)} numbers and num_train_timesteps is {n}; "
                             "they must be equal")
        return np.asarray(trained_betas, np.float64)
    if schedule == "linear":
        return np.linspace(beta_start, beta_end, n)
    if schedule == "scaled_linear":
        return np.linspace(beta_start**0.5, beta_end**0.5, n) ** 2
    if schedule == "squaredcos_cap_v2":
        return betas_from_signal(lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2, n)
    if schedule == "exp":
        return betas_from_signal(lambda u: np.exp(-12.0 * u), n)
    if schedule == "laplace":
        return betas_from_signal(_laplace_signal, n)
    if schedule == "sigmoid":
        return 1 / (1 + np.exp(-np.linspace(-6, 6, n))) * (beta_end - beta_start) + beta_start
    raise ValueError(f"beta_schedule is {schedule!r}; it can be linear, scaled_linear, squaredcos_cap_v2, "
                     "laplace, exp or sigmoid")


def betas_from_signal(signal, n: int, max_beta: float = 0.999) -> np.ndarray:  # type: ignore[no-untyped-def]
    """beta_i = 1 - signal((i + 1) / n) / signal(i / n), at most max_beta."""
    u = np.arange(n + 1) / n
    values = np.array([signal(v) for v in u])
    return np.minimum(1 - values[1:] / values[:-1], max_beta)


def _laplace_signal(u: float) -> float:
    """alpha^2 of the Laplace schedule with location 0 and scale 0.5."""
    log_snr = -0.5 * np.copysign(1, 0.5 - u) * np.log(1 - 2 * abs(0.5 - u) + 1e-6)
    snr = np.exp(log_snr)
    return float(np.sqrt(snr / (1 + snr)))


def alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """alpha^2 at each training timestep: the running product of 1 - beta."""
    return np.cumprod(1.0 - betas)


def check_signal(alpha2: np.ndarray) -> np.ndarray:
    """alpha^2 (T,) itself. Raises ValueError where it is 1 at the first timestep, or tiny but not 0 at the last."""
    if not alpha2[0] < 1 or 0 < alpha2[-1] < 1e-24:
        raise ValueError(f"the betas leave a share of {alpha2[0]:g} of signal at the first timestep and {alpha2[-1]:g} "
                         "at the last; it must begin below 1 and end at 0 or above 1e-24, so correct beta_start, "
                         "beta_end or trained_betas")
    return alpha2


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Betas whose last timestep is pure noise (Lin et al. 2023, algorithm 1)."""
    alpha2 = zero_terminal_signal(alphas_cumprod(betas))
    return 1 - np.concatenate([alpha2[:1], alpha2[1:] / alpha2[:-1]])


def zero_terminal_signal(alpha2: np.ndarray) -> np.ndarray:
    """The same for alpha^2 at each training timestep."""
    root = np.sqrt(alpha2)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
