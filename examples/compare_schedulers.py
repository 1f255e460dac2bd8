"""Ten schedulers at equal cost in one compiled call: `vmap` over a stack of plans, as a labelled picture.

    python examples/compare_schedulers.py --calls 10 --out compared.png
"""

import argparse

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from PIL import Image, ImageDraw

import fdiff
from fdiff import images

NAMES = [
    "DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete",
    "DPMSolverMultistep", "DEISMultistep", "UniPCMultistep",
]  # fmt: skip


def plan_of(scheduler, calls):
    """The plan with the most steps that takes at most so many network calls."""
    plans = [scheduler.plan(n) for n in range(1, calls + 1)]
    return [plan for plan in plans if len(plan) <= calls][-1]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="compared.png")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    labels = jnp.arange(10)
    network = Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels)
    plans = [
        plan_of(getattr(fdiff, f"{name}Scheduler").from_config(pipe.scheduler), arguments.calls) for name in NAMES
    ]
    slots = max(plan.slots for plan in plans)
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[plan.pad(arguments.calls, slots) for plan in plans])
    key = jax.random.key(arguments.seed)
    noise = jax.random.normal(key, (len(labels), 8, 8, 1))

    drawn = jax.vmap(lambda plan: fdiff.sample(network, plan, plan.start * noise, key))(stack)

    sheet = Image.new("L", (190 + 10 * 33, len(NAMES) * 36))
    for i, (name, row, plan) in enumerate(zip(NAMES, drawn, plans, strict=True)):
        ImageDraw.Draw(sheet).text((6, 36 * i + 11), f"{name} ({len(plan)} calls)", fill=255)
        sheet.paste(images.grid([images.enlarge(image, 32) for image in images.to_pil(row)], columns=10), (190, 36 * i))
    images.save(sheet, arguments.out)
    print(f"wrote {arguments.out}: {len(NAMES)} schedulers in one call")


if __name__ == "__main__":
    main()
