"""How what a pipeline makes is written: pictures by `fdiff.cli.generate`, and a row here for each other kind."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fdiff.cli.options import DEFAULTS


class Output(NamedTuple):
    """A kind of what is made.

    one: what a message calls one of them.
    endings: of files of it; the first is that of the file that is written where none is named.
    write: (what the pipeline returned, the file or folder, the text of item i, or of all for None, labels) -> what was
        written.
    """

    one: str
    endings: tuple[str, ...]
    write: Callable[[Any, Path, Callable[[int | None], str], Sequence[str]], list[str]]


def write_sounds(
    made: Any, out: Path, text: Callable[[int | None], str], labels: Sequence[str]
) -> list[str]:
    """Sounds one after the other in a file, with a quarter of a second between, or a file each in a folder; and beside
    each file a picture of it, which carries the text.
    """
    import numpy as np

    from fdiff import audio, hub, images

    sounds = [np.asarray(one).T if np.ndim(one) == 2 else np.asarray(one)[:, None] for one in made.audios]
    if out.suffix:
        pause = np.zeros((made.sampling_rate // 4, sounds[0].shape[1]), np.float32)
        parts = [part for sound in sounds for part in (pause, sound)][1:]
        whole = audio.Sound(np.concatenate(parts), made.sampling_rate)
        audio.write(out, whole)
        images.save(audio.picture(whole), picture_of(out), text(None if len(sounds) > 1 else 0))
        return [str(out), str(picture_of(out))]
    with hub.staged(out) as temporary:
        for i, samples in enumerate(sounds):
            file = temporary / f"{i:05d}.wav"
            audio.write(file, audio.Sound(samples, made.sampling_rate))
            images.save(audio.picture(audio.Sound(samples, made.sampling_rate)), picture_of(file), text(i))
    return [str(out)]


def write_molecules(
    made: Any, out: Path, text: Callable[[int | None], str], labels: Sequence[str]
) -> list[str]:
    """Molecules in one file, or a .sdf each in a folder; and beside each file a picture of it, with the text."""
    from fdiff import hub, images, molecules

    found, count = made.molecules, len(made.molecules.numbers)
    if out.suffix:
        molecules.write(out, found)
        drawn = molecules.draw(found.take(slice(SHOWN)))
        images.save(images.grid(drawn), picture_of(out), text(None if count > 1 else 0))
        return [str(out), str(picture_of(out))]
    with hub.staged(out) as temporary:
        for i in range(count):
            file, one = temporary / f"{i:05d}.sdf", found.take(slice(i, i + 1))
            molecules.write(file, one)
            images.save(molecules.draw(one)[0], picture_of(file), text(i))
    return [str(out)]


def picture_of(file: Path) -> Path:
    """Where the picture of what is no picture is written."""
    return file.with_suffix(".png")


SHOWN = 100  # molecules of a sheet
OUTPUTS: Mapping[str, Output] = {
    "sounds": Output("sound", (".wav", ".flac"), write_sounds),
    "molecules": Output("molecule", (".sdf", ".xyz", ".npz"), write_molecules),
}


def kind_of(file: Path) -> str:
    """What a file of that name holds, by its ending; pictures if no other kind has it."""
    return next((kind for kind, one in OUTPUTS.items() if file.suffix.lower() in one.endings), "pictures")


def check_ending(file: Path) -> None:
    """Raise ValueError for a name whose ending says nothing, or what cannot be written here."""
    from fdiff import images

    kind = kind_of(file)
    if kind == "pictures":
        images.picture_format(file)
    if file.suffix.lower() == ".flac" and importlib.util.find_spec("soundfile") is None:
        raise ValueError(f'{file} needs soundfile; install it with pip install "fdiff-jax[audio]", or name a .wav')


def suited(pipe: Any, arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, --out as suits what the pipeline makes where it is not given.

    Raises ValueError for an ending of another kind, and for options that are for pictures alone.
    """
    made = OUTPUTS.get(pipe.makes)
    out = Path(arguments.out)
    if made is not None and arguments.out == DEFAULTS["out"]:
        out = out.with_suffix(made.endings[0])
    if out.suffix and kind_of(out) != pipe.makes:
        what, ending = ("picture", ".png") if made is None else (made.one, made.endings[0])
        raise ValueError(f"--out is {out}, and a {type(pipe).__name__} makes {pipe.makes}; a {what} is called "
                         f"something like {out.with_suffix(ending).name}")
    for name in ("animate", "preview"):
        if made is not None and getattr(arguments, name) is not None:
            raise ValueError(f"--{name} shows pictures, and a {type(pipe).__name__} makes {pipe.makes}; leave it out")
    return argparse.Namespace(**{**vars(arguments), "out": str(out)})
