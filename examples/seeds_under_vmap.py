"""A contact sheet of one digit over seeds (down) and guidance scales (across): two vmaps over one pure function.

    python examples/seeds_under_vmap.py --out sheet.png
"""

import argparse

import jax
import jax.numpy as jnp

import fdiff
from fdiff import images


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="sheet.png")
    parser.add_argument("--digit", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    plan = pipe.scheduler.plan(arguments.steps)
    label = jnp.array([arguments.digit])

    def draw(key, scale):
        return fdiff.class_conditional(pipe.unet, params, plan, label, key, scale)[0]

    over_scales = jax.vmap(draw, in_axes=(None, 0))
    over_seeds = jax.jit(jax.vmap(over_scales, in_axes=(0, None)))
    scales = jnp.linspace(0.0, 4.0, 5)
    sheet = over_seeds(jax.random.split(jax.random.key(0), arguments.seeds), scales)
    pictures = [images.enlarge(image, 32) for image in images.to_pil(sheet.reshape(-1, *sheet.shape[2:]))]
    images.save(images.grid(pictures, columns=len(scales)), arguments.out)
    print(f"wrote {arguments.out}: seeds down, guidance scales {', '.join(f'{s:g}' for s in scales)} across")


if __name__ == "__main__":
    main()
