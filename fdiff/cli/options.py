"""The options of `fdiff generate` and `fdiff inspect`, in groups; nothing here imports jax."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZED = ("int8", "int4", "float8")

# What an option is where it is not given: argparse leaves it None, so that what is given is known.
DEFAULTS: Mapping[str, Any] = {"seed": 0, "lora": (), "textual_inversion": (), "dtype": "float32", "out": "fdiff.png"}

# Places of which no other part of fdiff takes ~ for the home.
PATHS = ("image", "mask", "control_image", "ip_adapter_image", "audio", "reference_audio", "plan", "out", "animate",
         "save_plan")  # fmt: skip

# In which group of the help an option of pipelines stands, by its flag; the others tell how to draw.
DRAWN = ("class", "negative-prompt", "prompt-2", "negative-prompt-2", "weighted", "chunked", "height", "width",
         "lyrics", "seconds", "torch-seed")  # fmt: skip
LOOKED_AT = ("image", "strength", "mask", "padding-mask-crop", "image-guidance-scale", "noise-level", "control-image",
             "controlnet-conditioning-scale", "control-guidance-start", "control-guidance-end", "guess-mode",
             "control-mode", "adapter-conditioning-scale", "adapter-conditioning-factor", "denoising-start",
             "audio", "reference-audio", "repaint-start", "repaint-end")  # fmt: skip

# The help of options whose description is for those who write Python.
HELP: Mapping[str, str] = {
    "torch-seed": "in place of --seed, the random numbers of torch, which draw the picture that diffusers draws",
    "steps": "how often the network is called (default: the pipeline's own)",
    "class": "numbers or names of classes, with commas between; the pictures take turns (default: all of them)",
    "guidance-scale": "how closely to keep to the prompt or class; 1 is none (default: the pipeline's own)",
    "height": "in pixels, a multiple of 8, or of 16 for a transformer (default: what the model was trained on, or the "
              "picture's own)",
    "width": "in pixels, a multiple of 8, or of 16 for a transformer (default: what the model was trained on, or the "
             "picture's own)",
    "prompt-2": "what the second text encoder reads in place of the prompt",
    "negative-prompt-2": "what the second text encoder reads in place of the negative prompt",
    "weighted": "read weights as (a cat:1.3), BREAK, AND, [from:to:when] and [a|b] in the prompts, as web UIs do",
    "image": "the picture to begin from, or to keep to, a .png or .jpg; the model's pipeline that takes one is chosen",
    "mask": "a picture as large as that of --image, whose white part is painted anew",
    "strength": "how much of the --image to redraw, from 0, nothing, to 1, everything",
    "padding-mask-crop": "paint only the part around the mask, and so many pixels around it, at full size, and put it "
                         "into the picture",
    "control-image": "the edges, the depth or the pose that the --controlnet was trained on",
    "controlnet-conditioning-scale": "how strongly the --controlnet acts",
    "control-guidance-start": "the part of the run, 0 to 1, at which the --controlnet begins to act",
    "control-guidance-end": "the part of the run, 0 to 1, at which the --controlnet ends to act",
    "control-mode": "the number of the kind that the --control-image is of, for a --controlnet that knows several",
    "guess-mode": "let the --controlnet act as if there were no prompt",
    "adapter-conditioning-scale": "how strongly the T2I-Adapter of the model acts",
    "adapter-conditioning-factor": "the part of the run, 0 to 1, in which the T2I-Adapter acts",
    "denoising-end": "stop when this share of the noise is gone, 0 to 1",
    "denoising-start": "the share of the noise, 0 to 1, that is gone from the --image already",
    "cache": "compute what is deep in the network at some steps only, which is faster and nearly the same: deep:N, "
             "every N steps; first-block:X, where its first block changes by a share X; taylor:N, forecast between",
    "token-merging": "merge this share, up to 0.75, of the tokens where the U-Net attends to itself at its largest "
                     "level, which is faster for large pictures",
    "image-guidance-scale": "how closely to keep to the --image; below 1 there is no guidance at all",
    "audio": "a sound to begin from, or to work on, a .wav or .flac at the sampling rate of the model",
    "reference-audio": "music whose timbre to take, at the sampling rate of the model",
    "repaint-start": "seconds of the --audio before the part that is made anew, with --task-type repaint",
    "lyrics": "what is sung, with marks such as [verse] and [chorus]",
    "overlap": "make sounds that are longer than the model's own in windows of that length, which overlap by so many "
               "seconds and fade into one another",
    "noise-level": "how much noise the --image gets before it is looked at; more hides its flaws",
}  # fmt: skip


def add_generate(parser: argparse.ArgumentParser, flags: Mapping[str, Mapping[str, Any]]) -> None:
    """The options of `fdiff generate`; `flags` are those of pipelines, as argparse takes them."""
    parser.usage = "%(prog)s [MODEL] [PROMPT] [options]"
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a Hub id, a folder, one file of weights such as "
                        "model.safetensors or model.ckpt, or a model that fdiff ships (default: mnist)")
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to draw, for models that read text")
    group = parser.add_argument_group
    drawn, looked_at, model = group("what to draw"), group("pictures to work on"), group("the model")
    how, written = group("how to draw it, for the pipelines that have such an option"), group("what is written")
    _add_drawn(drawn)
    for flag, options in flags.items():
        place = drawn if flag in DRAWN else looked_at if flag in LOOKED_AT else how
        place.add_argument(f"--{flag}", **{**options, "help": HELP.get(flag, options["help"])})
    add = looked_at.add_argument
    add("--ip-adapter-image", metavar="FILE", help="the picture that the --ip-adapter sees as a prompt")
    add = how.add_argument
    add("--scheduler", metavar="NAME", help="such as EulerDiscreteScheduler (default: the model's own)")
    add("--plan", metavar="FILE", help="run the plan of this file, which --save-plan or fdiff.save_plan wrote, in "
        "place of the scheduler's own")
    _add_model(model)
    _add_written(written)


def _add_drawn(group: Any) -> None:
    add = group.add_argument
    add("--prompt", dest="prompt_text", metavar="TEXT", help="the same as PROMPT, wherever it stands")
    add("--seed", type=int, metavar="N", help="image i of a seed is the same whatever else is drawn (default: 0)")
    add("--num-images", "--num-molecules", type=int, metavar="N", help="how many pictures, or what the model makes "
        "(default: 1; 40 of the digits)")
    add("--like", metavar="PICTURE", help="draw what this picture says, as `fdiff generate` wrote it, once more, to "
        "the last bit on the same machine; other options go before what it says. Of a picture of AUTOMATIC1111's web "
        "UI what means the same here is taken")


def _add_model(group: Any) -> None:
    add = group.add_argument
    add("--dtype", choices=DTYPES, help="what to compute in (default: float32)")
    add("--quantize", choices=QUANTIZED, help="keep the weights of the networks and of the text encoders in so many "
        "bits")
    add("--low-memory", action="store_true", default=None, help="have one of the text encoder, the network and the "
        "decoder in memory at a time")
    add("--streamed", action="store_true", default=None, help="leave the weights of the network and of the text "
        "encoders on the disk, and read those of a layer whenever it is computed")
    add("--variant", metavar="NAME", help="read the weights of this variant, such as fp16")
    add("--revision", metavar="NAME", help="the branch, tag or commit of the Hub's repository")
    add("--tokenizer", metavar="SOURCE", help="where a MODEL in one file, which lacks one, takes it from (default: "
        "openai/clip-vit-large-patch14)")
    add("--config", metavar="SOURCE", help="where a MODEL in one file takes its configs from (default: known by the "
        "tensors)")
    add("--lora", action="append", metavar="FILE[:SCALE]", help="merge a LoRA; may be given several times")
    add("--textual-inversion", action="append", metavar="FILE[:TOKEN]", help="add the word of a textual inversion, "
        "under the name in the file or as TOKEN; may be given several times")
    add("--controlnet", metavar="MODEL", help="steer by --control-image with this ControlNet: a Hub id, a folder or "
        "one file")
    add("--ip-adapter", metavar="FILE[:SCALE]", help="see --ip-adapter-image as a prompt, with this IP-Adapter")
    add("--image-encoder", metavar="MODEL", help="CLIP's vision model for the --ip-adapter (default: the folder "
        "image_encoder beside it)")
    add("--any-memory", action="store_true", default=None, help="go on though the model seems not to fit into memory")


def _add_written(group: Any) -> None:
    add = group.add_argument
    add("--out", metavar="FILE", help="a sheet of all pictures, such as sheet.png, or a folder for one file each "
        "(default: fdiff.png); .png, .jpg, .webp and .gif carry how they were drawn, see --like")
    add("--animate", metavar="GIF", help="also write the denoising as a .gif")
    add("--preview", type=int, metavar="N", help="every N steps, write what the picture would be as NAME.preview.png "
        "beside --out, where it stays until the run ends")
    add("--save-plan", metavar="FILE", help="also write the numbers of the run's sampler, for --plan and "
        "fdiff.load_plan")


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """The options of `fdiff inspect`."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a Hub id, a folder, one file of weights such as model.safetensors, or a model "
        "that fdiff ships")
    add("--variant", metavar="NAME", help="look at the weights of this variant, such as fp16")
    add("--revision", metavar="NAME", help="the branch, tag or commit of the Hub's repository")
    add("--config", metavar="SOURCE", help="where a MODEL in one file takes its configs from (default: known by the "
        "tensors)")


def add_train(parser: argparse.ArgumentParser, settings: Mapping[str, Mapping[str, Any]], types: Any) -> None:
    """The options of `fdiff train TASK`; `settings` are those of the task, as `fdiff.cli.flags.tasks` gives them."""
    add = parser.add_argument
    add("--data", metavar="PLACE", help="a folder of pictures, an .npz or a .tar file, or a folder of MNIST's files")
    add("--output", metavar="FOLDER", help="where the model is written, and everything that is seen of its training")
    add("--config", metavar="FILE", help="a .toml file of these options by their names; those given here win")
    add("--resume", action="store_true", help="go on from the last checkpoint in FOLDER, with the options that it was "
        "begun with")
    for name, one in settings.items():
        default = one.get("default")
        said = one["help"] if default in (None, "") or default is False else f"{one['help']} (default: {default})"
        kind: Any = {"action": argparse.BooleanOptionalAction} if one["type"] == "bool" else \
            {"type": types[one["type"]], "metavar": {"int": "N", "float": "X", "str": "TEXT"}[one["type"]]}
        add(f"--{name.replace('_', '-')}", default=None, help=said.replace("%", "%%"), **kind)


def with_defaults(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, the defaults in place of what is not given."""
    given = {name: os.path.expanduser(value) if name in PATHS else value  # a shell leaves --out=~/x.png as it is
             for name, value in vars(arguments).items() if value is not None}  # fmt: skip
    return argparse.Namespace(**{**vars(arguments), **DEFAULTS, **given})
