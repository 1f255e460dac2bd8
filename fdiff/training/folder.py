"""The folder of a training: what stands where, and the settings that it was begun with."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fdiff import hub

SETTINGS, METRICS, CURVE = "settings.toml", "metrics.jsonl", "loss.png"
CHECKPOINTS, SAMPLES, EVENTS, AVERAGES = "checkpoints", "samples", "tensorboard", "averages"


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keep the settings; those that are None are left out, as TOML has no word for it."""
    said = {name: value for name, value in settings.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    with hub.replacing(folder / SETTINGS) as part:  # numbers, words and truths are in TOML what they are in JSON
        part.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in said.items()), encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a training, as they are in its folder; none where there is no training.

    Raises ValueError for a file that is damaged.
    """
    try:
        return tomllib.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / SETTINGS} is no TOML ({error}); correct it") from None


def check_folder(folder: Path, settings: Mapping[str, Any], fixed: Collection[str], resume: bool) -> None:
    """Raise ValueError for a folder that holds a training unless it is resumed, and for one without if it is.

    And where one that is resumed was begun with other settings than these, of those that are `fixed`, or with others
    than there are, which is a training of another task.
    """
    begun = read_settings(folder)
    if not resume and begun:
        raise ValueError(f"{folder} holds a training already; give --resume to go on with it, or another folder")
    if not resume:
        return
    if not begun:
        raise ValueError(f"{folder} holds no training to resume; leave --resume out to begin one")
    for name in sorted(begun.keys() - settings.keys()):
        raise ValueError(f"{folder} holds a training of another task, which has {name}; resume it as that")
    for name in sorted(fixed):
        if begun.get(name) != settings[name]:
            raise ValueError(f"{name} is {settings[name]!r}, and the training in {folder} was begun with "
                             f"{begun.get(name, 'none')!r}; resume with that, or begin in another folder")
