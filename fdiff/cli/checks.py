"""What can be known to be wrong in the options of `fdiff generate` before a model is loaded."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fdiff.cli.flags import tasks
from fdiff.cli.sources import scaled
from fdiff.sources import is_single_file

# Options that are of no use without another one, and what that is.
WITH: Mapping[str, tuple[str, str]] = {
    "mask": ("image", "the picture to begin from"), "strength": ("image", "the picture to begin from"),
    "padding_mask_crop": ("mask", "the part to paint"), "controlnet": ("control_image", "the picture that steers"),
    "ip_adapter": ("ip_adapter_image", "the picture that it sees"), "ip_adapter_image": ("ip_adapter", "what sees it"),
    "image_encoder": ("ip_adapter", "what it is for"),
}  # fmt: skip
NOT_BOTH = (("steps", "plan"), ("scheduler", "plan"))
FILES = ("image", "mask", "control_image", "ip_adapter_image", "audio", "reference_audio", "plan")
COUNTS = ("num_images", "steps", "preview", "height", "width")
LONGEST = 1000  # signs of a sentence


def flag(name: str) -> str:
    """The option as it is typed."""
    return {"model": "MODEL", "prompt": "PROMPT", "prompt_text": "--prompt"}.get(name, f"--{name.replace('_', '-')}")


def plain(text: str) -> str:
    """A text as one line for a terminal: what a picture or a file says there may hold what steers it."""
    line = " ".join(text.split())
    if len(line) > LONGEST:  # the end tells the cure
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def preview_file(out: str) -> Path:
    """Where --preview writes, beside --out."""
    return Path(out).with_name(f"{Path(out).stem}.preview.png")


def check_task(name: str) -> None:
    """Raise ValueError for a TASK that there is not."""
    known = list(tasks())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        cure = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"{name} is no task that can be trained; {cure}")


def check_options(arguments: argparse.Namespace) -> None:
    """Raise ValueError for what is empty, out of range, or does not go together, and for places to write to."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    for name, value in given.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if text == "":
                raise ValueError(f"{flag(name)} is empty; give it a value or leave it out")
            if isinstance(text, str) and any("\ud800" <= sign <= "\udfff" for sign in text):  # bytes of another code
                raise ValueError(f"{flag(name)} is no text in UTF-8; write it anew")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{flag(name)} is {value}; give a finite number")
    for name in COUNTS:
        if name in given and given[name] < 1:
            raise ValueError(f"{flag(name)} is {given[name]}; it must be 1 or more")
    if not -(2**63) <= arguments.seed < 2**63:
        raise ValueError(f"--seed is {arguments.seed}; it must be a number of 64 bits")
    for name, (other, what) in WITH.items():
        if name in given and other not in given:
            raise ValueError(f"{flag(name)} is of no use alone; add {flag(other)}, {what}")
    if "prompt" in given and "prompt_text" in given:
        raise ValueError("PROMPT and --prompt are both given; leave one of them out")
    for one, other in NOT_BOTH:
        if one in given and other in given:
            raise ValueError(f"{flag(one)} and {flag(other)} are both given, and the latter has its own; leave one out")
    for name in ("lora", "ip_adapter"):
        for one in ([given[name]] if isinstance(given.get(name), str) else given.get(name, ())):
            scaled(name.replace("_", "-"), one)
    _check_model(arguments)
    for name in FILES:
        if name in given and not Path(given[name]).is_file():
            what = "is no file" if Path(given[name]).exists() else "is not there"
            raise ValueError(f"{flag(name)} {given[name]} {what}; check its name")
    _check_places(arguments)


def _check_model(arguments: argparse.Namespace) -> None:
    """Raise ValueError for a MODEL that is none, and for options that are not for the kind of source that it is."""
    from fdiff import hub

    model = arguments.model
    if model is not None and not Path(os.path.expanduser(model)).exists():
        if len(model.split()) > 1:
            raise ValueError(f'"{model}" looks like a prompt, and which model is to draw it is missing; say fdiff '
                             f'generate MODEL "{model}"')
        hub.check_name(model)
    alone = model is not None and is_single_file(model)
    for name in ("variant", "revision"):
        if getattr(arguments, name) is not None and (model is None or alone):
            what = "the digits that fdiff ships have none" if model is None else f"{model} is one file"
            raise ValueError(f"{flag(name)} is for folders and repositories, and {what}; leave it out")
    if arguments.revision is not None and Path(os.path.expanduser(model)).is_dir():
        raise ValueError(f"--revision is for repositories of the Hub, and {model} is a folder; leave it out")
    for name in ("tokenizer", "config"):
        if getattr(arguments, name) is not None and not alone:
            raise ValueError(f"{flag(name)} is for models in one file, which lack one; leave it out")


def _check_places(arguments: argparse.Namespace) -> None:
    """Raise ValueError for places that cannot be written to, or are one and the same."""
    from fdiff.cli import outputs

    sheet, out = bool(Path(arguments.out).suffix), Path(arguments.out)
    if sheet:
        outputs.check_ending(out)
    check_place("--out", out, folder=not sheet)
    taken = {out.resolve(): "--out"}
    if outputs.kind_of(out) != "pictures":
        check_place("--out's picture", outputs.picture_of(out), folder=False)
        taken[outputs.picture_of(out).resolve()] = "--out's picture"
    if arguments.preview is not None:
        preview = preview_file(arguments.out)
        if preview.exists():
            raise ValueError(f"--preview writes {preview}, which is there already; choose another --out")
        taken[preview.resolve()] = "--preview"
    for name in ("animate", "save_plan"):
        if getattr(arguments, name) is None:
            continue
        path = Path(getattr(arguments, name))
        if name == "animate" and path.suffix.lower() != ".gif":
            raise ValueError(f"--animate writes a GIF; call {path} something.gif")
        if other := taken.get(path.resolve()):
            raise ValueError(f"{other} and {flag(name)} are both {path}; give them two names")
        taken[path.resolve()] = flag(name)
        check_place(flag(name), path, folder=False)


def check_place(said: str, path: Path, folder: bool) -> None:
    """Raise ValueError unless a file, or a folder, can be written there."""
    if path.exists() and path.is_dir() != folder:
        found = "folder" if path.is_dir() else "file"
        raise ValueError(f"{said} {path} is a {found} already; choose another name")
    above = next(parent for parent in (path if folder else path.parent, *path.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise ValueError(f"{said} {path} cannot be written ({error.strerror}); choose another place") from None
