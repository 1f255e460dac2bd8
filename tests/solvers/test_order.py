"""The measured order of convergence of every solver is the one that its docstring declares.

The data are Gaussian, N(MEAN, DEVIATION^2), so the best denoiser is known, E[x0 | x] = MEAN + gain (x - alpha MEAN),
and so is the exact law of x at every level. As solver and denoiser are affine, a run is followed exactly: a quantity
is a vector over 1, the first x and each row's noise. Its error is that of the mean and deviation of the last x,
which for a deterministic solver is the error of the ODE and for a stochastic one the weak error of the SDE.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from fdiff import solvers, spacing
from fdiff.plan import Grid, Memory, Solver

MEAN, DEVIATION = 0.6, 0.5
STEPS = 100


@dataclasses.dataclass(frozen=True)
class Order:
    """A solver, the grid of a run of n steps, and the order that it has there.

    A multistep solver warms up with low orders; so that its own is seen, x is exact in its first `history` rows.
    """

    name: str
    solver: Callable[[int], Solver]
    grid: Callable[[int], Grid]
    order: int
    history: int = 0


def exploding(n: int) -> Grid:
    """x = x0 + sigma eps on Karras levels."""
    sigma = spacing.karras(0.1, 10.0, n + 1)
    one = np.ones(n)
    return Grid(sigma[:-1], one, sigma[:-1], one, sigma[1:])


def preserving(n: int) -> Grid:
    """x = cos(t) x0 + sin(t) eps, in equal steps of t."""
    t = np.linspace(1.4, 0.1, n + 1)
    return Grid(t[:-1], np.cos(t[:-1]), np.sin(t[:-1]), np.cos(t[1:]), np.sin(t[1:]))


def flow(n: int) -> Grid:
    """x = (1 - sigma) x0 + sigma eps, in equal steps."""
    sigma = np.linspace(0.95, 0.05, n + 1)
    return Grid(sigma[:-1], 1 - sigma[:-1], sigma[:-1], 1 - sigma[1:], sigma[1:])


def sde(n: int) -> Grid:
    """The variance-preserving SDE with beta = 1 + 4 t, in equal steps of t from 1 to 0.1."""
    t = np.linspace(1.0, 0.1, n + 1)
    alpha = np.exp(-(t + 2 * t**2) / 2)
    sigma = np.sqrt(1 - alpha**2)
    return Grid(t[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])


def even_log_snr(n: int) -> Grid:
    """Variance-preserving x, in equal steps of log(alpha / sigma)."""
    levels = np.linspace(-2.5, 2.5, n + 1)
    alpha, sigma = 1 / np.sqrt(1 + np.exp(-2 * levels)), 1 / np.sqrt(1 + np.exp(2 * levels))
    return Grid(levels[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])


def whole(k: int) -> Callable[[int], Grid]:
    """As many of those steps as make whole groups of k rows."""
    return lambda n: even_log_snr(n // k * k)


def halved(grid: Callable[[int], Grid], middle: Callable[[float, float], float]) -> Callable[[int], Grid]:
    """Two rows a step: to middle(sigma, sigma_to), and from there to sigma_to. For grids linear in sigma."""
    def rows(n: int) -> Grid:
        table = []
        for t, alpha, sigma, alpha_to, sigma_to in zip(*grid(n), strict=True):
            between = middle(sigma, sigma_to)
            level = alpha + (alpha_to - alpha) * (between - sigma) / (sigma_to - sigma), between
            table += [(t, alpha, sigma, *level), (t, *level, alpha_to, sigma_to)]
        return Grid(*np.array(table).T)
    return rows


def churned(n: int) -> Grid:
    """Three rows a step: up in sigma, to sigma_to, and there."""
    table = []
    for _, _, sigma, _, sigma_to in zip(*exploding(n), strict=True):
        hat = sigma * (1 + 3.0 / n)
        table += [(0, 1, sigma, 1, hat), (1, 1, hat, 1, sigma_to), (1, 1, sigma_to, 1, sigma_to)]
    return Grid(*np.array(table).T)


def end(sigma: float, sigma_to: float) -> float:
    return sigma_to


def geometric(sigma: float, sigma_to: float) -> float:
    return float(np.sqrt(sigma * sigma_to))


ORDERS = [
    Order("ddim", lambda n: solvers.ddim(), exploding, 1),
    Order("ddim on a flow", lambda n: solvers.ddim(), flow, 1),
    Order("ddim, variance-preserving", lambda n: solvers.ddim(), preserving, 1),
    Order("ddim, ancestral", lambda n: solvers.ddim(1.0), preserving, 1),
    Order("euler, ancestral", lambda n: solvers.ddim(1.0), exploding, 1),
    Order("euler with churn", lambda n: solvers.euler(3.0 / n, x0_of=lambda sigma, hat: (1.0, -hat)), exploding, 1),
    *(Order(f"ancestral_flow, eta {eta}", lambda n, eta=eta: solvers.ancestral_flow(eta), flow, 1)
      for eta in (0.0, 0.5, 1.0)),
    *(Order(f"rescaled_score, not rescaled, noise {g}",
            lambda n, g=g: solvers.rescaled_score(np.ones(n), g / (1.05 - flow(n).sigma)), flow, 1) for g in (0, 1)),
    Order("heun", lambda n: solvers.heun(), halved(exploding, end), 2),
    Order("heun on a flow", lambda n: solvers.heun(), halved(flow, end), 2),
    Order("karras_ve with churn", lambda n: solvers.karras_ve(), churned, 2),
    *(Order(f"lms {k}", lambda n, k=k: solvers.lms(k), exploding, k, history=k - 1) for k in (1, 2, 3, 4)),
    Order("lms 4 on a flow", lambda n: solvers.lms(4), flow, 4, history=3),
    Order("dpm_2", lambda n: solvers.dpm_2(), halved(exploding, geometric), 2),
    Order("dpm_2, ancestral", lambda n: solvers.dpm_2(1.0), halved(exploding, end), 2),
    Order("dpm_sde", lambda n: solvers.dpm_sde(), halved(exploding, geometric), 2),
    Order("ipndm", lambda n: solvers.ipndm(), preserving, 2, history=3),
    Order("euler_maruyama", lambda n: solvers.euler_maruyama(lambda t: 1 + 4 * t, 0.9 / n), sde, 1),
    Order("reverse_diffusion", lambda n: solvers.reverse_diffusion(), exploding, 1),
    Order("ddpm", lambda n: solvers.ddpm(), preserving, 1),
    *(Order(f"pndm, prk {prk}", lambda n, prk=prk: solvers.pndm(prk=prk), preserving, 2) for prk in (False, True)),
    *(Order(f"pndm of velocities, prk {prk}", lambda n, prk=prk: solvers.pndm(prk=prk, velocity=True), preserving, 1)
      for prk in (False, True)),
    *(Order(f"dpm_multistep {k}, eps {eps}, heun {heun}",
            lambda n, k=k, eps=eps, heun=heun: solvers.dpm_multistep(k, noise_prediction=eps, heun=heun),
            even_log_snr, k, history=k - 1)
      for k, eps, heun in [(1, False, False), (1, True, False), (2, False, False), (2, False, True), (2, True, False),
                           (2, True, True), (3, False, False)]),
    Order("dpm_multistep 3, as diffusers", lambda n: solvers.dpm_multistep(3, as_diffusers=True), even_log_snr, 2, 2),
    Order("dpm_multistep 3, stochastic, as diffusers",
          lambda n: solvers.dpm_multistep(3, stochastic=True, as_diffusers=True), even_log_snr, 1, 2),
    *(Order(f"dpm_multistep {k}, stochastic, eps {eps}",
            lambda n, k=k, eps=eps: solvers.dpm_multistep(k, stochastic=True, noise_prediction=eps),
            even_log_snr, min(k, 2), history=k - 1)
      for k, eps in [(1, False), (1, True), (2, False), (2, True), (3, False)]),
    *(Order(f"dpm_singlestep {k}, eps {eps}, heun {heun}",
            lambda n, k=k, eps=eps, heun=heun: solvers.dpm_singlestep(
                [1 + i % k for i in range(n)], noise_prediction=eps, heun=heun), whole(k), k)
      for k in (1, 2, 3) for eps in (False, True) for heun in (False, True)),
    *(Order(f"dpm_singlestep {k}, stochastic",
            lambda n, k=k: solvers.dpm_singlestep([1 + i % k for i in range(n)], stochastic=True), whole(k), 1)
      for k in (1, 2, 3)),
    *(Order(f"unipc {k}, eps {eps}, bh1 {bh1}",
            lambda n, k=k, eps=eps, bh1=bh1: solvers.unipc(k, noise_prediction=eps, bh1=bh1),
            even_log_snr, k + 1, history=k)
      for k in (1, 2, 3, 4) for eps in (False, True) for bh1 in (False, True)),
    *(Order(f"unipc {k}, uncorrected", lambda n, k=k: solvers.unipc(k, uncorrected=range(n)), even_log_snr, k, k)
      for k in (1, 2, 3, 4)),
    *(Order(f"deis {k}", lambda n, k=k: solvers.deis(k), even_log_snr, k, history=k - 1) for k in (1, 2, 4)),
    *(Order(f"full_order {k}", lambda n, k=k: solvers.full_order(k), exploding, k + 1, history=k) for k in (1, 2, 3)),
    Order("deis 3", lambda n: solvers.deis(3), exploding, 3, history=2),
    *(Order(f"sa {k}, corrected by {k + 1}", lambda n, k=k: solvers.sa([k] * n, [k + 1] * n, [0] * n),
            even_log_snr, k + 1, history=k) for k in (1, 2, 3)),
    *(Order(f"sa {k}, corrected by {k}, tau {tau}", lambda n, k=k, tau=tau: solvers.sa([k] * n, [k] * n, [tau] * n),
            even_log_snr, k, history=k) for k in (1, 2) for tau in (0, 1)),
    *(Order(f"sa 2 of eps, tau {tau}",
            lambda n, tau=tau: solvers.sa([2] * n, [2] * n, [tau] * n, noise_prediction=True),
            even_log_snr, 2, history=2) for tau in (0, 1)),
    Order("repaint, down", lambda n: solvers.repaint(), preserving, 1),
]


@pytest.mark.parametrize("case", ORDERS, ids=lambda case: case.name)
def test_error_falls_with_the_declared_order(case):
    coarse, fine = (error(case, n) for n in (STEPS, 2 * STEPS))
    assert np.log2(coarse / fine) == pytest.approx(case.order, abs=0.25)


def error(case: Order, n: int) -> float:
    """How far mean and deviation of the last x are from those of the data at that level."""
    grid, solver = case.grid(n), case.solver(n)
    size = len(grid.t) + 2
    x = unit(size, 1)
    state = solver.memory(x, *(np.zeros(size) for _ in solver.memory._fields[1:]))
    for i in range(len(grid.t)):
        if i <= case.history:
            state = state._replace(x=exact(grid, grid.alpha[i], grid.sigma[i], size))
        alpha, sigma = grid.alpha[i], grid.sigma[i]
        gain = alpha * DEVIATION**2 / deviation(alpha, sigma) ** 2
        x0 = MEAN * unit(size, 0) + gain * (state.x - alpha * MEAN * unit(size, 0))
        state = solver.step(i, grid, state, x0, (state.x - alpha * x0) / sigma, unit(size, i + 2))
    first = grid.alpha[0] * MEAN, deviation(grid.alpha[0], grid.sigma[0])
    mean = state.x[0] + state.x[1] * first[0]
    spread = np.hypot(state.x[1] * first[1], np.linalg.norm(state.x[2:]))
    wanted = grid.alpha_to[-1] * MEAN, deviation(grid.alpha_to[-1], grid.sigma_to[-1])
    return float(np.hypot(mean - wanted[0], spread - wanted[1]))


def deviation(alpha: float, sigma: float) -> float:
    return float(np.hypot(alpha * DEVIATION, sigma))


def exact(grid: Grid, alpha: float, sigma: float, size: int) -> np.ndarray:
    """x at that level where the ODE takes the first x."""
    ratio = deviation(alpha, sigma) / deviation(grid.alpha[0], grid.sigma[0])
    return MEAN * (alpha - ratio * grid.alpha[0]) * unit(size, 0) + ratio * unit(size, 1)


def unit(size: int, index: int) -> np.ndarray:
    return np.eye(size)[index]


def test_langevin_dynamics_end_at_the_law_of_their_level():
    """From anywhere, but for the variance that steps of their length add: 1 / (1 - k / 2), k the pull of a step."""
    sigma, size, n = 0.7, 0.1, 300
    grid = Grid(*np.broadcast_to([[0], [1], [sigma], [1], [sigma]], (5, n)))
    variance, x, step = DEVIATION**2 + sigma**2, np.array([9.0, 0.0]), solvers.langevin(size).step  # mean, deviation
    for i in range(n):
        eps = sigma * (x - [MEAN, 0]) / variance
        pulled = step(i, grid, Memory(x), 0 * x, eps, 0 * x).x
        fresh = step(i, grid, Memory(0.0), 0.0, 0.0, 1.0).x
        x = np.array([pulled[0], np.hypot(pulled[1], fresh)])
    pull = size * sigma**2 / variance
    assert abs(x[0] - MEAN) < 1e-3 and abs(x[1] ** 2 * (1 - pull / 2) / variance - 1) < 1e-6
