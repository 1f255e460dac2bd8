"""Jump to x0, then mix the x that the run began with back in."""

from __future__ import annotations

from typing import Any, NamedTuple

from fdiff.plan import Grid, Solver


class _Memory(NamedTuple):
    x: Any
    first: Any


def one_noise() -> Solver:
    """A few steps of a network distilled by distribution matching (Yin et al. 2024), with one noise for all of them.

        x = alpha_to x0 + sigma_to first,  first the x that the run began with

    One network call a step; deterministic, and no order, since it follows no path. As `first` holds some x0 unless
    the run begins with noise alone, a perfect denoiser is not met exactly before the last step.
    """
    def step(i: int, grid: Grid, state: _Memory, x0: Any, eps: Any, noise: Any) -> _Memory:
        first = state.first if i else state.x
        return _Memory(grid.alpha_to[i] * x0 + grid.sigma_to[i] * first, first)

    return Solver(step, _Memory, keeps_level=False, lands=False)
