"""What `fdiff train` does: settings from flags and a .toml file, and a training behind a bar."""

from __future__ import annotations

import argparse
import contextlib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fdiff.cli.flags import TYPES, tasks

PLACES = ("data", "output")


def train(arguments: argparse.Namespace) -> str:
    """Train; returns where the model was written."""
    settings = tasks()[arguments.task]["settings"]
    given = _from_file(Path(arguments.config), settings) if arguments.config else {}
    given |= {name: value for name, value in vars(arguments).items()
              if name in (*PLACES, *settings) and value is not None}  # fmt: skip
    places = {name: given.pop(name, None) for name in PLACES}
    for name, place in places.items():
        if not place:
            raise ValueError(f"--{name} is missing; give it, or {name} in --config FILE.toml")
    for name in settings:
        if "default" not in settings[name] and name not in given:
            raise ValueError(f"--{name.replace('_', '-')} is missing: {settings[name]['help']}")
    from fdiff.training import data, loop
    from fdiff.training.tasks import TASKS

    task = TASKS[arguments.task]
    told, source = task.settings(**given), data.find(Path(places["data"]).expanduser())
    output = Path(places["output"]).expanduser()
    with _bar(told.steps) as report:
        loop.train(task, told, source, output, resume=arguments.resume, report=report)
    return str(output)


def _from_file(file: Path, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The options of a .toml file, by their names with dashes or underscores.

    Raises ValueError for a name that the task does not have, and for a value of another type.
    """
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {file} is no TOML ({error}); correct it") from None
    types: dict[str, Any] = {name: TYPES[one["type"]] for name, one in settings.items()} | dict.fromkeys(PLACES, str)
    found = {}
    for key, value in said.items():
        name = key.replace("-", "_")
        if name not in types:
            raise ValueError(f"{file} has an option {key} that this task has not; --help lists those it has")
        kind = types[name]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{key} in {file} is {value!r}; make it {kind.__name__}")
        found[name] = kind(value)
    return found


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A bar with the loss and the pictures a second, and what is told of each step; the first one compiles."""
    from fdiff import bars

    with bars.bar(total=total, unit="step", desc="compiling") as bar:
        began = False

        def report(after: Any) -> None:
            nonlocal began
            if not began:
                began = True
                bar.set_description_str("training", refresh=False)
                bar.reset()
                bar.initial = bar.n = bar.last_print_n = after.step
                bar.refresh()
            else:
                bar.update(after.step - bar.n)
            bar.set_postfix_str(f"loss {after.metrics['loss']:.4f}, {after.metrics['images_per_second']:.0f} images/s",
                                refresh=False)

        yield report
