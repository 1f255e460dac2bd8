"""Train the model that fdiff ships: 8x8 digits of a given class, from the 1,797 real ones of scikit-learn.

    python examples/train_digits.py --out digits          # seed 0, about ten minutes on two cores
    fdiff generate digits --class 7 --out sevens.png

A fifth of the digits is held out. Afterwards the quality is measured (`measure`). Needs
`pip install "fdiff-jax[train]"`.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from tqdm.auto import trange

import fdiff
from fdiff import training

UNET = fdiff.UNet2DModel(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    block_out_channels=(32, 64),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=16,
    norm_num_groups=8,
    dropout=0.1,
    num_class_embeds=11,  # ten digits and "no class"
)
SCHEDULER = fdiff.DDIMScheduler(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing", clip_sample=False
)


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train images, train labels, held-out images, held-out labels); images (n, 8, 8, 1) in [-1, 1]."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order, :, :, None] / 8 - 1).astype(np.float32)
    labels = data.target[order].astype(np.int32)
    held_out = len(labels) // 5
    return images[held_out:], labels[held_out:], images[:held_out], labels[:held_out]


def loss(params, batch, key):
    """The denoising loss, with one class in ten withheld so that the model also learns to do without."""
    images, labels = batch
    key_withhold, key_dropout, key = jax.random.split(key, 3)
    labels = jnp.where(jax.random.bernoulli(key_withhold, 0.1, labels.shape), UNET.num_class_embeds - 1, labels)

    def network(x, t):
        return UNET.apply({"params": params}, x, t, labels, rngs={"dropout": key_dropout})

    return training.denoising_loss(network, SCHEDULER, images, key)


def train(images, labels, *, steps, batch_size, seed):
    """Averaged parameters after so many steps of AdamW."""
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0, 2e-3, min(200, steps // 5), steps), weight_decay=0.01)
    step = jax.jit(partial(training.train_step, loss=loss, optimizer=optimizer, decays=(training.warmed(0.998),)))
    key, key_init = jax.random.split(jax.random.key(seed))
    state = training.init(UNET.init_params(key_init), optimizer)
    draw = np.random.default_rng(seed)
    bar = trange(steps, unit="step")
    for i in bar:
        chosen = draw.integers(len(labels), size=batch_size)
        state, metrics = step(state, (images[chosen], labels[chosen]), jax.random.fold_in(key, i))
        if i % 50 == 0:
            bar.set_postfix(loss=f"{metrics['loss']:.4f}")
    return state.average


def measure(pipe, params, *, count=1000):
    """A table of quality: what a classifier of real digits reads, and how far the nearest real digit is.

    Copies would lie nearer to the training digits than the held-out digits do.
    """
    images, labels, held_images, held_labels = digits()
    classifier = SVC(C=10.0).fit(images.reshape(len(images), -1), labels)
    held_accuracy = classifier.score(held_images.reshape(len(held_images), -1), held_labels)
    asked = np.arange(count) % 10
    drawn = pipe(params, list(asked), key=jax.random.key(1), output_type="array").images
    drawn = np.clip(np.asarray(drawn), -1, 1).reshape(count, -1)
    accuracy = np.mean(classifier.predict(drawn) == asked)

    def nearest(points):
        squared = (points**2).sum(1)[:, None] - 2 * points @ images.reshape(len(images), -1).T
        return np.sqrt(np.maximum((squared + (images.reshape(len(images), -1) ** 2).sum(1)).min(1), 0))

    ours, real = nearest(drawn), nearest(held_images.reshape(len(held_images), -1))
    return (
        f"classifier on {len(held_labels)} held-out real digits: {held_accuracy:.1%}\n"
        f"classifier on {count} generated digits: {accuracy:.1%}\n"
        f"distance to the nearest training digit, generated: median {np.median(ours):.2f}, least {ours.min():.2f}\n"
        f"distance to the nearest training digit, held-out real: median {np.median(real):.2f}, least {real.min():.2f}"
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="digits", type=Path)
    parser.add_argument("--steps", default=4000, type=int)
    parser.add_argument("--batch-size", default=128, type=int)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--count", default=1000, type=int, help="generated digits to measure; 0 measures nothing")
    arguments = parser.parse_args(argv)
    images, labels, _, _ = digits()
    params = train(images, labels, steps=arguments.steps, batch_size=arguments.batch_size, seed=arguments.seed)
    params = {"unet": jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)}
    pipe = fdiff.ClassConditionalPipeline(
        UNET, SCHEDULER, tuple("0123456789"), num_inference_steps=50, guidance_scale=1.5
    )
    pipe.save_pretrained(arguments.out, params)
    pipe, params = fdiff.ClassConditionalPipeline.from_pretrained(arguments.out)
    if arguments.count:
        print(measure(pipe, params, count=arguments.count))


if __name__ == "__main__":
    main()
