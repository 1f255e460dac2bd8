"""What the tests of the pipelines draw from."""

import jax
import numpy as np

PROMPTS = ["a photo of a cat", "an astronaut riding a horse"]


def latents(batch_size=2, size=16):
    return np.random.default_rng(0).normal(size=(batch_size, size, size, 4)).astype(np.float32)


def picture(size=128, batch_size=1, seed=1):
    """(b, h, w, 3) in [-1, 1], smooth enough to be a picture."""
    coarse = np.random.default_rng(seed).uniform(-1, 1, size=(batch_size, size // 8, size // 8, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.float32)


def mask(size=128):
    """(h, w), 1 in a rectangle."""
    array = np.zeros((size, size), np.float32)
    array[size // 4 : size // 2 + 5, size // 8 : size // 2 + 20] = 1
    return array


def zeros(module):
    """Parameters of zeros, for a module that is only traced."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), module.shapes())
