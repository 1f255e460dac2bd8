"""How good is each scheduler at 5, 10, 20 and 50 steps on a digits model? Prints a table in Markdown.

Deterministic ones: the root mean square difference of their pictures from those of 1,000 DDIM steps from the same
noise (black to white is 2). Stochastic ones draw other pictures, so for them it is that of the mean and the deviation
of each pixel in each class; what two fine runs from other noise differ by in these is printed last.

Flows, EDM's levels and the like are served too: whatever a scheduler's x is at, its ratio of noise to signal names the
timestep at which the model is asked, and what the model says is put as the scheduler wants to hear it.

    python examples/scheduler_table.py
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from tqdm.auto import tqdm

import fdiff
from fdiff.catalogue import declared_order
from fdiff.pipelines.pipeline import sample_shape

OUT = {"DDIMInverse", "DPMSolverMultistepInverse"}  # from a picture to noise
OUT |= {"ConsistencyDecoder", "DDIMParallel", "DDPMParallel", ""}  # of two steps; second names; the base class
OUT |= {"AnnealedLangevin", "Polynomial"}  # of molecules
OPTIONS = {
    "Helios": {"stages": 1, "stage_range": (0, 1)},
    "HeliosDMD": {"stages": 1, "stage_range": (0, 1)},
    "RFD4Proteina": {"tail_steps": 0},
}
KARRAS = {"use_karras_sigmas": True}
NAMES = [
    name.removesuffix("Scheduler") for name in fdiff.schedulers.__all__
    if name.endswith("Scheduler") and name.removesuffix("Scheduler") not in OUT
]  # fmt: skip


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--each", type=int, default=30, help="pictures of each class")
    parser.add_argument("--fine", type=int, default=1000, help="steps of the run that counts as exact")
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--model", default=str(fdiff.DIGITS), help="of pictures of ten classes; mnist is the other")
    parser.add_argument("--plan", help="a learned table beside them, such as `fdiff train plan` writes")
    parser.add_argument("--karras", action="store_true", help="with use_karras_sigmas, those that have it")
    arguments = parser.parse_args(argv)
    names = [name for name in arguments.names if not arguments.karras or "use_karras_sigmas" in fields_of(name)]
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(arguments.model)
    labels = jnp.repeat(jnp.arange(10), arguments.each)
    alpha, sigma = pipe.scheduler.levels(jnp.arange(pipe.scheduler.num_train_timesteps))
    network = Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels)
    advance = Partial(step, network, jnp.log(sigma / alpha))
    noise = jax.random.normal(jax.random.key(0), (len(labels), *sample_shape(pipe.unet)))

    def run(plan, noise=noise):
        plan = plan.pad(slots=6)
        state = fdiff.init(plan, noise * plan.start)
        for i in range(len(plan)):
            state = advance(plan[i], state, jax.random.normal(jax.random.fold_in(jax.random.key(1), i), noise.shape))
        return np.asarray(state.x)

    def moments(x):
        classes = x.reshape(10, arguments.each, -1)
        return np.stack([classes.mean(1), classes.std(1)])

    fine = fdiff.DDIMScheduler.from_config(pipe.scheduler).plan(arguments.fine)
    exact = run(fine)
    heads = ["scheduler", "order", "stochastic", "calls a step", *(f"{n} steps" for n in arguments.steps)]
    print("| " + " | ".join(heads) + " |")
    print("| --- " * (4 + len(arguments.steps)) + "|")
    table = {}
    if arguments.plan:
        learned = fdiff.load_plan(arguments.plan)
        table["learned"] = [np.sqrt(np.mean((fdiff.sample(network, learned, noise * learned.start) - exact) ** 2))]
        print(f"| {arguments.plan}, {len(learned)} steps: {table['learned'][0]:.3f} |")
    for name in tqdm(names, unit="scheduler"):
        plans = [plan_of(name, pipe.scheduler, n, arguments.karras) for n in arguments.steps]
        stochastic = any(np.any(plan.from_noise) for plan in plans if plan)
        of = moments if stochastic else np.asarray
        table[name] = [np.sqrt(np.mean((of(run(plan)) - of(exact)) ** 2)) if plan else None for plan in plans]
        errors = ["-" if error is None else f"{error:.3f}" for error in table[name]]
        calls = [round(np.count_nonzero(plan.c_in) / n) for plan, n in zip(plans, arguments.steps, strict=True) if plan]
        full = f"{name}Scheduler"
        cells = [full, declared_order(getattr(fdiff, full)) or "-", "yes" if stochastic else "no", calls[-1], *errors]
        tqdm.write("| " + " | ".join(str(cell) for cell in cells) + " |")
    other = run(fine, jax.random.normal(jax.random.key(2), noise.shape))
    print(f"two fine runs from other noise: {np.sqrt(np.mean((moments(other) - moments(exact)) ** 2)):.3f}")
    return table


@jax.jit
def step(network, log_ratios, row, state, noise):
    """One row, with the model in the place of the scheduler's own network."""
    log_ratio = jnp.minimum(jnp.log(jnp.abs(row.sigma / row.alpha)), log_ratios[-1])  # the model knows no purer noise
    t, ratio = jnp.interp(log_ratio, log_ratios, jnp.arange(len(log_ratios))), jnp.exp(log_ratio)
    alpha, sigma = 1 / jnp.hypot(1, ratio), ratio / jnp.hypot(1, ratio)
    x = state.x / jnp.hypot(row.alpha, row.sigma)
    x0 = (x - sigma * network(x, t)) / alpha
    out = jnp.where(row.c_in == 0, 0.0, (x0 - row.x0_of[0] * state.x) / row.x0_of[1])
    return fdiff.step(row, state, out, noise)


def fields_of(name):
    """The options of the scheduler of that name."""
    return {field.name for field in dataclasses.fields(getattr(fdiff, f"{name}Scheduler"))}


def scheduler_of(name, trained, karras):
    """The scheduler, with the betas of the training where it has such options."""
    cls, options = getattr(fdiff, f"{name}Scheduler"), {**OPTIONS.get(name, {}), **(KARRAS if karras else {})}
    return cls.from_config(trained, **options) if "beta_start" in fields_of(name) else cls(**options)


def plan_of(name, trained, n, karras=False):
    """The plan of n steps, None where there is none."""
    try:
        return scheduler_of(name, trained, karras).plan(n + 1 if name == "MiniMaxH3" else n)  # which counts the 0
    except ValueError:
        return None


if __name__ == "__main__":
    main()
