"""How near does a run of few calls come to the exact one? Every deterministic scheduler, with every option of its grid.

The data are mixtures of Gaussians, whose best network is known, so that the flow of x can be followed closely. They
are seen at the levels of Stable Diffusion (epsilon), of a cosine schedule (v) and of a flow. The network is asked as
in diffusers: with c_in x and the t that the plan tells, rounded where the scheduler rounds it. Errors are root mean
squares of the last x against the exact one from the same noise, in units of the data's.

    python tests/benchmarks/bench_samplers.py [--models epsilon v flow] [--calls 8 10 15] [--mnist 16]
"""

import argparse
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy.integrate
import scipy.special

import fdiff
from fdiff.schedulers.exploding import train_sigmas

MODELS = {
    "epsilon": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False},
    "v": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False},
    "flow": {},
}
PRESERVING = ("DDIM", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "EulerDiscrete", "HeunDiscrete",
              "KDPM2Discrete", "LMSDiscrete", "PNDM", "UniPCMultistep", "IPNDM", "TCD")  # fmt: skip
FLOWS = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "DEISMultistep", "DPMSolverMultistep", "UniPCMultistep")
SIGMAS = ({}, *({f"use_{name}": True} for name in ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")))
SPACINGS = tuple({"timestep_spacing": name} for name in ("linspace", "leading", "trailing"))
OPTIONS: dict[str, tuple[Any, ...]] = {
    "solver_order": (1, 2, 3, 4),
    "algorithm_type": ("dpmsolver++", "dpmsolver"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "lower_order_final": (True, False),
    "euler_at_final": (False, True),
    "predict_x0": (True, False),
    "set_alpha_to_one": (True, False),
    "skip_prk_steps": (True, False),
    "interpolation_type": ("linear", "log_linear"),
}


class Mixture(NamedTuple):
    """Gaussians of equal weight: means (m, d), and variances (m, d) along the axes."""

    means: np.ndarray
    variances: np.ndarray

    def split(self, x: np.ndarray, alpha: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """(x0, eps), what is expected of both given x = alpha x0 + sigma eps; each shaped like x, (b, d)."""
        variance = alpha**2 * self.variances + sigma**2
        apart = x[:, None] - alpha * self.means
        logs = -0.5 * np.sum(apart**2 / variance + np.log(variance), -1)
        weights = scipy.special.softmax(logs, axis=1)[..., None]
        x0 = np.sum(weights * (self.means + alpha * self.variances / variance * apart), 1)
        return x0, np.sum(weights * sigma / variance * apart, 1)

    @property
    def size(self) -> float:
        """The root mean square of the data."""
        return float(np.sqrt(np.mean(self.means**2 + self.variances)))


def modes(seed: int, count: int, width: int, narrow: float, rough: float = 0.0, low: int = 0) -> Mixture:
    """`count` Gaussians about normal means, of variances narrow^2 k^-rough along axis k, tiny from axis `low` on."""
    random = np.random.default_rng(seed)
    spectrum = np.arange(1, width + 1.0) ** -rough
    if low:
        spectrum[low:] = 1e-4
    means = random.normal(size=(count, width)) * np.sqrt(spectrum)
    means = means - means.mean(0) + 0.2 * np.sqrt(spectrum)
    variances = narrow**2 * spectrum * np.exp(0.5 * random.normal(size=(count, width)))
    scale = np.mean(means**2 + variances)
    return Mixture(means / np.sqrt(scale), variances / scale)


SEEN = {  # those that were looked at while the sampler was made
    "round": modes(0, 5, 2, 0.6),
    "power law": modes(1, 3, 16, 0.7, rough=1.5),
    "many": modes(2, 32, 4, 0.15),
    "flat": modes(3, 4, 12, 0.5, low=3),
    "round, 3 modes": modes(10, 3, 6, 0.8),
    "power law, steep": modes(11, 6, 32, 0.5, rough=2.0),
    "many, 64": modes(12, 64, 8, 0.25),
    "flat, rough": modes(13, 8, 24, 0.4, rough=0.5, low=4),
}
FRESH = {  # and those that were drawn when it was done
    "fresh, round": modes(20, 4, 3, 0.5),
    "fresh, power law": modes(21, 8, 20, 0.6, rough=1.0),
    "fresh, many": modes(22, 48, 6, 0.2),
    "fresh, flat": modes(23, 5, 16, 0.6, rough=1.0, low=6),
}


@functools.cache
def trained(model: str) -> Any:
    """A scheduler of that model."""
    return fdiff.FlowMatchEulerDiscreteScheduler() if model == "flow" else fdiff.DDIMScheduler(**MODELS[model])


def level(model: str, t: float) -> tuple[float, float]:
    """(alpha, sigma) of what the network sees when it is told t."""
    if model == "flow":
        return 1 - t / 1000, t / 1000
    angle = np.arctan(np.exp(np.interp(t, np.arange(1000), np.log(train_sigmas(trained(model))))))
    return float(np.cos(angle)), float(np.sin(angle))


class Problem(NamedTuple):
    """A mixture and a model: noise (b, d), and where the exact run takes it."""

    model: str
    mixture: Mixture
    noise: np.ndarray
    wanted: np.ndarray

    def network(self, x: np.ndarray, t: float) -> np.ndarray:
        """What the model says."""
        alpha, sigma = level(self.model, t)
        x0, eps = self.mixture.split(x, alpha, sigma)
        return {"epsilon": eps, "v": alpha * eps - sigma * x0, "flow": eps - x0}[self.model]

    def error(self, table: fdiff.Plan) -> float:
        """How far off the last x of a run is."""
        slots = np.zeros((table.slots, *self.noise.shape))
        slots[0] = self.noise * table.start
        for i in range(len(table)):
            x0 = eps = np.zeros_like(self.noise)
            if table.c_in[i]:
                out = self.network(float(table.c_in[i]) * slots[0], float(table.t[i]))
                x0, eps = (of[i, 0] * slots[0] + of[i, 1] * out for of in (table.x0_of, table.eps_of))
            slots = (np.tensordot(table.carry[i], slots, 1)
                     + np.multiply.outer(table.from_x0[i], x0) + np.multiply.outer(table.from_eps[i], eps))  # fmt: skip
        return float(np.sqrt(np.mean((slots[0] - self.wanted) ** 2))) / self.mixture.size


@functools.cache
def problem(model: str, name: str, count: int = 48) -> Problem:
    """That mixture, from the noisiest level of that model."""
    begin = np.pi / 2 if model == "flow" else float(np.arctan2(*level(model, 999)[::-1]))
    return solved(model, {**SEEN, **FRESH}[name], begin, count)


def solved(model: str, mixture: Mixture, begin: float, count: int) -> Problem:
    """The problem of so many x, from pure noise at the angle `begin`, arctan(sigma / alpha).

    With (alpha, sigma) = r (cos a, sin a) and u = x / r, the flow is du/da = eps cos a - x0 sin a.
    """
    noise = np.random.default_rng(100).normal(size=(count, mixture.means.shape[1]))

    def slope(a: float, u: np.ndarray) -> np.ndarray:
        x0, eps = mixture.split(u.reshape(noise.shape), np.cos(a), np.sin(a))
        return (eps * np.cos(a) - x0 * np.sin(a)).ravel()

    u = scipy.integrate.solve_ivp(slope, (begin, 0), noise.ravel(), "DOP853", rtol=1e-9, atol=1e-10).y[:, -1]
    return Problem(model, mixture, noise, u.reshape(noise.shape))


def choices(cls: Any) -> list[dict[str, Any]]:
    """Every set of options that say where the scheduler's steps go and how it takes them."""
    fields = cls.__dataclass_fields__
    if cls.__name__.startswith("FlowMatch"):
        grids = [{"shift": shift, **sigmas} for shift in (1.0, 3.0) for sigmas in SIGMAS]
    elif "timestep_spacing" in fields:
        grids = [*SPACINGS, *(SIGMAS[1:])]
        grids += [s | k for s in SPACINGS[1:] for k in SIGMAS[1:] if "Multistep" not in cls.__name__]
    else:
        grids = [*SIGMAS]
    grids = [grid for grid in grids if all(name in fields for name in grid)]
    names = [name for name in OPTIONS if name in fields]
    wanted = {name: OPTIONS[name] for name in names}
    if "solver_type" in wanted:
        wanted["solver_type"] = ("bh1", "bh2") if "predict_x0" in fields else ("midpoint", "heun")
    if "DEIS" in cls.__name__:
        wanted |= {"algorithm_type": ("deis",), "solver_type": ("logrho",)}
    return [grid | dict(zip(wanted, values, strict=True)) for grid in grids
            for values in itertools.product(*wanted.values())]  # fmt: skip


def of_calls(scheduler: Any, calls: int) -> fdiff.Plan | None:
    """The longest run of that many calls or fewer; None where there is none."""
    for n in (calls, (calls + 1) // 2, calls // 2, calls // 2 - 4):  # those with two calls a step, or a warm-up of four
        try:
            table = scheduler.plan(n)
        except (ValueError, np.linalg.LinAlgError):
            return None
        if np.count_nonzero(table.c_in) <= calls:
            return None if np.any(table.from_noise) else table
    return None


@functools.cache
def tables(model: str, calls: int) -> dict[str, fdiff.Plan]:
    """The run of every scheduler and set of options, named; those that are alike once."""
    found: dict[bytes, tuple[str, fdiff.Plan]] = {}
    for name in FLOWS if model == "flow" else PRESERVING:
        cls = getattr(fdiff, f"{name}Scheduler")
        for options in choices(cls):
            flow: dict[str, Any] = {}
            shifts: tuple[dict[str, Any], ...] = ({},)
            if model == "flow" and not name.startswith("FlowMatch"):
                if options.get("timestep_spacing", "linspace") != "linspace":
                    continue
                flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
                shifts = ({"flow_shift": 1.0}, {"flow_shift": 3.0})
            for shift in shifts:
                try:
                    scheduler = cls.from_config(trained(model), **options, **flow, **shift)
                except ValueError:
                    continue
                table = of_calls(scheduler, calls)
                if table is not None:
                    words = [str(v) if isinstance(v, str) else f"{k} {v}" for k, v in {**options, **shift}.items()]
                    key = b"".join(np.asarray(leaf).tobytes() for leaf in vars(table).values())
                    found.setdefault(key, (", ".join([name, *words]), table))
    return dict(found.values())


def own(model: str, calls: int) -> fdiff.Plan:
    """The run of the sampler that is compared with them."""
    return fdiff.FullOrderMultistepScheduler.from_config(trained(model)).plan(calls)


def compare(model: str, calls: int) -> tuple[list[str], dict[str, float]]:
    """Rows of Markdown, one for each mixture and one for all of them; and each table's geometric mean over mixtures."""
    known = tables(model, calls)
    problems = {name: problem(model, name) for name in (*SEEN, *FRESH)}
    with np.errstate(all="ignore"):
        errors = np.nan_to_num([[one.error(table) for one in problems.values()] for table in known.values()], nan=1e9)
    ours, means = np.array([one.error(own(model, calls)) for one in problems.values()]), np.exp(np.log(errors).mean(1))
    rows, labels = [], list(known)
    for j, name in enumerate(problems):
        best = int(errors[:, j].argmin())
        rows.append(row(model, calls, name, ours[j], errors[best, j], labels[best]))
    best = int(means.argmin())
    rows.append(row(model, calls, "the one best in all", float(np.exp(np.log(ours).mean())), means[best], labels[best]))
    new = slice(len(SEEN), None)
    theirs, mine = np.exp(np.log(errors[:, new]).mean(1)), float(np.exp(np.log(ours[new]).mean()))
    best = int(theirs.argmin())
    rows.append(row(model, calls, "the one best in the fresh", mine, theirs[best], labels[best]))
    return rows, dict(zip(labels, means, strict=True))


def row(model: str, calls: int, name: str, ours: float, best: float, label: str) -> str:
    """A row of the table."""
    return f"| {model} | {calls} | {name} | {ours:.4f} | {best:.4f} | {ours / best:.2f} | {label} |"


def digits(count: int, calls: int, means: dict[str, float], each: int) -> str:
    """The row of the MNIST model that ships: each scheduler with the options that were best on the mixtures.

    The exact pictures are those of 1,000 steps of DPM-Solver++ 2M.
    """
    import jax
    import jax.numpy as jnp
    from jax.tree_util import Partial

    pipe, params = fdiff.DiffusionPipeline.from_pretrained("mnist")
    labels = jnp.arange(count) % 10
    network = Partial(asked, Partial(pipe.unet.apply, {"params": params["unet"]}), labels)
    noise = jax.random.normal(jax.random.key(0), (count, 32, 32, 1))

    def drawn(table: fdiff.Plan, rows: int) -> np.ndarray:
        table = table.pad(rows=rows, slots=6)
        return np.asarray(fdiff.sample(network, table, noise * table.start))

    known, kept = tables("v", calls), []
    for name in PRESERVING:
        kept += sorted((mean, label) for label, mean in means.items() if label.startswith(f"{name},"))[:each]
    exact = drawn(fdiff.DPMSolverMultistepScheduler.from_config(pipe.scheduler).plan(1000), 1000)

    def error(table: fdiff.Plan) -> float:
        return float(np.sqrt(np.mean((drawn(table, 20) - exact) ** 2) / np.mean(exact**2)))

    best, label = min((error(known[label]), label) for _, label in kept)
    ours = error(fdiff.FullOrderMultistepScheduler.from_config(pipe.scheduler).plan(calls))
    return row("v", calls, f"MNIST, best of {len(kept)}", ours, best, label)


def asked(net: Any, labels: Any, x: Any, t: Any) -> Any:
    """What the network says, told which digits to draw."""
    return net(x, t, class_labels=labels)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--calls", type=int, nargs="+", default=[8, 10, 15])
    parser.add_argument("--mnist", type=int, default=0, help="pictures of the MNIST model, beside the mixtures")
    parser.add_argument("--each", type=int, default=4, help="of every scheduler, how many sets of options draw them")
    arguments = parser.parse_args(argv)
    print("| model | calls | data | FullOrderMultistep | best other | ratio | which |\n" + "| --- " * 7 + "|")
    for model, calls in itertools.product(arguments.models, arguments.calls):
        rows, means = compare(model, calls)
        print("\n".join(rows), flush=True)
        if model == "v" and arguments.mnist:
            print(digits(arguments.mnist, calls, means, arguments.each), flush=True)


if __name__ == "__main__":
    main()
