"""Image to noise and back with the inverse of DDIM, and pictures between two pictures, mixed along an arc of noise.

    python examples/invert_and_interpolate.py --out between.png
"""

import argparse

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

import fdiff
from fdiff import images


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="between.png")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--between", type=int, default=8)
    parser.add_argument("--digits", type=int, nargs=2, default=[3, 8])
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    network = Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=jnp.array([10]))  # of no class

    there = fdiff.DDIMInverseScheduler.from_config(pipe.scheduler, timestep_spacing="leading").plan(arguments.steps)
    back = fdiff.DDIMScheduler.from_config(pipe.scheduler, timestep_spacing="leading").plan(arguments.steps)

    pair = pipe(params, arguments.digits, key=jax.random.key(0), output_type="array").images
    noises = fdiff.sample(network, there, pair)
    returned = fdiff.sample(network, back, noises)
    error = float(jnp.sqrt(jnp.mean((returned - pair) ** 2)))
    print(f"to noise of deviation {float(jnp.std(noises)):.2f} and back: {error:.3f} off, where black to white is 2")

    weights = jnp.linspace(0, 1, arguments.between)
    mixed = jax.vmap(lambda weight: fdiff.slerp(noises[0], noises[1], weight))(weights)
    line = images.to_pil(fdiff.sample(network, back, mixed))
    pictures = [*images.to_pil(pair)[:1], *line, *images.to_pil(pair)[1:]]
    images.save(images.grid([images.enlarge(image, 32) for image in pictures], columns=len(pictures)), arguments.out)
    print(f"wrote {arguments.out}: a picture, {len(line)} between, the other picture")
    return error


if __name__ == "__main__":
    main()
