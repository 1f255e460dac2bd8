"""A solver of your own in twenty lines: write one step as on paper; `tabulate` makes it jit, vmap and differentiate.

The solver is Adams-Bashforth of order 2 on the noise prediction (x = alpha x0 + sigma eps) in sigma / alpha.

    python examples/custom_solver.py
"""

import argparse
from typing import Any, NamedTuple

import jax
import numpy as np

import fdiff


class Memory(NamedTuple):
    x: Any
    eps_before: Any


def adams_bashforth_2():
    def step(i, grid, state, x0, eps, noise):
        ratio, ratio_to = grid.sigma[i] / grid.alpha[i], grid.sigma_to[i] / grid.alpha_to[i]
        slope = eps
        if i > 0:
            before = grid.sigma[i - 1] / grid.alpha[i - 1]
            slope = eps + (eps - state.eps_before) * (ratio_to - ratio) / (2 * (ratio - before))
        return Memory(grid.alpha_to[i] * (state.x / grid.alpha[i] + (ratio_to - ratio) * slope), eps)

    return fdiff.Solver(step, Memory)


def grid(n):
    """n rows of the variance-preserving process, from sigma / alpha = 20 down to 0.01."""
    ratio = np.geomspace(20, 0.01, n + 1)
    alpha = 1 / np.sqrt(1 + ratio**2)
    return fdiff.Grid(ratio[:-1], alpha[:-1], (ratio * alpha)[:-1], alpha[1:], (ratio * alpha)[1:])


def gaussian(x, t, mean=0.5, std=0.3):
    """The perfect network for data N(mean, std^2): t is sigma / alpha, and out is the noise in x."""
    alpha = 1 / (1 + t**2) ** 0.5
    return alpha * t * (x - alpha * mean) / (alpha**2 * std**2 + (alpha * t) ** 2)


def main(argv=None):
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    x = jax.random.normal(jax.random.key(0), (1000,))
    alpha, sigma = grid(1).alpha[0], grid(1).sigma[0]
    alpha_to, sigma_to = grid(1).alpha_to[0], grid(1).sigma_to[0]
    mean, std, mean_to = 0.5 * alpha, np.hypot(0.3 * alpha, sigma), 0.5 * alpha_to
    exact = mean_to + np.hypot(0.3 * alpha_to, sigma_to) * (x - mean) / std  # the flow carries quantiles to quantiles
    errors = {}
    for n in (20, 40, 80):
        errors[n] = {
            name: float(np.abs(fdiff.sample(gaussian, fdiff.tabulate(solver, grid(n)), x) - exact).mean())
            for name, solver in {"yours": adams_bashforth_2(), "ddim": fdiff.solvers.ddim()}.items()
        }
        print(f"{n:3d} steps: error {errors[n]['yours']:.1e} yours, {errors[n]['ddim']:.1e} DDIM")
    return errors


if __name__ == "__main__":
    main()
