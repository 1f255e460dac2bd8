"""Teach the text-to-image model that fdiff ships what it does not know: digits in black on orange and green stripes.

    python examples/train_on_a_subject.py --out subject        # a few minutes on two cores

The model draws digits, which are laid on the stripes. LoRA, DreamBooth and textual inversion then learn from eight of
them, each as `fdiff train` does it, and the loss is measured on eight others, of the model as it was and as it is then.
Each leaves a folder for `fdiff generate`. Needs `pip install "fdiff[train]"`.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

import fdiff
from fdiff import images
from fdiff.training import data, loop
from fdiff.training.tasks import TASKS, latents
from fdiff.training.tasks.latents import Base
from fdiff.training.tasks.material import material

MODEL = "colored-digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STRIPES = np.array([(250, 140, 20), (20, 110, 60)], np.float32)
PROMPTS = {  # what the pictures are called by each, and what the model as it was is asked in its place
    "lora": ("a digit on stripes", "a digit on stripes"),
    "dreambooth": ("a striped digit", "a digit"),
    "textual-inversion": ("a <stripes>", "a digit"),
}
OPTIONS = {
    "lora": {"learning_rate": 5e-3, "rank": 8, "layers": "all", "prompt": PROMPTS["lora"][0]},
    "dreambooth": {
        "learning_rate": 1e-4, "prompt": PROMPTS["dreambooth"][0], "class_prompt": PROMPTS["dreambooth"][1],
        "class_images": 16,
    },
    "textual-inversion": {
        "learning_rate": 5e-2, "token": "<stripes>", "initializer": "digit", "vectors": 4, "prompts": "a {}",
    },
}  # fmt: skip


def draw_subject(folder, count):
    """Write `count` pictures to learn from and as many others, in two folders."""
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(MODEL)
    texts = [f"a white {NAMES[i % 10]} on black" for i in range(2 * count)]
    drawn = pipe(params, texts, key=jax.random.key(0), output_type="np", num_inference_steps=10).images
    ink = drawn.mean(-1, keepdims=True)
    paper = STRIPES[np.arange(ink.shape[1]) // 4 % 2][None, :, None]
    for i, picture in enumerate(((1 - ink) * paper).round().astype(np.uint8)):
        place = folder / ("known" if i % 2 else "others")
        place.mkdir(parents=True, exist_ok=True)
        images.save(images.to_pil(picture[None] / 127.5 - 1)[0], place / f"{i:02d}.png")
    return data.find(folder / "known"), data.find(folder / "others")


def loss_on(pipe, params, source, prompt, folder, draws):
    """The mean denoising loss of pictures with that text, over so many draws of noise."""
    settings = TASKS["text-to-image"].settings(model=MODEL, prompt=prompt, withhold=0.0)
    found = material(Base(pipe, params), settings, source, folder, trains_text=True)
    samples = [found.prepare(found.source[i], np.random.default_rng(0)) for i in range(len(source))]
    batch = found.collate({name: np.stack([one[name] for one in samples]) for name in samples[0]})
    loss = jax.jit(lambda params, key: latents.loss(pipe, settings, params, batch, key))
    whole = {**found.needs, "unet": params["unet"]}
    return float(np.mean([loss(whole, jax.random.key(i)) for i in range(draws)]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="subject", type=Path)
    parser.add_argument("--methods", nargs="*", default=list(OPTIONS), choices=OPTIONS)
    parser.add_argument("--steps", default=300, type=int)
    parser.add_argument("--batch-size", default=8, type=int)
    parser.add_argument("--count", default=8, type=int, help="pictures to learn from, and others to measure on")
    parser.add_argument("--draws", default=32, type=int, help="of noise, to measure the loss")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args(argv)
    known, others = draw_subject(arguments.out / "pictures", arguments.count)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(MODEL)
    found = {}
    for method in arguments.methods:
        task, folder = TASKS[method], arguments.out / method
        settings = task.settings(
            model=MODEL, steps=arguments.steps, batch_size=arguments.batch_size, sample_every=arguments.steps,
            **OPTIONS[method],
        )  # fmt: skip
        learned = loop.train(task, settings, known, folder, resume=arguments.resume)
        new, old = PROMPTS[method]
        encoded = arguments.out / "measured" / method
        found[method] = {
            "base": loss_on(pipe, params, others, old, encoded / "base", arguments.draws),
            "learned": loss_on(*learned, others, new, encoded / "learned", arguments.draws),
        }
        print(f"{method}: loss on other pictures of the subject {found[method]['base']:.4f} before, "
              f"{found[method]['learned']:.4f} after; samples in {folder / loop.SAMPLES}")
    (arguments.out / "losses.json").write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
