"""Which noise levels a run visits: timesteps from high to low, or sigmas from high to low. NumPy, float64."""

from __future__ import annotations

import math

import numpy as np

from fdiff.messages import show

MOST_STEPS = 10_000  # a run takes no more
MOST_TIMESTEPS = 100_000  # a training has no more
MOST_MU = 20.0  # a flow is shifted by exp(20) at most


def timesteps(
    spacing: str,
    num_train_timesteps: int,
    n: int | None,
    *,
    offset: int = 0,
    fence: bool = False,
    between: bool = False,
    below: int | None = None,
) -> np.ndarray:
    """n timesteps (n,), high to low, unrounded where that matters to no one (Lin et al. 2023, table 2).

    linspace covers 0 to the last one; leading counts up from `offset` in equal strides; trailing counts down
    from the last one. With `fence`, n + 1 are laid and the lowest is left out, as the DPM-Solver family does.
    With `between`, linspace may lay more timesteps than the model was trained on: the network sees fractions.
    With `below`, all lie below that one; trailing keeps its stride, and so lays fewer.

    Raises ValueError for another name, n outside 1..num_train_timesteps, or timesteps that do not fit.
    """
    last = num_train_timesteps if below is None else below
    n = check_steps(n, None if between and spacing == "linspace" else last)
    if spacing == "linspace":
        laid: np.ndarray = np.linspace(0, last - 1, n + fence)
    elif spacing == "leading":
        laid = np.arange(n + fence) * (last // (n + fence)) + offset * 1.0
    elif spacing == "trailing":
        return np.round(np.arange(last, 0, -num_train_timesteps / n))[:n] - 1
    else:
        raise ValueError(f"timestep_spacing is {spacing!r}; it can be leading, trailing or linspace")
    if spacing == "leading" and n + fence > last:
        raise ValueError(f"timestep_spacing leading has no room for {n} steps and one more below {last}; "
                         "ask for fewer or choose linspace")
    laid = laid[::-1][:n]
    if not 0 <= laid[0] < last:
        raise ValueError(f"steps_offset {offset} lays timesteps outside 0 to {last - 1}; ask for fewer")
    return laid


def check_count(name: str, value: int | None, most: int | None = None) -> int:
    """The value of that name. Raises ValueError unless it is a whole number from 1 to `most`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {show(value)}; it must be a whole number of 1 or more")
    if most is not None and value > most:
        raise ValueError(f"{name} is {show(value)}; it must be {most} at most")
    return int(value)


def check_steps(n: int | None, most: int | None = None) -> int:
    """n itself. Raises ValueError unless it is a whole number from 1 to `most`, and to MOST_STEPS."""
    n = check_count("num_inference_steps", n)
    if most is not None and n > most:
        raise ValueError(f"num_inference_steps is {show(n)}, more than the {most} timesteps the model was trained "
                         "on; ask for fewer")
    return check_count("num_inference_steps", n, MOST_STEPS)


def numbers(name: str, values: object) -> np.ndarray:
    """A user's own numbers (n,), as float64. Raises ValueError unless they are a list of one or more."""
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.ndim != 1 or not 1 <= len(found) <= MOST_STEPS + 1:
        raise ValueError(f"{name} must be a list of one number or more, and {MOST_STEPS + 1} at most")
    return found


def falls(levels: np.ndarray) -> bool:
    """Whether `levels` (n,) are all finite, each below the one before."""
    return bool(np.isfinite(levels).all() and np.all(np.diff(levels) < 0))


def check_falls(levels: np.ndarray) -> np.ndarray:
    """The levels (n,) of a run. Raises ValueError unless each lies below the one before."""
    if not falls(levels):
        raise ValueError("the levels of this run do not fall from each to the next; correct the options that lay them: "
                         "num_train_timesteps, the betas, sigma_min or sigma_max")
    return levels


def karras(sigma_min: float, sigma_max: float, n: int, rho: float = 7.0) -> np.ndarray:
    """n sigmas, equally spaced in sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    ramp = np.linspace(0, 1, n)
    return (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def exponential(sigma_min: float, sigma_max: float, n: int) -> np.ndarray:
    """n sigmas, equally spaced in log sigma, which is the log-SNR of x (lu, after Lu et al. 2022)."""
    return np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), n))


def beta(sigma_min: float, sigma_max: float, n: int, a: float = 0.6, b: float = 0.6) -> np.ndarray:
    """n sigmas at the quantiles of a beta distribution (Lee et al. 2024, "Beta Sampling is All You Need")."""
    from scipy.special import betaincinv

    return sigma_min + betaincinv(a, b, 1 - np.linspace(0, 1, n)) * (sigma_max - sigma_min)


LAYOUTS = {"karras": karras, "exponential": exponential, "beta": beta, "lu": exponential}


def one_layout(**wanted: bool | None) -> str | None:
    """The name of the one layout that is asked for, or None: one_layout(karras=True, beta=False) is "karras".

    Raises ValueError where two are.
    """
    names = [name for name, on in wanted.items() if on]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} sigmas contradict each other; choose one")
    return names[0] if names else None


def lay_out(
    layout: str, sigmas: np.ndarray, n: int, sigma_min: float | None = None, sigma_max: float | None = None
) -> np.ndarray:
    """n sigmas, laid by karras, exponential, beta or lu from the first to the last of `sigmas` (which fall).

    sigma_min and sigma_max go before those ends.
    """
    low = float(sigmas[-1]) if sigma_min is None else sigma_min
    high = float(sigmas[0]) if sigma_max is None else sigma_max
    return LAYOUTS[layout](low, high, n)


def shift_flow(sigmas: np.ndarray, shift: float) -> np.ndarray:
    """Flow times moved towards noise: shift s / (1 + (shift - 1) s) (Esser et al. 2024, eq. 23)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def shift_flow_by(sigmas: np.ndarray, mu: float, time_shift_type: str = "exponential") -> np.ndarray:
    """Flow times moved by the resolution's mu, see `shift_of`."""
    return shift_flow(sigmas, shift_of(mu, time_shift_type))


def shift_of(mu: float, time_shift_type: str = "exponential") -> float:
    """The shift that the resolution's mu stands for: exp(mu) (FLUX), or mu itself where the type is linear.

    Raises ValueError for another type, or a mu that is no number from -20 to 20 (linear: above 0).
    """
    if time_shift_type not in ("exponential", "linear"):
        raise ValueError(f"time_shift_type is {show(time_shift_type)}; it can be exponential or linear")
    exponential = time_shift_type == "exponential"
    low, high = (-MOST_MU, MOST_MU) if exponential else (math.exp(-MOST_MU), math.exp(MOST_MU))
    if not isinstance(mu, int | float | np.number) or isinstance(mu, bool) or not low <= mu <= high:
        raise ValueError(f"mu is {show(mu)}; it must be a number from {low:.3g} to {high:.3g}")
    return float(np.exp(mu)) if exponential else float(mu)


def stretch_flow(sigmas: np.ndarray, terminal: float) -> np.ndarray:
    """Flow times stretched about 1 so that the last of them is `terminal` (LTX-Video).

    Raises ValueError where that is 1, which nothing stretches.
    """
    if sigmas[-1] == 1:
        raise ValueError("shift_terminal stretches a run whose last level lies below 1; ask for two steps or more")
    return 1 - (1 - sigmas) * (1 - terminal) / (1 - sigmas[-1])


def interpolate_timesteps(sigmas: np.ndarray, train_sigmas: np.ndarray) -> np.ndarray:
    """The fractional training timestep of each sigma, linear in log sigma; train_sigmas (T,) rise with t."""
    logs = np.log(np.maximum(sigmas, 1e-10))
    return np.interp(logs, np.log(train_sigmas), np.arange(len(train_sigmas)))


ALIGN_YOUR_STEPS = {
    "stable_diffusion": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "stable_diffusion_xl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "stable_video_diffusion": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


def align_your_steps(model: str, n: int = 10, *, end: float = 0.0) -> np.ndarray:
    """n + 1 sigmas that suit a model (Sabour et al. 2024), for `plan(sigmas=...)`; the last is `end`.

    The paper's are of ten steps; for other n they are interpolated in log, as the paper does.

    Raises ValueError for a model without them, or a bad n.
    """
    if model not in ALIGN_YOUR_STEPS:
        raise ValueError(f"align_your_steps knows no {model!r}; it knows {', '.join(ALIGN_YOUR_STEPS)}")
    check_steps(n)
    logs = np.log(ALIGN_YOUR_STEPS[model])
    sigmas = np.exp(np.interp(np.linspace(0, 1, n + 1), np.linspace(0, 1, len(logs)), logs))
    return np.append(sigmas[:-1], end)


ALIGN_YOUR_TIMESTEPS = {
    "stable_diffusion": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24),
    "stable_diffusion_xl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
}


def align_your_timesteps(model: str, n: int = 10) -> np.ndarray:
    """n timesteps that suit a model (Sabour et al. 2024), for `plan(timesteps=...)` of schedulers without sigmas.

    The paper's are ten; other n are read from them linearly. Raises ValueError for a model without them, or a bad n.
    """
    if model not in ALIGN_YOUR_TIMESTEPS:
        raise ValueError(f"align_your_timesteps knows no {model!r}; it knows {', '.join(ALIGN_YOUR_TIMESTEPS)}")
    check_steps(n)
    table = ALIGN_YOUR_TIMESTEPS[model]
    return np.round(np.interp(np.linspace(0, len(table) - 1, n), np.arange(len(table)), table))


FULL_ORDER = {
    4: (1, 0.7301, 0.3092, 0.1218),
    5: (1, 0.7648, 0.4103, 0.17, 0.05703),
    6: (1, 0.793, 0.4797, 0.2497, 0.09538, 0.04256),
    7: (1, 0.823, 0.5446, 0.3359, 0.167, 0.08551, 0.03376),
    8: (1, 0.8721, 0.6405, 0.435, 0.2774, 0.1566, 0.0736, 0.02801),
    9: (1, 0.8708, 0.6989, 0.4943, 0.3483, 0.2334, 0.1213, 0.06268, 0.02001),
    10: (1, 0.8902, 0.717, 0.5508, 0.403, 0.3044, 0.2122, 0.1166, 0.06298, 0.02376),
    12: (1, 0.9083, 0.7683, 0.6172, 0.4947, 0.3975, 0.3042, 0.2289, 0.1631, 0.0951, 0.04669, 0.01992),
    15: (1, 0.9267, 0.8178, 0.6854, 0.5795, 0.4938, 0.4138, 0.338, 0.2715, 0.2092, 0.1591, 0.1149, 0.06991, 0.03518,
         0.01561),
    20: (1, 0.9428, 0.8562, 0.7525, 0.6572, 0.5985, 0.5288, 0.4639, 0.4107, 0.3521, 0.3026, 0.2481, 0.2095, 0.1605,
         0.1206, 0.09456, 0.06732, 0.04201, 0.02555, 0.007549),
}


FULL_ORDER_ABOVE = {
    7: (1, 0.8437, 0.5959, 0.3872, 0.2373, 0.1291, 0.04129),
    9: (1, 0.9016, 0.7219, 0.5522, 0.4009, 0.2869, 0.2002, 0.1089, 0.03272),
    11: (1, 0.903, 0.7799, 0.6288, 0.5227, 0.425, 0.3359, 0.2377, 0.1833, 0.1088, 0.02697),
    14: (1, 0.9319, 0.8222, 0.6899, 0.5855, 0.5055, 0.4256, 0.3616, 0.3155, 0.2495, 0.1966, 0.156, 0.09359, 0.02542),
    19: (1, 0.9504, 0.8748, 0.7682, 0.6775, 0.6074, 0.5369, 0.4707, 0.4153, 0.3675, 0.3287, 0.2873, 0.2481, 0.2151,
         0.1681, 0.1267, 0.09352, 0.04501, 0.01828),
}


def full_order_levels(high: float, low: float, n: int) -> np.ndarray:
    """n levels in flow time, sigma / (alpha + sigma), from `high` and none below `low`; after the last comes 0.

    They make the error of `solvers.full_order` least over many mixtures of Gaussians, whose solution is known: close
    together where x is nearly noise and, more so, where it is nearly clean. There are two tables: for a model that was
    trained on noise little enough, and for one that was not, whose last level is `low`. The levels of other n lie
    between their neighbours', and those of more than a table has on its longest curve.
    """
    laid = high * _on_the_way(FULL_ORDER, n)
    if laid[-1] >= low or n == 1:
        return laid
    return low + (high - low) * np.append(_on_the_way(FULL_ORDER_ABOVE, n - 1), 0.0)


def _on_the_way(table: dict[int, tuple[float, ...]], n: int) -> np.ndarray:
    """n levels from 1, falling to 0 after the last: the table's, or between those of fewer and more of its curves."""
    from scipy.interpolate import PchipInterpolator

    fewer = max((k for k in table if k <= n), default=min(table))
    more = min((k for k in table if k >= n), default=max(table))
    few, many = (PchipInterpolator(np.arange(k + 1) / k, (*table[k], 0))(np.arange(n) / n) for k in (fewer, more))
    found: np.ndarray = few + (many - few) * (n - fewer) / max(more - fewer, 1)
    return found


def poisson_disc(num_train_timesteps: int, distance: int, seed: int = 0) -> np.ndarray:
    """Timesteps (n,) drawn at random, falling, for `plan(timesteps=...)`; the last one of the training is first.

    Each is `distance` or more from every other, and no other timestep would fit between them (Poisson-disc
    sampling), so that n lies between about T / (2 distance) and T / distance.

    Raises ValueError for a distance outside 1 to num_train_timesteps.
    """
    if not 1 <= distance <= num_train_timesteps:
        raise ValueError(f"distance is {distance}; it must lie within 1 and {num_train_timesteps}")
    kept = [num_train_timesteps - 1]
    for t in np.random.default_rng(seed).permutation(num_train_timesteps):
        if all(abs(t - other) >= distance for other in kept):
            kept.append(int(t))
    return np.sort(np.array(kept, np.float64))[::-1]
