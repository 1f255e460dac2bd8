"""Speed and error of caching across steps, beside the same run without it, on the digits that fdiff ships.

    python tests/benchmarks/bench_cache.py [--caches deep:3 taylor:3] [--steps 50] [--batch 10] [--repeat 5]

Draws a batch with the model of MNIST (guidance 2, DDIM) in one compiled scan, the cached runs in turn with the one
without. Prints for each cache at how many steps all was computed, the median time, how many times faster that is, and
how far the last x is from that of the run without a cache: |x - x_without| / |x_without|.
"""

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clock import seconds

import fdiff
from fdiff import caching, guidance
from fdiff.pipelines.class_conditional import MNIST

CACHES = ["deep:2", "deep:3", "deep:3:1", "first-block:0.05", "first-block:0.1", "taylor:2", "taylor:3", "taylor:4",
          "taylor:4:2"]  # fmt: skip


def network(batch: int) -> Any:
    """The U-Net, guided from no class to each."""
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(MNIST)
    labels = jnp.arange(batch) % pipe.classes
    unet = jax.tree_util.Partial(pipe.unet.apply, {"params": params["unet"]})
    return guidance.classifier_free(unet, labels, jnp.full_like(labels, pipe.classes), 2.0), pipe


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caches", nargs="+", default=CACHES)
    for name, default in (("steps", 50), ("batch", 10), ("repeat", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    plain, pipe = network(asked.batch)
    plan = pipe.scheduler.plan(asked.steps)
    side = pipe.unet.sample_size
    x = plan.start * jax.random.normal(jax.random.key(0), (asked.batch, side, side, 1))

    def run(name: str | None) -> Any:
        made = (plain, None) if name is None else fdiff.cached(plain, plan, x, caching.named(name))
        return lambda: jax.block_until_ready(fdiff.sample(made[0], plan, x, memory=made[1]))

    def computed(name: str) -> int:
        made, memory = fdiff.cached(plain, plan, x, caching.named(name))
        states = (state for state, _ in fdiff.steps(made, plan, x, memory=memory))
        return sum(int(state.memory.rows[0]) == i for i, state in enumerate(states))

    without = run(None)
    wanted = np.asarray(without())
    print(f"{asked.steps} steps, {asked.batch} pictures\n")
    print("| cache | computed | time | faster | error |\n| --- | --- | --- | --- | --- |")
    for name in asked.caches:
        cached = run(name)
        error = np.linalg.norm(np.asarray(cached()) - wanted) / np.linalg.norm(wanted)
        pairs = [(seconds(without), seconds(cached)) for _ in range(asked.repeat)]
        before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
        told = f"{computed(name)} of {asked.steps} | {after:.2f} s | {before / after:.2f} x | {100 * error:.2f} %"
        print(f"| {name} | {told} |", flush=True)


if __name__ == "__main__":
    main()
