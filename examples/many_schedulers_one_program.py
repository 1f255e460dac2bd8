"""Ten schedulers and three step counts through one compiled sampler, as a sheet: schedulers down, step counts across.

Every plan is padded to the same number of rows and slots, so it is data: the program is traced once.

    python examples/many_schedulers_one_program.py --out schedulers.png
"""

import argparse

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

import fdiff
from fdiff import images

NAMES = [
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "LMSDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="schedulers.png")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20])
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    labels = jnp.arange(10)
    traces = 0

    @jax.jit
    def draw(params, plan, key):
        nonlocal traces
        traces += 1
        x = plan.start * jax.random.normal(key, (len(labels), 8, 8, 1))
        network = Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels)
        return fdiff.sample(network, plan, x, key)

    plans = []
    for name in NAMES:
        scheduler = getattr(fdiff, name).from_config(pipe.scheduler)
        plans.append([scheduler.plan(n) for n in arguments.steps])
    rows = max(len(plan) for line in plans for plan in line)
    slots = max(plan.slots for line in plans for plan in line)
    sheet = []
    for name, line in zip(NAMES, plans, strict=True):
        for plan in line:
            drawn = draw(params, plan.pad(rows, slots), jax.random.key(0))
            sheet.append(images.grid([images.enlarge(image, 16) for image in images.to_pil(drawn)], columns=10))
        calls = ", ".join(f"{n} steps = {len(plan)} calls" for n, plan in zip(arguments.steps, line, strict=True))
        print(f"{name}: {calls}")
    images.save(images.grid(sheet, columns=len(arguments.steps), gap=4), arguments.out)
    print(f"wrote {arguments.out}; the sampler was traced {traces} time{'s' * (traces != 1)} for {len(sheet)} runs")
    return traces


if __name__ == "__main__":
    main()
