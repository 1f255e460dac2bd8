"""How likely is a picture? The density of real digits, of noise and of shuffled digits, under the model that ships.

    python examples/likelihood.py
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from sklearn.datasets import load_digits

import fdiff


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=60)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--probes", type=int, default=4)
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    plan = fdiff.EulerDiscreteScheduler.from_config(pipe.scheduler, use_karras_sigmas=True).plan(arguments.levels)
    data = load_digits()
    real = (data.images[: arguments.count, :, :, None] / 8 - 1).astype(np.float32)
    draw = np.random.default_rng(0)
    pictures = {
        "real digits": (real, data.target),
        "their pixels shuffled": (draw.permuted(real.reshape(len(real), -1), axis=1).reshape(real.shape), data.target),
        "real digits, told the wrong class": (real, (data.target + 1) % 10),
    }
    bits = {}
    for name, (x, labels) in pictures.items():
        labels = jnp.asarray(labels[: arguments.count])
        network = Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels)
        noisy = x + plan.sigma[-1] * draw.normal(size=x.shape)
        nats = fdiff.log_likelihood(network, plan, noisy, jax.random.key(0), probes=arguments.probes)
        bits[name] = float(-jnp.mean(nats) / math.log(2) / x[0].size)
        print(f"{name}: {bits[name]:.2f} bits a pixel")
    return bits


if __name__ == "__main__":
    main()
