"""What a sampler is: a grid of noise levels, a solver as in its paper, and the table of numbers they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fdiff.display import attempted, plan_html

Pair = tuple[Any, Any]
Prediction = Callable[[Any, Any], tuple[Pair, Pair]]


class Grid(NamedTuple):
    """The noise levels a run visits, on the host in float64: row i takes x from one level to the next.

        x = alpha * x0 + sigma * eps

    Every field has shape (n,). Rows are from-to pairs, one for each network call; they need not chain.
    """

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    alpha_to: np.ndarray
    sigma_to: np.ndarray

    def rows(self, start: int, stop: int | None = None) -> Grid:
        """Rows `start` to `stop`, as a grid."""
        return Grid(*(column[start:stop] for column in self))


@dataclasses.dataclass(frozen=True)
class Plan:
    """The table that drives a sampler: a pytree of float32 leaves (n, ...), one row for each network call.

        out   = network(c_in * x, t)                        no call where c_in is 0
        x0    = clip(x0_of[0] * x + x0_of[1] * out)
        eps   = eps_of[0] * x + eps_of[1] * out
        state = carry @ state + from_x0 * x0 + from_eps * eps + from_noise * noise

    `state` has K slots shaped like x; slot 0 is x. `plan[i]` is a row, `plan[a:b]` a plan, `len(plan)` its
    rows.

    Attributes:
        t: (n,) what the network is told.
        c_in: (n,) scale of its input; 0 marks a row without a network call.
        x0_of, eps_of: (n, 2) the predictions from x and the network's output.
        carry: (n, K, K).
        from_x0, from_eps, from_noise: (n, K).
        alpha, sigma: (n,) the level of x as it enters the row.
        start_std: (n,) standard deviation of the x from which a run may start at this row.
        clip: (n, 2) limit and quantile: x0 is clipped to +-limit (infinite: not at all); with a quantile
            above 0, to that quantile of |x0| kept within [1, limit], and divided by it (dynamic thresholding,
            Imagen).
        variance_of: (n, 3) used where the network also predicts a variance v, in a second half of its
            channels: noise has variance exp(a + b * v) + c * v.
        draws: (n,) how many arrays of noise diffusers draws in the row, where that is more than the row uses: only
            torch_seed heeds it, to stay in step with torch's generator. The last one drawn is the noise.
    """

    t: Any
    c_in: Any
    x0_of: Any
    eps_of: Any
    carry: Any
    from_x0: Any
    from_eps: Any
    from_noise: Any
    alpha: Any
    sigma: Any
    start_std: Any
    clip: Any
    variance_of: Any
    draws: Any

    def _repr_html_(self) -> str | None:
        return attempted(plan_html, self)

    def map(self, function: Callable[[Any], Any]) -> Plan:
        """The plan with `function` applied to every leaf."""
        return Plan(*(function(getattr(self, field.name)) for field in dataclasses.fields(self)))

    def drawing(self, draws: np.ndarray | float = 1.0) -> Plan:
        """The plan with another `draws`: in these rows (n,), or in all, diffusers draws whether noise is used or not.
        """
        return dataclasses.replace(self, draws=np.full(len(self), draws, np.float32))

    def __getitem__(self, index: Any) -> Plan:
        return self.map(lambda leaf: leaf[index])

    def __len__(self) -> int:
        return int(self.t.shape[0])

    @property
    def start(self) -> Any:
        """Standard deviation of the first x."""
        return self.start_std[..., 0]

    @property
    def slots(self) -> int:
        """K, the number of arrays that the sampler carries."""
        return int(self.from_x0.shape[-1])

    def pad(self, rows: int | None = None, slots: int | None = None) -> Plan:
        """The same run as a larger table, so that plans of many lengths and solvers share one compilation.

        Rows that are added have no network call and change nothing; slots that are added stay zero.
        Raises ValueError where the plan is larger than that already.
        """
        n, k = len(self), self.slots
        rows, slots = rows or n, slots or k
        if rows < n or slots < k:
            raise ValueError(f"cannot pad a plan of {n} rows and {k} slots to {rows} rows and {slots} slots")
        idle = np.zeros((rows, slots, slots), np.float32) + np.eye(slots, dtype=np.float32)
        idle[:n] = 0
        idle[:n, :k, :k] = self.carry
        fill = {"carry": idle}
        fill |= {name: _extend(getattr(self, name), rows, edge=True) for name in ("t", "clip")}
        for name in ("from_x0", "from_eps", "from_noise"):
            fill[name] = np.zeros((rows, slots), np.float32)
            fill[name][:n, :k] = getattr(self, name)
        for field in dataclasses.fields(self):
            if field.name not in fill:
                fill[field.name] = _extend(getattr(self, field.name), rows)
        return Plan(**fill)


def _extend(leaf: Any, rows: int, edge: bool = False) -> np.ndarray:
    """The leaf with rows of zeros (or of its last row) added."""
    leaf = np.asarray(leaf)
    width = [(0, rows - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)
    return np.pad(leaf, width, mode="edge" if edge else "constant")


def unit_interval(name: str, value: Any) -> float:
    """The option of that name as a float. Raises ValueError unless it is a number within [0, 1]."""
    try:
        number = float("nan") if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {value!r:.60}; it must lie within [0, 1]")
    return number


class Memory(NamedTuple):
    """What a one-step solver carries: x alone. Multistep solvers have a NamedTuple of their own, x first."""

    x: Any


class Solver(NamedTuple):
    """A solver: its step, the NamedTuple that it carries (x first), and whether its noise keeps the level.

    `step(i, grid, state, x0, eps, noise) -> state` is the textbook formula for row i, in x = alpha x0 + sigma
    eps. It must be linear in the five last arguments and may branch on i and the grid in any way.
    `keeps_level` is False for solvers whose noise does not add up to sigma_to by design, and `lands` for
    those that do not bring a perfect denoiser to alpha_to.
    """

    step: Callable[..., Any]
    memory: type = Memory
    keeps_level: bool = True
    lands: bool = True


def epsilon(alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
    """The network predicts the noise: x0 = (x - sigma out) / alpha, eps = out (Ho et al. 2020, eq. 15).

    As all predictions, for numbers and arrays, NumPy's and JAX's. Raises ValueError for an alpha of 0.
    """
    if isinstance(alpha, float | np.ndarray) and np.any(np.asarray(alpha) == 0):
        raise ValueError("a network that predicts noise (prediction_type epsilon) cannot start from "
                         "alpha = 0; use v_prediction or switch rescale_betas_zero_snr off")
    return (1 / alpha, -sigma / alpha), (0.0, 1.0)


def sample(alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
    """The network predicts x0: x0 = out, eps = (x - alpha out) / sigma, which is 0 for a clean x."""
    noisy, divisor = sigma != 0, sigma + (sigma == 0)  # so that nothing is divided by 0
    return (0.0, 1.0), (noisy / divisor, -alpha * noisy / divisor)


def v_prediction(alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
    """The network predicts v = (alpha eps - sigma x0) / c, c^2 = alpha^2 + sigma^2 (Salimans & Ho 2022)."""
    c2 = alpha**2 + sigma**2
    c = c2**0.5
    return (alpha / c2, -sigma / c), (sigma / c2, alpha / c)


def flow_prediction(alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
    """The network predicts the velocity eps - x0 (Lipman et al. 2023): x0 = (x - sigma out) / (alpha + sigma).
    """
    c = alpha + sigma
    return (1 / c, -sigma / c), (1 / c, alpha / c)


def reversed_output(prediction: Prediction) -> Prediction:
    """The same of a network whose output has the other sign."""
    def predict(alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        (x, out), (x_of_eps, out_of_eps) = prediction(alpha, sigma)
        return (x, -out), (x_of_eps, -out_of_eps)

    return predict


def edm(sigma_data: float, prediction_type: str = "epsilon") -> Prediction:
    """EDM's preconditioned network (Karras et al. 2022, table 1), in x = x0 + sigma eps.

        x0 = sigma_data^2 / c^2 x + sigma sigma_data / c out,  c^2 = sigma^2 + sigma_data^2

    sigma_data is the deviation of the data. With v_prediction the network's output has the other sign.
    Raises ValueError for any other type.
    """
    if prediction_type not in ("epsilon", "v_prediction"):
        raise ValueError(f"prediction_type is {prediction_type!r}; beside sigma_data it can be epsilon or "
                         "v_prediction")

    def predict(alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        c2 = sigma**2 + sigma_data**2
        c = c2**0.5
        return (sigma_data**2 / c2, sigma * sigma_data / c), (sigma / c2, -sigma_data / c)

    return predict if prediction_type == "epsilon" else reversed_output(predict)


PREDICTIONS: dict[str, Prediction] = {
    "epsilon": epsilon,
    "sample": sample,
    "v_prediction": v_prediction,
    "flow_prediction": flow_prediction,
}


def tabulate(
    solver: Solver,
    grid: Grid,
    prediction: str | Prediction = "epsilon",
    *,
    c_in: np.ndarray | float = 1.0,
    start_std: np.ndarray | None = None,
    clip: Pair = (np.inf, 0.0),
    variance_of: np.ndarray | None = None,
) -> Plan:
    """Run the solver once a row with unit vectors; the vectors that come out are the plan's coefficients.

    Args:
        solver: the formula of one step.
        grid: the levels to visit, n rows.
        prediction: what the network's output means: epsilon, sample, v_prediction, flow_prediction, or
            a function (alpha, sigma) -> (x0_of, eps_of).
        c_in: (n,) or a number: scale of the network's input; 0 for a row without a network call.
        start_std: (n,) see Plan; sqrt(alpha^2 + sigma^2) if not given.
        clip: see Plan.
        variance_of: (n, 3) see Plan.

    Raises ValueError for a table that no sampler may have: a step that is not linear or not finite, a perfect
    denoiser that does not land on alpha_to, noise that does not add up to sigma_to.
    """
    grid = Grid(*(np.asarray(column, np.float64) for column in grid))
    n, k = len(grid.t), len(solver.memory._fields)  # type: ignore[attr-defined]
    if n == 0:
        raise ValueError("a plan needs at least one step; ask for num_inference_steps of 1 or more")
    if not callable(prediction) and prediction not in PREDICTIONS:
        raise ValueError(f"prediction_type is {prediction!r}; it can be {', '.join(PREDICTIONS)}")
    predict = PREDICTIONS[prediction] if isinstance(prediction, str) else prediction
    _finite(grid)
    calls = np.broadcast_to(np.asarray(c_in, np.float64), (n,))
    table = np.stack([_row(solver, grid, i, k) for i in range(n)])
    if not np.isfinite(table).all():
        row = int(np.argwhere(~np.isfinite(table))[0, 0])
        raise ValueError(f"the solver divides by zero at row {row} (from sigma {grid.sigma[row]:g} to "
                         f"{grid.sigma_to[row]:g}); two steps visit one noise level, so ask for fewer steps")
    _check(table, grid, calls != 0, solver)
    x0_of, eps_of = (np.zeros((n, 2)) for _ in range(2))
    called = calls != 0
    for of, pair in zip((x0_of, eps_of), predict(grid.alpha[called], grid.sigma[called]), strict=True):
        of[called] = np.stack(np.broadcast_arrays(*pair, grid.alpha[called])[:2], -1)
    leaves = Plan(
        t=grid.t, c_in=calls, x0_of=x0_of, eps_of=eps_of,
        carry=table[:, :, :k],
        from_x0=table[:, :, k], from_eps=table[:, :, k + 1], from_noise=table[:, :, k + 2],
        alpha=grid.alpha, sigma=grid.sigma,
        start_std=np.hypot(grid.alpha, grid.sigma) if start_std is None else start_std,
        clip=np.broadcast_to(np.asarray(clip), (n, 2)),
        variance_of=np.zeros((n, 3)) if variance_of is None else variance_of,
        draws=table[:, :, k + 2].any(axis=1),
    )
    with np.errstate(over="ignore"):
        plan = leaves.map(lambda leaf: np.array(leaf, np.float32))
    for name, leaf in vars(plan).items():
        bad = np.isnan(leaf) if name == "clip" else ~np.isfinite(leaf)
        if bad.any():
            row = int(np.argwhere(bad)[0, 0])
            raise ValueError(f"{name} is not finite in row {row} of the plan (alpha {grid.alpha[row]:g}, sigma "
                             f"{grid.sigma[row]:g}); correct the options that lay such a level")
    return plan


def _finite(grid: Grid) -> None:
    """Raise ValueError for levels that are none, before a solver is blamed for them."""
    for name, column in zip(Grid._fields, grid, strict=True):
        if not np.isfinite(column).all():
            row = int(np.argwhere(~np.isfinite(column))[0, 0])
            raise ValueError(f"{name} is {column[row]:g} in row {row} of the run; correct the options that lay "
                             "such a level, such as the betas and the range of sigma")


def _row(solver: Solver, grid: Grid, i: int, k: int) -> np.ndarray:
    """(K, K + 3): each new slot as a combination of the old slots, x0, eps and noise."""
    def run(basis: np.ndarray) -> np.ndarray:
        state = solver.step(i, grid, solver.memory(*basis[:k]), *basis[k:])
        return np.stack([np.broadcast_to(slot, basis.shape[1:]) for slot in state])

    with np.errstate(divide="ignore", invalid="ignore"):
        row = run(np.eye(k + 3))
        probe = np.random.default_rng(i).normal(size=(k + 3, 3))
        size = np.abs(row).max()
        if np.isfinite(size) and not np.allclose(run(probe), row @ probe, rtol=1e-9, atol=1e-9 * size):
            raise ValueError(f"the solver's step is not linear at row {i}")
    return row


def _check(table: np.ndarray, grid: Grid, calls: np.ndarray, solver: Solver) -> None:
    """Follow a run whose denoiser knows x0: from alpha x0 + (noise of deviation sigma), each row must reach the next.

    What is followed is how much of x0 each slot holds, and their noise as rows over independent normals.
    """
    n, k = table.shape[:2]
    signal, noise = np.zeros(k), np.zeros((k, 1))
    noise[0] = grid.sigma[0]
    for i in range(n):
        alpha, sigma = grid.alpha[i], grid.sigma[i]
        spread = np.linalg.norm(noise[0])
        signal[0], noise[0] = alpha, noise[0] * (sigma / spread if spread else 0.0)  # so that no error adds up
        carry, (from_x0, from_eps, from_noise) = table[i, :, :k].copy(), table[i, :, k:].T
        if calls[i] and sigma:  # eps = (x - alpha x0) / sigma
            carry[:, 0] += from_eps / sigma
            from_x0 = from_x0 - alpha / sigma * from_eps
        signal = carry @ signal + from_x0 * calls[i]
        said = from_eps if calls[i] and not sigma else 0 * from_eps  # from a clean x (inversion) eps is anything
        noise = np.column_stack([carry @ noise, from_noise, said])
        noise = np.asarray(np.linalg.qr(noise.T, mode="r")).T  # as few normals as slots, their covariance kept
        size = max(abs(grid.alpha_to[i]), abs(grid.sigma_to[i]), 1e-3)
        if solver.lands and abs(signal[0] - grid.alpha_to[i]) > 1e-6 * max(size, np.abs(table[i]).max()):
            raise ValueError(f"the solver is wrong at row {i}: a perfect denoiser lands on alpha "
                             f"{signal[0]:g} instead of {grid.alpha_to[i]:g}")
        spread = np.linalg.norm(noise[0])
        if solver.keeps_level and abs(spread - grid.sigma_to[i]) > 1e-6 * max(size, np.abs(table[i]).max()):
            raise ValueError(f"the solver is wrong at row {i}: its noise adds up to {spread:g} "
                             f"instead of sigma {grid.sigma_to[i]:g}")
