"""Learn a sampler: gradient descent on a plan's numbers, so that five network calls come nearer to thirty.

The student starts as DPM-Solver++(2M), whose coefficients are then free; the teacher is the same flow in many steps.

    python examples/learn_a_sampler.py --out learned.safetensors
"""

import argparse
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from tqdm.auto import trange

import fdiff

FREE = ("t", "c_in", "carry", "from_x0", "from_eps")  # what is learned; the rest stays as the scheduler has it


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="learned.safetensors")
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--teacher-steps", type=int, default=30)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    solver = fdiff.DPMSolverMultistepScheduler.from_config(pipe.scheduler)
    start, fine = solver.plan(arguments.calls), solver.plan(arguments.teacher_steps)

    def batch(key, size):
        """Noise, the classes to draw from it, and where the flow takes it."""
        key_x, key_label = jax.random.split(key)
        x = start.start * jax.random.normal(key_x, (size, 8, 8, 1))
        labels = jax.random.randint(key_label, (size,), 0, 10)
        return x, labels, run(fine, x, labels)

    def run(plan, x, labels):
        return fdiff.sample(Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels), plan, x)

    def student(free):
        """The plan with its free numbers scaled: relative changes suit numbers of every size."""
        learned = {name: getattr(start, name) * (1 + free[name]) for name in FREE}
        return dataclasses.replace(start, **learned)

    def error(plan, x, labels, wanted):
        return jnp.sqrt(jnp.mean((run(plan, x, labels) - wanted) ** 2))

    schedule = optax.cosine_decay_schedule(5e-3, arguments.updates)
    optimizer = optax.adam(schedule)

    @partial(jax.jit, static_argnames="size")
    def update(free, moments, key, size):
        x, labels, wanted = batch(key, size)
        value, gradient = jax.value_and_grad(lambda free: error(student(free), x, labels, wanted))(free)
        change, moments = optimizer.update(gradient, moments)
        return jax.tree.map(jnp.add, free, change), moments, value

    free = {name: jnp.zeros_like(getattr(start, name)) for name in FREE}
    moments = optimizer.init(free)
    bar = trange(arguments.updates, unit="update")
    for i in bar:
        free, moments, value = update(free, moments, jax.random.fold_in(jax.random.key(0), i), arguments.batch_size)
        bar.set_postfix(error=f"{value:.4f}")

    fdiff.save_plan(arguments.out, jax.device_get(student(free)))
    learned = fdiff.load_plan(arguments.out)
    fresh = batch(jax.random.key(10**6), 200)
    errors = {"DPM-Solver++(2M)": float(error(start, *fresh)), "learned": float(error(learned, *fresh))}
    for name, value in errors.items():
        print(f"{name}, {arguments.calls} calls: {value:.4f} from the teacher on fresh noise")
    return errors


if __name__ == "__main__":
    main()
