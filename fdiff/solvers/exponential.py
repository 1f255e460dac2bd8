"""What solvers in the log-SNR share: lambda = log(alpha / sigma), its past values, and integrals with exp(lambda)."""

from __future__ import annotations

import math

import numpy as np

from fdiff.plan import Grid

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(32)  # exact to float64 over steps of any sensible length
POINTS, WEIGHTS = (POINTS + 1) / 2, WEIGHTS / 2


def log_snr(alpha: float, sigma: float) -> float:
    """lambda = log(alpha / sigma), -inf for pure noise and inf for a clean x."""
    with np.errstate(divide="ignore"):
        return float(np.log(alpha) - np.log(sigma))


def past(i: int, grid: Grid, most: int) -> np.ndarray:
    """lambda at row i, row i - 1, ...: at most `most`, as far as they are finite and each differs from the one before.

    So two rows at one level, or a start from pure noise, lower the order in place of dividing by zero.
    """
    found = [log_snr(grid.alpha[i], grid.sigma[i])]
    for j in range(i - 1, max(i - most, -1), -1):
        before = log_snr(grid.alpha[j], grid.sigma[j])
        if not np.isfinite(before) or abs(before - found[-1]) < 1e-12:
            break
        found.append(before)
    return np.array(found)


def phi(k: int, z: float) -> float:
    """phi_k(z) = integral over 0 < s < 1 of exp((1 - s) z) s^(k - 1) / (k - 1)!; phi_1 is (exp(z) - 1) / z."""
    return float(np.sum(WEIGHTS * np.exp((1 - POINTS) * z) * POINTS ** (k - 1))) / math.factorial(k - 1)


def lagrange_weights(nodes: np.ndarray, begin: float, end: float, rate: float) -> np.ndarray:
    """The integral from begin to end of exp(rate (s - end)) and each Lagrange polynomial over the nodes (k,)."""
    s = begin + (end - begin) * POINTS
    basis = [np.prod([(s - q) / (p - q) for q in np.delete(nodes, j)], axis=0) * np.ones_like(s)
             for j, p in enumerate(nodes)]
    return np.array(basis) @ (WEIGHTS * np.exp(rate * (s - end))) * (end - begin)
