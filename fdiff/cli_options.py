"""The options of `fdiff generate` and `fdiff inspect`, in groups; nothing here imports jax."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")

# In which group of the help an option of pipelines stands, by its flag; the others tell how to draw.
DRAWN = ("class", "negative-prompt", "prompt-2", "negative-prompt-2", "weighted", "chunked", "height", "width",
         "torch-seed")  # fmt: skip
LOOKED_AT = ("image", "strength", "mask", "padding-mask-crop", "image-guidance-scale", "noise-level", "control-image",
             "controlnet-conditioning-scale", "control-guidance-start", "control-guidance-end", "guess-mode",
             "adapter-conditioning-scale", "adapter-conditioning-factor", "denoising-start")  # fmt: skip


def add_generate(parser: argparse.ArgumentParser, flags: Mapping[str, Mapping[str, Any]]) -> None:
    """The options of `fdiff generate`; `flags` are those of pipelines, as argparse takes them."""
    parser.usage = "%(prog)s [MODEL] [PROMPT] [options]"
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a Hub id, a folder, or a model that fdiff "
                        "ships (default: digits)")
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to draw, for models that read text")
    group = parser.add_argument_group
    drawn, how = group("what to draw"), group("how to draw it, for the pipelines that have such an option")
    looked_at, model, written = group("pictures to work on"), group("the model"), group("what is written")

    add = drawn.add_argument
    add("--seed", type=int, metavar="N", help="image i of a seed is the same whatever else is drawn (default: 0)")
    add("--num-images", type=int, metavar="N", help="how many pictures (default: 1; 100 of the digits)")

    add = model.add_argument
    add("--scheduler", metavar="NAME", help="such as EulerDiscreteScheduler (default: the model's own)")
    add("--lora", action="append", metavar="FILE[:SCALE]", help="merge a LoRA; may be given several times")
    add("--dtype", choices=DTYPES, help="what to compute in (default: float32)")

    add = written.add_argument
    add("--out", metavar="FILE", help="a sheet of all pictures, such as sheet.png, or a folder for one file each "
        "(default: fdiff.png)")
    add("--animate", metavar="GIF", help="also write the denoising as a .gif")

    for flag, options in flags.items():
        place = drawn if flag in DRAWN else looked_at if flag in LOOKED_AT else how
        place.add_argument(f"--{flag}", **options)


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """The options of `fdiff inspect`."""
    parser.add_argument("model", metavar="MODEL", help="a Hub id, a folder, or a model that fdiff ships")


# What an option is where it is not given: argparse leaves it None, so that what is given is known.
DEFAULTS: Mapping[str, Any] = {"seed": 0, "lora": (), "dtype": "float32", "out": "fdiff.png"}


def with_defaults(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, the defaults in place of what is not given."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    return argparse.Namespace(**{**vars(arguments), **DEFAULTS, **given})
