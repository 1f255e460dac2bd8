"""What order does each deterministic scheduler reach on the grids that people use? Tables in Markdown, and a plot.

The data are mixtures of Gaussians, whose best denoiser is known, and so is the flow that the schedulers solve: it is
followed to twelve digits from the same first x. A run steps by the scheduler's own solver over its own rows in float64
(only `fdiff.Plan` rounds them to float32), and its error is the root mean square of what its last x is off by, in
units of the data's deviation. The order is how fast that falls from 25 to 100 steps: 1 where twice the steps halve
it, 2 where they quarter it, and so on.

    python examples/scheduler_orders.py --plot orders.png
"""

import argparse
import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import scipy.integrate
import scipy.special

import fdiff
from fdiff.schedulers.exploding import train_sigmas

TRAINED = {  # the scheduler_config.json of Stable Diffusion 1.5, whose timestep_spacing is each class's own
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False,
}  # fmt: skip
KARRAS, LEAST = {"use_karras_sigmas": True}, {"final_sigmas_type": "sigma_min"}
ROUNDED = "the same, timesteps as told"  # where the network takes the timestep that it is told for the level of x
GRIDS = {
    "as configured": {},
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "Karras": KARRAS,
    "to sigma_min": LEAST,
    "Karras, to sigma_min": KARRAS | LEAST,
    ROUNDED: KARRAS | LEAST,
}
PRESERVING = {
    "DDIM": ("DDIM", {}),
    "Euler": ("EulerDiscrete", {}),
    "Heun": ("HeunDiscrete", {}),
    "KDPM2": ("KDPM2Discrete", {}),
    "PNDM": ("PNDM", {}),
    "LMS": ("LMSDiscrete", {}),
    "DEIS 2": ("DEISMultistep", {}),
    "DEIS 3": ("DEISMultistep", {"solver_order": 3}),
    "DPM-Solver++ 2M": ("DPMSolverMultistep", {}),
    "DPM-Solver++ 3M": ("DPMSolverMultistep", {"solver_order": 3}),
    "DPM-Solver++ 2S": ("DPMSolverSinglestep", {}),
    "DPM-Solver++ 3S": ("DPMSolverSinglestep", {"solver_order": 3}),
    "UniPC 2": ("UniPCMultistep", {}),
    "UniPC 3": ("UniPCMultistep", {"solver_order": 3}),
}
SHIFTED = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
OWN = "its own"
OTHERS = {
    "FlowMatchEuler, shift 3": ("FlowMatchEulerDiscrete", {"shift": 3.0}),
    "FlowMatchHeun, shift 3": ("FlowMatchHeunDiscrete", {"shift": 3.0}),
    "DPM-Solver++ 2M, flow shift 3": ("DPMSolverMultistep", SHIFTED),
    "DEIS 2, flow shift 3": ("DEISMultistep", SHIFTED),
    "UniPC 2, flow shift 3": ("UniPCMultistep", SHIFTED),
    "UniPC 2, flow shift 3, to sigma_min": ("UniPCMultistep", SHIFTED | LEAST),
    "EDMEuler": ("EDMEuler", {}),
    "EDMDPMSolver 2M": ("EDMDPMSolverMultistep", {}),
    "IPNDM": ("IPNDM", {}),
    "CogVideoXDDIM": ("CogVideoXDDIM", {}),
}


PANELS = {
    "as configured": ["Euler", "Heun", "PNDM", "LMS", "DEIS 2", "DEIS 3", "DPM-Solver++ 2M", "UniPC 2"],
    "Karras": ["Euler", "Heun", "KDPM2", "LMS", "DEIS 2", "DEIS 3", "DPM-Solver++ 2M", "UniPC 2"],
    "Karras, to sigma_min": ["Euler", "DPM-Solver++ 2M", "DPM-Solver++ 3M", "DPM-Solver++ 2S", "DPM-Solver++ 3S",
                             "UniPC 2", "UniPC 3"],
    OWN: ["FlowMatchEuler, shift 3", "FlowMatchHeun, shift 3", "DPM-Solver++ 2M, flow shift 3",
          "DEIS 2, flow shift 3", "UniPC 2, flow shift 3", "EDMEuler", "EDMDPMSolver 2M", "IPNDM"],
}  # fmt: skip
STEPS = [4, 8, 10, 20, 25, 50, 100]
STYLES = ["o-", "s--", "^:", "D-.", "v-", "P--", "X-.", "*--", "<:", ">-", "p--"]
LOG_RATIOS = np.log(train_sigmas(fdiff.EulerDiscreteScheduler.from_config(TRAINED)))


class Run(NamedTuple):
    """A run as its scheduler laid it, in float64: the solver, its rows, and which of them call the network."""

    solver: fdiff.Solver
    grid: fdiff.Grid
    called: np.ndarray


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Five Gaussians of equal weight in the plane, of deviation 1 in all and a mean beside 0."""

    seed: int
    narrow: float = 0.45

    @functools.cached_property
    def means(self):
        """(5, 2)."""
        means = np.random.default_rng(self.seed).normal(size=(5, 2))
        means -= means.mean(0)
        return 0.3 + means * np.sqrt((1 - self.narrow**2) / np.mean(means**2))

    def split(self, x, alpha, sigma):
        """(x0, eps), what is expected of both given x = alpha x0 + sigma eps; each shaped like x, (b, 2)."""
        variance = alpha**2 * self.narrow**2 + sigma**2
        apart = x[:, None] - alpha * self.means
        weights = scipy.special.softmax(-0.5 * np.sum(apart**2, -1) / variance, axis=1)[..., None]
        x0 = np.sum(weights * (self.means + alpha * self.narrow**2 / variance * apart), 1)
        return x0, np.sum(weights * sigma / variance * apart, 1)


def laid(name, options, n):
    """The run of n steps of that scheduler; None where it has no such option or no such run."""
    cls = getattr(fdiff, f"{name}Scheduler")
    if any(option not in cls.__dataclass_fields__ for option in options):
        return None
    kept = []

    class Kept(cls):
        def _tabulate(self, solver, grid, *, called=1.0, **rest):
            kept.append(Run(solver, grid, np.broadcast_to(called, grid.t.shape)))
            return super()._tabulate(solver, grid, called=called, **rest)

    try:
        Kept.from_config(TRAINED, **options).plan(n)
    except ValueError:
        return None
    return kept[0]


def sampled(run, mixture, x, as_told=False):
    """The last x of the run."""
    state = run.solver.memory(x, *(np.zeros_like(x) for _ in run.solver.memory._fields[1:]))
    for i, (t, alpha, sigma) in enumerate(zip(run.grid.t, run.grid.alpha, run.grid.sigma, strict=True)):
        x0 = eps = 0 * x
        if run.called[i] and as_told:
            angle = np.arctan(np.exp(np.interp(t, np.arange(1000), LOG_RATIOS)))
            eps = mixture.split(state.x / np.hypot(alpha, sigma), np.cos(angle), np.sin(angle))[1]
            x0 = (state.x - sigma * eps) / alpha
        elif run.called[i]:
            x0, eps = mixture.split(state.x, alpha, sigma)
        state = run.solver.step(i, run.grid, state, x0, eps, 0 * x)
    return state.x


@functools.cache
def solved(mixture, count, level, level_to):
    """Noise (count, 2) at the first level, and where the flow takes it.

    With (alpha, sigma) = r (cos a, sin a) and u = x / r, the flow is du/da = eps cos a - x0 sin a.
    """
    first = np.hypot(*level) * np.random.default_rng(100).normal(size=(count, 2))

    def slope(a, u):
        x0, eps = mixture.split(u.reshape(first.shape), np.cos(a), np.sin(a))
        return (eps * np.cos(a) - x0 * np.sin(a)).ravel()

    ends = [np.arctan2(sigma, alpha) for alpha, sigma in (level, level_to)]
    u = scipy.integrate.solve_ivp(slope, ends, first.ravel() / np.hypot(*level), "DOP853", rtol=1e-11, atol=1e-12).y
    return first, u[:, -1].reshape(first.shape) * np.hypot(*level_to)


def error(name, options, n, count, as_told=False):
    """How far the last x of n steps is off, and the network calls of a run; None where there is no such run."""
    run = laid(name, options, n)
    if run is None:
        return None
    level, level_to = (run.grid.alpha[0], run.grid.sigma[0]), (run.grid.alpha_to[-1], run.grid.sigma_to[-1])
    squares = []
    for mixture in map(Mixture, range(4)):
        first, wanted = solved(mixture, count, level, level_to)
        squares.append(np.mean((sampled(run, mixture, first, as_told) - wanted) ** 2))
    return np.sqrt(np.mean(squares)) / np.hypot(*level_to), np.count_nonzero(run.called)


@functools.cache
def measured(label, grid, count):
    """{n: (error, calls)} of that scheduler on that grid; empty where it has no such runs."""
    name, options = {**PRESERVING, **OTHERS}[label]
    found = {n: error(name, {**options, **GRIDS.get(grid, {})}, n, count, as_told=grid == ROUNDED) for n in STEPS}
    return {n: pair for n, pair in found.items() if pair}


def order(found):
    """The order as a cell: how the error falls over the last two octaves, or the floor where it no longer does."""
    n = max(found)
    if found[n][0] > 0.75 * found[n // 2][0]:
        return f"stops at {found[n][0]:.0e}".replace("e-0", "e-")
    return f"{np.log(found[n // 4][0] / found[n][0]) / np.log(4):.1f}"


def at_calls(calls, found):
    """The error of the longest run of at most one call more than that, as a cell."""
    return f"{found[max(n for n, (_, made) in found.items() if made <= calls + 1)][0]:.4f}"


def table(labels, columns):
    """Rows of Markdown, one for each scheduler; columns are {title: label -> cell}."""
    yield "| " + " | ".join(["scheduler", *columns]) + " |"
    yield "| --- " * (1 + len(columns)) + "|"
    for label in labels:
        yield "| " + " | ".join([label, *(cell(label) for cell in columns.values())]) + " |"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=64, help="points of each of four mixtures")
    parser.add_argument("--names", nargs="+", default=[*PRESERVING, *OTHERS])
    parser.add_argument("--plot", help="where to draw error against calls")
    arguments = parser.parse_args(argv)
    labels, others = ([name for name in arguments.names if name in known] for known in (PRESERVING, OTHERS))
    kinds = {"error of 8 calls": functools.partial(at_calls, 8), "error of 20 calls": functools.partial(at_calls, 20),
             "order": order}  # fmt: skip

    def column(grid, kind):
        return lambda label: kind(found) if (found := measured(label, grid, arguments.count)) else "-"

    tables = {title: table(labels, {grid: column(grid, kind) for grid in GRIDS}) for title, kind in kinds.items()}
    tables["on grids of their own"] = table(others, {title: column(OWN, kind) for title, kind in kinds.items()})
    tables = {title: list(rows) for title, rows in tables.items()}
    for title, rows in tables.items():
        print(f"\n{title}\n\n" + "\n".join(rows))
    if arguments.plot:
        draw(arguments.plot, arguments.count)
    return tables


def draw(path, count):
    """Error against calls on four grids, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 10), layout="constrained", dpi=110)
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axis, (grid, labels) in zip(axes, PANELS.items(), strict=True):
        axis.set_title(grid)
        for label in labels:
            errors, calls = zip(*measured(label, grid, count).values(), strict=True)
            look = [*PRESERVING, *OTHERS].index(label)
            axis.loglog(calls, errors, STYLES[look % len(STYLES)], color=f"C{look % 10}", label=label)
        axis.legend(loc="lower left", fontsize=9)
        axis.grid(alpha=0.3, which="both")
        axis.set_xlabel("network calls")
        axis.set_ylabel("error, in deviations of the data")
        axis.tick_params(labelbottom=True, labelleft=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
