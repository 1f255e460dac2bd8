"""Train a model that speaks digits: mel spectrograms of 64 frames, of the class that is asked for.

    python examples/train_spoken_digits.py --data recordings --output spoken-digits
    python examples/train_spoken_digits.py --data recordings --measure spoken-digits/model
    fdiff generate spoken-digits/model --class 7 --out seven.wav

The data are the Free Spoken Digit Dataset's (https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0),
files such as 7_jackson_32.wav; the first takes of each speaker are held out, to tell how well what listens does.
The training is `fdiff train class-conditional` on pictures of the sounds, and goes on where it was if it is run again.
Needs `pip install "fdiff-jax[train]"`.
"""

import argparse
import json
import re
from pathlib import Path

import jax
import numpy as np
from sklearn.svm import SVC

import fdiff
from fdiff import audio, hub
from fdiff.cli import main as command
from fdiff.pipelines import ClassConditionalSoundPipeline

MEL = audio.Mel(x_res=64, y_res=64, sample_rate=8000, n_fft=1024, hop_length=128)
HELD_OUT = 3  # takes of each speaker and digit
TRAINING = [
    "--channels", "8,32,64,64", "--prediction", "v_prediction", "--weight", "min-snr", "--learning-rate", "2e-3",
    "--batch-size", "16", "--guidance-scale", "2", "--inference-steps", "30", "--decay", "0.9995",
]  # fmt: skip


def read_recordings(folder):
    """(spectrograms (n, 64, 64) uint8, digits (n,), takes (n,)) of the recordings there, cut or filled up to 1 s."""
    files = [file for file in sorted(folder.rglob("*.wav")) if re.fullmatch(r"\d_\w+_\d+", file.stem)]
    if not files:
        raise SystemExit(f"{folder} holds no recordings such as 7_jackson_32.wav")
    sounds = [audio.read(file).mono()[: MEL.slice_size] for file in files]
    whole = np.stack([np.pad(sound, (0, MEL.slice_size - len(sound))) for sound in sounds])
    names = [file.stem.split("_") for file in files]
    return pictures(whole), np.array([int(one[0]) for one in names]), np.array([int(one[2]) for one in names])


def pictures(sounds):
    """Sounds (n, 8191) as bytes (n, 64, 64)."""
    drawn = jax.jit(MEL.pixels)
    return np.concatenate([np.floor(drawn(part) + 0.5) for part in np.array_split(sounds, -(-len(sounds) // 100))]) \
        .astype(np.uint8)


def listener(images, digits, takes):
    """(what tells digits apart, the share of held-out recordings that it hears right)."""
    features, out = images.reshape(len(images), -1) / 255, takes < HELD_OUT
    classifier = SVC(C=10).fit(features[~out], digits[~out])
    return classifier, float(classifier.score(features[out], digits[out]))


def measure(folder, data, count):
    """What is heard in sounds of the model in `folder`."""
    classifier, right = listener(*data)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(folder)
    asked = np.arange(count) % 10
    heard = []
    for i in range(0, count, 50):
        made = pipe(params, asked[i : i + 50].tolist(), key=jax.random.key(i), progress=False)
        sounds = np.pad(made.audios[:, 0], ((0, 0), (0, MEL.slice_size - made.audios.shape[-1])))
        heard.append(classifier.predict(pictures(sounds).reshape(len(sounds), -1) / 255))
    share = float((np.concatenate(heard) == asked).mean())
    return {"held_out_accuracy": right, "samples": count, "heard_as_asked": share}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of recordings")
    parser.add_argument("--output", type=Path, default=Path("spoken-digits"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=500, help="sounds to listen to")
    parser.add_argument("--measure", type=Path, help="do not train, but listen to this model")
    arguments = parser.parse_args(argv)
    data = read_recordings(arguments.data)
    model = arguments.measure or arguments.output / "model"
    if arguments.measure is None:
        train(data, arguments.output, arguments.steps)
    result = measure(model, data, arguments.samples)
    print(json.dumps(result))
    return result


def train(data, output, steps):
    """Train on all that is not held out, and lay what draws sounds beside it."""
    images, digits, takes = data
    output.mkdir(parents=True, exist_ok=True)
    file = output / "spectrograms.npz"
    with hub.replacing(file) as part, part.open("wb") as opened:
        np.savez_compressed(opened, images=images[takes >= HELD_OUT], labels=digits[takes >= HELD_OUT])
    folder = output / "training"
    resume = ["--resume"] if (folder / "checkpoints").exists() else []
    line = ["train", "class-conditional", "--data", str(file), "--output", str(folder), "--steps", str(steps)]
    if command([*line, *([] if resume else TRAINING), *resume]):
        raise SystemExit(1)
    drawing, params = fdiff.DiffusionPipeline.from_pretrained(folder)
    pipe = ClassConditionalSoundPipeline(
        drawing.unet, drawing.scheduler, tuple(map(str, range(10))), drawing.num_inference_steps,
        drawing.guidance_scale, mel=MEL,
    )  # fmt: skip
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)
    pipe.save_pretrained(output / "model", params)


if __name__ == "__main__":
    main()
