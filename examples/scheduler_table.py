"""How good is each scheduler at 5, 10, 20 and 50 steps on the digits model? Prints a table in Markdown.

Deterministic ones: the root mean square difference of their pictures from those of 1,000 DDIM steps from the same
noise (black to white is 2). Stochastic ones draw other pictures, so for them it is that of the mean and the deviation
of each pixel in each class; what two fine runs from other noise differ by in these is printed last.

    python examples/scheduler_table.py
"""

import argparse
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from tqdm import tqdm

import fdiff

# Those that run on any network trained with betas to predict noise; the others belong to networks of their own.
NAMES = [
    "DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete",
    "KDPM2AncestralDiscrete", "LMSDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE",
    "DEISMultistep", "UniPCMultistep", "SASolver",
]  # fmt: skip


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--each", type=int, default=30, help="pictures of each class")
    parser.add_argument("--fine", type=int, default=1000, help="steps of the run that counts as exact")
    parser.add_argument("--names", nargs="+", default=NAMES)
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    labels = jnp.repeat(jnp.arange(10), arguments.each)
    network = Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels)
    noise = jax.random.normal(jax.random.key(0), (len(labels), 8, 8, 1))

    def run(plan, noise=noise):
        x = noise * plan.start
        for state, _ in fdiff.steps(network, plan.pad(slots=6), x, jax.random.key(1)):
            x = state.x
        return np.asarray(x)

    def moments(x):
        classes = x.reshape(10, arguments.each, -1)
        return np.stack([classes.mean(1), classes.std(1)])

    fine = fdiff.DDIMScheduler.from_config(pipe.scheduler).plan(arguments.fine)
    exact = run(fine)
    heads = ["scheduler", "order", "stochastic", "calls a step", *(f"{n} steps" for n in arguments.steps)]
    print("| " + " | ".join(heads) + " |")
    print("| --- " * (4 + len(arguments.steps)) + "|")
    table = {}
    for name in tqdm(arguments.names, unit="scheduler"):
        cls = getattr(fdiff, f"{name}Scheduler")
        scheduler = cls.from_config(pipe.scheduler)
        plans = [scheduler.plan(n) for n in arguments.steps]
        stochastic = any(np.any(plan.from_noise) for plan in plans)
        of = moments if stochastic else np.asarray
        table[name] = [float(np.sqrt(np.mean((of(run(plan)) - of(exact)) ** 2))) for plan in plans]
        declared = re.search(r"[Oo]rder (\d)", " ".join(cls.__doc__.split()))
        order = declared[1] if declared else scheduler.predictor_order
        order = getattr(scheduler, "solver_order", order)
        calls = round(len(plans[-1]) / arguments.steps[-1])
        errors = [f"{error:.3f}" for error in table[name]]
        cells = [cls.__name__, order, "yes" if stochastic else "no", calls, *errors]
        tqdm.write("| " + " | ".join(str(cell) for cell in cells) + " |")
    other = run(fine, jax.random.normal(jax.random.key(2), noise.shape))
    print(f"two fine runs from other noise: {np.sqrt(np.mean((moments(other) - moments(exact)) ** 2)):.3f}")
    return table


if __name__ == "__main__":
    main()
