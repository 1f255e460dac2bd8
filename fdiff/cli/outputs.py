"""How what a pipeline makes is written: pictures by `fdiff.cli.generate`, and a row here for each other kind."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fdiff.cli.options import DEFAULTS


class Output(NamedTuple):
    """A kind of what is made.

    one: what a message calls one of them.
    endings: of files of it; the first is that of files whose name nobody says.
    count: of what the pipeline returned, how many there are.
    part: (what the pipeline returned, which of them) -> what a file holds.
    save: (file, such a part) writes it.
    draw: a picture of such a part.
    """

    one: str
    endings: tuple[str, ...]
    count: Callable[[Any], int]
    part: Callable[[Any, slice], Any]
    save: Callable[[Path, Any], None]
    draw: Callable[[Any], Any]


def write(kind: str, made: Any, out: Path, text: Callable[[int | None], str]) -> list[str]:
    """Write all that was made into one file, or a file each into a folder; returns what was written.

    Beside each file stands a picture of it, with the text of that item; or of all, for None.
    """
    from fdiff import hub, images

    output = OUTPUTS[kind]
    count = output.count(made)

    def put(file: Path, which: slice, number: int | None) -> None:
        part = output.part(made, which)
        output.save(file, part)
        images.save(output.draw(part), picture_of(file), text(number))

    if out.suffix:
        put(out, slice(None), None if count > 1 else 0)
        return [str(out), str(picture_of(out))]
    with hub.staged(out) as temporary:
        for i in range(count):
            put(temporary / f"{i:05d}{output.endings[0]}", slice(i, i + 1), i)
    return [str(out)]


def picture_of(file: Path) -> Path:
    """Where the picture of what is no picture is written."""
    return file.with_suffix(".png")


def _in_a_row(made: Any, which: slice) -> Any:
    """Sounds one after the other, with a quarter of a second between."""
    import numpy as np

    from fdiff.audio import Sound

    sounds = [np.asarray(one).T if np.ndim(one) == 2 else np.asarray(one)[:, None] for one in made.audios[which]]
    pause = np.zeros((made.sampling_rate // 4, sounds[0].shape[1]), np.float32)
    return Sound(np.concatenate([part for sound in sounds for part in (pause, sound)][1:]), made.sampling_rate)


def _write_sound(file: Path, sound: Any) -> None:
    from fdiff import audio

    audio.write(file, sound)


def _draw_sound(sound: Any) -> Any:
    from fdiff import audio

    return audio.picture(sound)


def _write_molecules(file: Path, found: Any) -> None:
    from fdiff import molecules

    molecules.write(file, found)


def _draw_molecules(found: Any) -> Any:
    from fdiff import images, molecules

    return images.grid(molecules.draw(found.take(slice(SHOWN))))


SHOWN = 100  # molecules of a sheet
NOT_WRITTEN: Mapping[str, str] = {  # endings, and what to call a file in their place
    **dict.fromkeys((".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au", ".wma"),
                    "a sound something.wav or .flac"),
    **dict.fromkeys((".pdb", ".mol", ".mol2", ".cif", ".smi"), "molecules something.sdf, .xyz or .npz"),
}  # fmt: skip
OUTPUTS: Mapping[str, Output] = {
    "sounds": Output("sound", (".wav", ".flac"), lambda made: len(made.audios), _in_a_row, _write_sound, _draw_sound),
    "molecules": Output(
        "molecule", (".sdf", ".xyz", ".npz"), lambda made: len(made.molecules.numbers),
        lambda made, which: made.molecules.take(which), _write_molecules, _draw_molecules,
    ),
}  # fmt: skip


def kind_of(file: Path) -> str:
    """What a file of that name holds, by its ending; pictures if no other kind has it."""
    return next((kind for kind, one in OUTPUTS.items() if file.suffix.lower() in one.endings), "pictures")


def check_ending(file: Path) -> None:
    """Raise ValueError for a name whose ending says nothing, or what cannot be written here."""
    from fdiff import images

    kind = kind_of(file)
    if file.suffix.lower() in NOT_WRITTEN:
        raise ValueError(f"{file} ends in {file.suffix}, which is not written; call {NOT_WRITTEN[file.suffix.lower()]}")
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
