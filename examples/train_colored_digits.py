"""Train the text-to-image model that fdiff ships: handwritten digits, 32x32, in the colours that a caption asks for.

    python examples/train_colored_digits.py --out colored-digits       # seed 0; MNIST's test digits, from OpenML
    python examples/train_colored_digits.py --measure colored-digits --sheet sheet.png

It writes a whole StableDiffusionPipeline: an autoencoder first, then a U-Net and a text encoder together. A training
that was interrupted goes on where it was. Needs `pip install "fdiff[train]"`.
"""

import argparse
import gzip
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from sklearn.datasets import fetch_openml
from sklearn.svm import SVC
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tqdm import trange

import fdiff
from fdiff import hub, images, prompts, training

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = {
    "red": (215, 30, 40), "orange": (250, 140, 20), "yellow": (250, 220, 40), "green": (40, 165, 60),
    "cyan": (60, 210, 220), "blue": (45, 85, 235), "purple": (145, 50, 190), "pink": (250, 130, 190),
}  # fmt: skip
PAPERS = {"black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128), "navy": (20, 25, 80)}

VAE = fdiff.AutoencoderKL(
    sample_size=32,
    block_out_channels=(16, 16, 32),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    norm_num_groups=4,
    mid_block_add_attention=False,
    force_upcast=False,
)
UNET = fdiff.UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(32, 56),
    down_block_types=("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2,
    layers_per_block=1,
    cross_attention_dim=64,
    attention_head_dim=4,
    norm_num_groups=8,
)
SCHEDULER = fdiff.DPMSolverMultistepScheduler(
    beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing", steps_offset=1
)


class Digits(NamedTuple):
    """Real handwriting: ink (n, 32, 32) from 0 to 1, and which digits those are (n,)."""

    ink: np.ndarray
    labels: np.ndarray


def read_digits(folder):
    """(those to train on, at most 1,000 held out), of MNIST's idx files (.gz), the first pair there, or of OpenML."""
    if folder is None:
        found = fetch_openml("mnist_784", version=1, as_frame=False)
        pixels, labels = found.data[-10000:].reshape(-1, 28, 28), found.target[-10000:].astype(int)
    else:
        files = [sorted(folder.glob(f"*{kind}*.gz"))[0] for kind in ("images-idx3", "labels-idx1")]
        first, second = (gzip.decompress(file.read_bytes()) for file in files)
        pixels = np.frombuffer(first, np.uint8, offset=16).reshape(-1, 28, 28)
        labels = np.frombuffer(second, np.uint8, offset=8).astype(int)
    order = np.random.default_rng(0).permutation(len(labels))
    ink, labels = np.pad(pixels[order].astype(np.float32) / 255, ((0, 0), (2, 2), (2, 2))), labels[order]
    held_out = min(1000, len(labels) // 5)
    return Digits(ink[held_out:], labels[held_out:]), Digits(ink[:held_out], labels[:held_out])


def palette(table):
    return np.array([*table.values()], np.float32) / 127.5 - 1


def draw_colors(draw, count):
    """The numbers (count,) of inks and those of papers."""
    return draw.integers(len(INKS), size=count), draw.integers(len(PAPERS), size=count)


def paint(ink, colors):
    """Pictures (b, 32, 32, 3) in [-1, 1] of ink (b, 32, 32), in colours that `draw_colors` gave."""
    front, back = (palette(table)[chosen][:, None, None] for table, chosen in zip((INKS, PAPERS), colors, strict=True))
    return back + ink[..., None] * (front - back)


def caption(draw, label, ink, paper):
    """A text that says some of what a picture shows: nothing in one of ten, so that guidance has what to leave."""
    if draw.random() < 0.1:
        return ""
    words = [(NAMES[label], str(label), "digit")[draw.choice(3, p=(0.5, 0.4, 0.1))]]
    if draw.random() < 0.85:
        words.insert(0, [*INKS][ink])
    if draw.random() < 0.6:
        words.insert(0, "an" if words[0] in ("orange", "eight", "8") else "a")
    if draw.random() < 0.7:
        words += ["on", [*PAPERS][paper]]
    return " ".join(words)


def make_tokenizer():
    """A byte-pair tokenizer that has a token for every word of the captions and spells all others."""
    learned = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    learned.pre_tokenizer = Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    learned.train_from_iterator([*NAMES, *INKS, *PAPERS, "a", "an", "digit", "on"], trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    signs = sorted(ByteLevel.alphabet())
    tokens = [*signs, *(f"{sign}</w>" for sign in signs), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return fdiff.CLIPTokenizer({token: i for i, token in enumerate(tokens)}, merges, model_max_length=16)


def fit(name, params, loss, batch, *, steps, rate, arguments):
    """Averaged parameters after so many steps of AdamW, which go on from the state beside --out where there is one."""
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0, rate, min(200, steps // 5), steps), weight_decay=0.01)
    decays = (training.warmed(0.998),)
    step = partial(training.train_step, loss=loss, optimizer=optimizer, decays=decays)
    step = jax.jit(step, donate_argnums=0)
    state = training.init(params, optimizer)
    file = arguments.out.with_name(f"{arguments.out.name}-{name}-{arguments.seed}-{steps}.state")
    if file.exists():
        state = flax.serialization.from_bytes(state, file.read_bytes())
    key = jax.random.key(arguments.seed)
    bar = trange(int(state.done), steps, initial=int(state.done), total=steps, desc=name, unit="step")
    for i in bar:
        state, metrics = step(state, batch(np.random.default_rng((arguments.seed, i))), jax.random.fold_in(key, i))
        if i % 50 == 0:
            bar.set_postfix(loss=f"{metrics['loss']:.4f}")
        if (i + 1) % 100 == 0:
            with hub.replacing(file) as part:
                part.write_bytes(flax.serialization.to_bytes(state))
    return state.average


def train_vae(digits, arguments):
    """The parameters of the autoencoder."""

    def batch(draw):
        return paint(digits.ink[draw.integers(len(digits.ink), size=16)], draw_colors(draw, 16))

    def loss(params, pictures, key):
        posterior = VAE.apply({"params": params}, pictures, method="encode")
        error = VAE.apply({"params": params}, posterior.sample(key), method="decode") - pictures
        inky = jnp.abs(pictures - pictures[:, :1, :1]).mean(-1, keepdims=True)  # which counts more
        return jnp.mean((1 + 5 * inky) * (error**2 + jnp.abs(error))) + 1e-6 * jnp.mean(posterior.kl())

    params = VAE.init_params(jax.random.key(arguments.seed))
    params["quant_conv"]["bias"] = params["quant_conv"]["bias"].at[4:].set(-6)  # begin with latents of little noise
    return fit("vae", params, loss, batch, steps=arguments.vae_steps, rate=4e-3, arguments=arguments)


def train_denoiser(vae_params, digits, arguments):
    """(the pipeline, its parameters): a U-Net and a text encoder that learn from the autoencoder's latents."""
    tokenizer = make_tokenizer()
    text_encoder = fdiff.CLIPTextModel(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length, eos_token_id=tokenizer.id(tokenizer.eos_token),
    )  # fmt: skip

    @jax.jit
    def encode(pictures):
        return VAE.apply({"params": vae_params}, pictures, method="encode").mode()

    def batch(draw, size=arguments.batch_size):
        rows, colors = draw.integers(len(digits.ink), size=size), draw_colors(draw, size)
        told = [caption(draw, digits.labels[row], *both) for row, *both in zip(rows, *colors, strict=True)]
        return paint(digits.ink[rows], colors), prompts.tokenize(tokenizer, told)

    some, _ = batch(np.random.default_rng(arguments.seed), 512)
    vae = VAE.clone(scaling_factor=round(float(1 / encode(some).std()), 4))

    def loss(params, batch, key):
        pictures, tokens = batch
        x0 = vae.scale(encode(pictures))
        read = prompts.encode(text_encoder, params["text_encoder"], tokens).embeddings

        def network(x, t):
            return UNET.apply({"params": params["unet"]}, x, t, read)

        return training.denoising_loss(network, SCHEDULER, x0, key)

    keys = jax.random.split(jax.random.key(arguments.seed))
    params = {"unet": UNET.init_params(keys[0]), "text_encoder": text_encoder.init_params(keys[1])}
    params = fit("unet", params, loss, batch, steps=arguments.steps, rate=2e-3, arguments=arguments)
    pipe = fdiff.StableDiffusionPipeline(vae, text_encoder, tokenizer, UNET, SCHEDULER)
    return pipe, {"vae": vae_params, **params}


def drawn(pipe, params, texts, steps):
    """The pictures (b, 32, 32, 3) of texts, from 0 to 1."""
    parts = [texts[i : i + 80] for i in range(0, len(texts), 80)]
    options = {"key": jax.random.key(1), "num_inference_steps": steps, "guidance_scale": 3, "output_type": "np"}
    return np.concatenate([pipe(params, part, **options).images for part in parts])


def seen(pictures):
    """What pictures show: ink (b, 32, 32) from 0 to 1, and the names (b,) of its colour and of the paper's.

    The paper is the mean of the first and last rows; ink is how far a pixel is from it.
    """
    paper = pictures[:, [0, 1, -2, -1]].mean((1, 2))
    far = np.linalg.norm(pictures - paper[:, None, None], axis=-1)
    ink = np.minimum(far / np.quantile(far, 0.97, axis=(1, 2), keepdims=True), 1)
    front = [picture[inky].mean(0) for picture, inky in zip(pictures, ink > 0.9, strict=True)]
    found = []
    for table, colors in ((INKS, np.array(front)), (PAPERS, paper)):
        apart = np.linalg.norm(colors[:, None] * 2 - 1 - palette(table), axis=-1)
        found.append(np.array([*table])[apart.argmin(1)])
    return ink, *found


def measure(pipe, params, train, held_out, *, count, steps):
    """How many pictures show the digit and the colours asked for; a classifier of real digits reads them."""

    def points(ink):
        return ink[:, 2:30, 2:30].reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)

    classifier = SVC(C=10.0).fit(points(train.ink), train.labels)
    asked = [(i, ink, paper) for ink in INKS for paper in PAPERS for i in range(10)] * (count // 320 + 1)
    texts = [f"a {ink} {NAMES[i]} on {paper}" for i, ink, paper in asked[:count]]
    ink, inks, papers = seen(drawn(pipe, params, texts, steps))
    shown = zip(classifier.predict(points(ink)), inks, papers, strict=True)
    digit, front, back = np.mean([np.equal(*both) for both in zip(shown, asked[:count], strict=True)], axis=0)
    return (
        f"classifier on {len(held_out.labels)} held-out real digits: "
        f"{classifier.score(points(held_out.ink), held_out.labels):.1%}\n"
        f"{count} generated: {digit:.1%} read as the digit asked for, {front:.1%} in that ink, {back:.1%} on that paper"
    )


def draw_sheet(pipe, params, file, *, steps):
    """A row for each ink, on one paper after the other, and a column for each digit."""
    texts = [f"a {ink} {name} on {[*PAPERS][i % 4]}" for i, ink in enumerate(INKS) for name in NAMES]
    sheet = images.grid(images.to_pil(drawn(pipe, params, texts, steps) * 2 - 1), columns=10)
    images.save(images.enlarge(sheet, 500), file)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="colored-digits", type=Path)
    parser.add_argument("--data", type=Path, help="a folder of MNIST's idx files (.gz); OpenML if not given")
    parser.add_argument("--vae-steps", default=1500, type=int)
    parser.add_argument("--steps", default=4000, type=int)
    parser.add_argument("--batch-size", default=32, type=int)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--picture-steps", default=25, type=int, help="network calls of a picture that is measured")
    parser.add_argument("--count", default=960, type=int, help="generated digits to measure; 0 measures nothing")
    parser.add_argument("--measure", type=Path, help="a model that is there: measure it and train nothing")
    parser.add_argument("--sheet", type=Path, help="a picture to write, of all digits and inks")
    parser.add_argument("--quick", action="store_true", help="two steps on few digits, to see that all of it runs")
    arguments = parser.parse_args(argv)
    train, held_out = read_digits(arguments.data)
    if arguments.quick:
        train = Digits(train.ink[:200], train.labels[:200])
        arguments.vae_steps, arguments.steps, arguments.batch_size, arguments.picture_steps = 2, 2, 4, 2
        arguments.count = 80
    if arguments.measure is None:
        pipe, params = train_denoiser(train_vae(train, arguments), train, arguments)
        for name in ("vae", "unet"):  # the text encoder stays float32: transformers 5 computes in what a file has
            params[name] = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params[name])
        pipe.save_pretrained(arguments.out, params)
    pipe, params = fdiff.StableDiffusionPipeline.from_pretrained(arguments.measure or arguments.out)
    if arguments.count:
        print(measure(pipe, params, train, held_out, count=arguments.count, steps=arguments.picture_steps))
    if arguments.sheet:
        draw_sheet(pipe, params, arguments.sheet, steps=arguments.picture_steps)


if __name__ == "__main__":
    main()
