"""Train the model of 8x8 digits that fdiff ships, from the 1,797 real ones of scikit-learn: `fdiff train` does it.

    python examples/train_digits.py --out digits          # seed 0, about ten minutes on two cores
    fdiff generate digits --class 7 --out sevens.png

A fifth of the digits is held out. Afterwards the quality is measured (`measure`). Needs
`pip install "fdiff-jax[train]"`.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import fdiff
from fdiff import cli

LIKE_THE_ONE_THAT_SHIPS = ["--channels", "32,64", "--dropout", "0.1", "--learning-rate", "2e-3", "--decay", "0.998",
                           "--sample-every", "0"]  # fmt: skip


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train images, train labels, held-out images, held-out labels); images (n, 8, 8, 1) in [-1, 1]."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order, :, :, None] / 8 - 1).astype(np.float32)
    labels = data.target[order].astype(np.int32)
    held_out = len(labels) // 5
    return images[held_out:], labels[held_out:], images[:held_out], labels[:held_out]


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
    file = arguments.out.with_name(f"{arguments.out.name}.npz")
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, images=np.round((images + 1) * 127.5).astype(np.uint8), labels=labels)
    told = {"--data": file, "--output": arguments.out, "--steps": arguments.steps, "--seed": arguments.seed,
            "--batch-size": arguments.batch_size}  # fmt: skip
    words = [str(word) for pair in told.items() for word in pair]
    if code := cli.main(["train", "class-conditional", *words, *LIKE_THE_ONE_THAT_SHIPS]):
        raise SystemExit(code)
    if arguments.count:
        pipe, params = fdiff.ClassConditionalPipeline.from_pretrained(arguments.out)
        print(measure(pipe, params, count=arguments.count))


if __name__ == "__main__":
    main()
