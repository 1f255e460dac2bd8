"""`fdiff generate --like PICTURE`: what a picture says of how it was drawn, as options."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fdiff.cli.checks import FILES, flag, plain
from fdiff.cli.options import add_generate
from fdiff.cli.remember import ADAPTERS, MODELS, NOT_KEPT, SAMPLERS, hashes, listed, versions
from fdiff.picture_text import Parameters, parse

# Options that an option given on the command line takes the place of.
REPLACES: Mapping[str, tuple[str, ...]] = {
    "model": ("revision", "variant", "tokenizer", "config"), "prompt": ("prompt_text",), "prompt_text": ("prompt",),
    "seed": ("torch_seed",), "torch_seed": ("seed",), "steps": ("plan",), "scheduler": ("plan",),
    "plan": ("steps", "scheduler"),
}  # fmt: skip


def recalled(arguments: argparse.Namespace) -> tuple[argparse.Namespace, int | None]:
    """The options that the picture of `--like` says, behind those that are given; and its number in a folder.

    A picture may be a stranger's: it says nothing of where to write, names no file of which it does not know the
    hash, and what it takes from the Hub is told before.

    Raises ValueError for a picture that does not say how it was drawn, and for one whose files have gone or changed.
    """
    if arguments.like is None:
        return arguments, None
    if arguments.like == "":
        raise ValueError("--like is empty; give it a value or leave it out")
    file = os.path.expanduser(arguments.like)
    said = _read(file)
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    kept, number = (_of_web_ui(said, file, given), None) if said.own is None else _kept(said.own, file)
    gone = {*given, *(name for one in given for name in REPLACES.get(one, ()))}
    kept = {name: _beside(name, value, file) for name, value in kept.items() if name not in gone}
    merged = argparse.Namespace(**{**vars(arguments), **kept, **given})
    if said.own is None:
        return merged, None
    _tell_sources(kept, file)
    _check_hashes(said.own.get("hashes"), merged, [*kept, *({"model"} - {*kept, *given})], file)
    _tell_versions(said.own.get("versions"), file)
    return merged, None if "num_images" in given else number


def _read(file: str) -> Parameters:
    from fdiff import images
    from fdiff.cli.pictures import opening

    with opening(file):
        text = images.read_text(file)
    said = parse(text or "")
    if not said.fields and said.own is None:
        raise ValueError(f"{file} does not say how it was drawn; choose a picture that fdiff generate wrote, as it is")
    return said


def _kept(own: Mapping[str, Any], file: str) -> tuple[dict[str, Any], int | None]:
    """The options and the number, each of its kind. Raises ValueError for what no `fdiff generate` wrote."""
    from fdiff.cli.flags import flags

    parser = argparse.ArgumentParser()
    add_generate(parser, flags())
    actions: dict[str, Any] = {action.dest: action for action in parser._actions}
    found, number = own.get("arguments"), own.get("number")
    cure = "choose a picture that is as fdiff generate wrote it"
    if not isinstance(found, dict) or not (number is None or (type(number) is int and number >= 0)):
        raise ValueError(f"{file} says in another form how it was drawn; {cure}")
    for name, value in found.items():
        if name in (*NOT_KEPT, "help"):
            raise ValueError(f"{file} says {flag(name)}, which is for you alone to say; {cure}")
        if name not in actions:
            raise ValueError(f"{file} was drawn with {flag(name)}, which this fdiff does not have; update fdiff")
        action = actions[name]
        kind = bool if action.nargs == 0 else action.type or str
        values = value if isinstance(value, list) and isinstance(action, argparse._AppendAction) else [value]
        fits = all(type(one) is kind or (kind is float and type(one) is int) for one in values)
        if not fits or (action.choices and value not in action.choices):
            raise ValueError(f"{file} says {flag(name)} {value!r}, which is none; {cure}")
    count = found.get("num_images", 0)
    if number is not None and number >= count:
        raise ValueError(f"{file} says that it is number {number} of {count} pictures; {cure}")
    return {"model": "digits", **found}, number  # which was not said, as long as it was what is drawn without MODEL


def _beside(name: str, value: Any, file: str) -> Any:
    """What a picture says of a file, which may lie beside the picture where it is not where it was."""
    from fdiff.cli.sources import given

    if name not in (*FILES, *MODELS, *ADAPTERS):
        return value
    if isinstance(value, list):
        return [_beside(name, one, file) for one in value]
    source = given(value).source if name in ADAPTERS else value
    there = Path(file).parent / source
    if Path(os.path.expanduser(source)).exists() or not there.exists():
        return value
    return str(there) + value.removeprefix(source)


def _tell_sources(kept: Mapping[str, Any], file: str) -> None:
    """Tell what comes from the Hub because a picture says so."""
    from fdiff import hub, sources
    from fdiff.cli.sources import given

    for name in set(kept) & {*MODELS, *ADAPTERS, "tokenizer", "config"}:
        for one in listed(kept[name]):
            source = given(one).source if name in ADAPTERS else one
            on_hub = hub.REPOSITORY.fullmatch(source) or sources.ON_HUB.fullmatch(source)
            if on_hub and source not in hub.shipped() and not os.path.exists(source):
                _tell(f"{flag(name)} {source} is taken from the Hub, since {file} says so")


def _check_hashes(known: Any, merged: argparse.Namespace, names: Iterable[str], file: str) -> None:
    """Raise ValueError unless every file that only the picture names, by these options, is what it was."""
    for name in (*MODELS, *ADAPTERS, *FILES):
        if name not in names:
            continue
        what = getattr(merged, name)
        before = known.get(name) if isinstance(known, dict) else None
        if name in FILES and not Path(what).is_file():
            raise ValueError(f"{what}, the {flag(name)} of {file}, is not there; say where it is with {flag(name)}")
        if not isinstance(before, list) or len(before) != len(listed(what)):
            raise ValueError(f"{file} does not say what was in {what}; give {flag(name)} if it is the one to take")
        for source, old, new in zip(listed(what), before, hashes(merged, (name,)).get(name, ()), strict=False):
            if old != new:
                raise ValueError(f"{source} has changed since {file} was drawn; give {flag(name)} to draw with what "
                                 "there is now, or bring back what there was")


def _tell_versions(before: Any, file: str) -> None:
    now = versions()
    if isinstance(before, dict) and before != now:
        then, here = (" and ".join(f"{name} {said.get(name)}" for name in now) for said in (before, now))
        _tell(f"{file} was drawn with {then}, and this is {here}; the last bits may differ")


def _tell(text: str) -> None:
    print(f"fdiff: {plain(text)}", file=sys.stderr)


def _of_web_ui(said: Parameters, file: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What another program says, as options where they mean the same; the rest is told.

    Raises ValueError where no model is given: theirs is a name alone.
    """
    if "model" not in given:
        model = said.fields.get("Model", "an unknown one")
        raise ValueError(f"{file} was drawn by another program, whose model is {model}; say where that is, as in "
                         f"fdiff generate MODEL --like {file}")
    fields = dict(said.fields)
    prompt, negative = (re.sub(r"\s*<(?:lora|lyco|hypernet):[^>]*>", "", text) for text in said[:2])
    added = re.findall(r"<(?:lora|lyco|hypernet):[^>]*>", "".join(said[:2]))
    readers: dict[str, Any] = {
        "Steps": lambda text: {"steps": int(text)},
        "Sampler": lambda text: {"scheduler": SAMPLERS[text]},
        "CFG scale": lambda text: {"guidance_scale": float(text)},
        "Seed": lambda text: {"seed": int(text)},
        "Size": lambda text: dict(zip(("width", "height"), map(int, text.split("x")), strict=True)),
        "Clip skip": lambda text: {"clip_skip": int(text) - 1},
    }
    taken: dict[str, Any] = {"prompt_text": prompt, "weighted": True, "chunked": True}
    if negative:
        taken["negative_prompt"] = negative
    for name, read in readers.items():
        try:
            taken |= read(fields[name])
            del fields[name]
        except (KeyError, ValueError):  # it is not said, or means nothing here
            continue
    left = ", ".join([*added, *(f"{name}: {value}" for name, value in fields.items() if not name.startswith("Model"))])
    _tell(f"{file} is of another program, whose random numbers are others, so the picture will differ"
          + (f"; not taken: {left}" if left else ""))
    return taken
