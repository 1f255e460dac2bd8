"""Gradients through the whole sampler: find the starting noise whose picture has a mean and a corner that you choose.

    python examples/gradients_through_the_sampler.py --out found.png
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from tqdm.auto import trange

import fdiff
from fdiff import images


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="found.png")
    parser.add_argument("--digit", type=int, default=7)
    parser.add_argument("--updates", type=int, default=30)
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    plan = fdiff.DDIMScheduler.from_config(pipe.scheduler).plan(10)
    labels = jnp.full((4,), arguments.digit)
    network = Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels)

    def objective(x):
        drawn = fdiff.sample(network, plan, plan.start * x)
        dark_left_column = jnp.mean((drawn[:, :, 0] + 1) ** 2)  # nothing in the leftmost column,
        bright = (jnp.mean(drawn) + 0.2) ** 2  # and a bold digit
        return bright + dark_left_column + 0.01 * (jnp.mean(x**2) - 1) ** 2, drawn

    optimizer = optax.adam(0.05)

    @jax.jit
    def update(x, moments):
        (value, drawn), gradient = jax.value_and_grad(objective, has_aux=True)(x)
        change, moments = optimizer.update(gradient, moments)
        return x + change, moments, value, drawn

    x = jax.random.normal(jax.random.key(0), (len(labels), 8, 8, 1))
    moments, values, sheet = optimizer.init(x), [], []
    for i in trange(arguments.updates, unit="update"):
        x, moments, value, drawn = update(x, moments)
        values.append(float(value))
        if i in (0, arguments.updates - 1):
            sheet += [images.enlarge(image, 64) for image in images.to_pil(drawn)]
    images.save(images.grid(sheet, columns=len(labels)), arguments.out)
    print(f"wrote {arguments.out}: before (above) and after (below)")
    print(f"the objective fell from {values[0]:.3f} to {values[-1]:.3f}")
    return values


if __name__ == "__main__":
    main()
