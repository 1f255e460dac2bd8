"""A small classifier of pictures, and the features that it reads them by."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fdiff import keys
from fdiff.training.evaluation import accuracy
from fdiff.training.loader import pixels

FEATURES, BATCH = 128, 64


class Network(nn.Module):
    """Pictures (b, h, w, c) in [-1, 1] -> (features (b, 128), numbers (b, classes) whose softmax is read)."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Convolutions that halve the picture until its shorter side is 4 or so."""
        for level in range(max(2, min(x.shape[1:3]).bit_length() - 2)):
            features = min(16 * 2**level, 64)
            x = nn.Conv(features, (3, 3), strides=1 if level == 0 else 2)(x)
            x = nn.relu(nn.GroupNorm(num_groups=8)(x))
        x = nn.relu(nn.Conv(64, (3, 3))(x))
        x = nn.relu(nn.Dense(FEATURES)(x.reshape(len(x), -1)))
        return x, nn.Dense(self.classes)(x)


class Classifier(NamedTuple):
    """A network that was fitted, and its accuracy on pictures that were held out."""

    network: Network
    params: Any
    accuracy: float

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(features (n, 128), labels (n,)) of pictures (n, h, w, c), bytes."""
        return _read(self.network, self.params, images)


def fit(images: np.ndarray, labels: np.ndarray, *, steps: int = 2000, seed: int = 0) -> Classifier:
    """A classifier of pictures (n, h, w, c), bytes, a tenth of which, 1,000 at most, are held out to measure it.

    Pictures are moved by up to an eighth of their size, so that a few thousand are enough. Raises ValueError for fewer
    than two classes, or than ten pictures.
    """
    classes = int(labels.max(initial=0)) + 1
    there = len(np.unique(labels))
    if len(images) < 10 or there < 2:
        raise ValueError(f"{len(images)} pictures of {there} classes are too few to fit a classifier to; give "
                         "ten pictures or more, of two classes or more")
    random = np.random.default_rng(seed)
    order, held = random.permutation(len(images)), min(1000, len(images) // 10)
    fitted, apart = order[held:], order[:held]
    network = Network(classes)
    schedule = optax.cosine_onecycle_schedule(steps, 3e-3)
    optimizer = optax.adamw(schedule, weight_decay=0.01)
    params = network.init(jax.random.key(seed), pixels(images[:1]))["params"]
    state = params, optimizer.init(params)
    step = jax.jit(partial(_step, network, optimizer), donate_argnums=0)
    for i in range(steps):
        chosen = fitted[random.integers(len(fitted), size=BATCH)]
        state = step(state, images[chosen], labels[chosen], keys.fold_in(jax.random.key(seed), i))
    return Classifier(network, state[0], accuracy(_read(network, state[0], images[apart])[1], labels[apart]))


def _step(network: Network, optimizer: Any, state: Any, images: jax.Array, labels: jax.Array, key: jax.Array) -> Any:
    params, moments = state

    def loss(params: Any) -> jax.Array:
        _, told = network.apply({"params": params}, _moved(pixels(images), key))
        return optax.softmax_cross_entropy_with_integer_labels(told, labels).mean()

    updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
    return optax.apply_updates(params, updates), moments


def _moved(x: jax.Array, key: jax.Array) -> jax.Array:
    """Each picture moved by up to an eighth of its size, its edge repeated."""
    far = tuple(side // 8 for side in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), *((by, by) for by in far), (0, 0)), mode="edge")
    corners = jnp.stack(
        [jax.random.randint(one, x.shape[:1], 0, 2 * by + 1) for one, by in zip(keys.split(key), far, strict=True)], 1
    )
    cut = jax.vmap(lambda one, corner: jax.lax.dynamic_slice(one, (*corner, 0), x.shape[1:]))
    return cut(padded, corners)


def _read(network: Network, params: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    apply = jax.jit(network.apply)
    batches = (pixels(images[i : i + 256]) for i in range(0, len(images), 256))
    parts = [jax.device_get(apply({"params": params}, batch)) for batch in batches]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]).argmax(1)
