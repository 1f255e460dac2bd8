"""What `fdiff train` does: settings from flags, a .toml file and the folder, and a training behind a bar."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import util
from pathlib import Path
from typing import Any

from fdiff.cli.checks import check_place
from fdiff.cli.flags import TYPES, tasks
from fdiff.cli.process import keep_memory
from fdiff.limits import Limits
from fdiff.training import folder as folders

PLACES = ("data", "output")
Kept = Mapping[str, Mapping[str, Any]]


def train(arguments: argparse.Namespace) -> str:
    """Train, after a look at all that can be known to be wrong; returns where the model was written."""
    settings = tasks()[arguments.task]["settings"]
    given = _given(arguments, settings, tasks()[arguments.task]["data"])
    data, output = given.pop("data", None), Path(given.pop("output")).expanduser()
    check_place("--output", output, folder=True)
    if arguments.resume:
        given = {**folders.read_settings(output), **given}
    for name, one in settings.items():
        if name in given:
            Limits(**one.get("limits", {})).check(name, given[name])
        elif "default" not in one:
            raise ValueError(f"--{name.replace('_', '-')} is missing: {one['help']}")
    told = {name: one.get("default") for name, one in settings.items()} | given
    fixed = [name for name, one in settings.items() if "fixed" in one]
    folders.check_folder(output, told, fixed, arguments.resume)
    for name in ("grain", "orbax"):
        if util.find_spec(name) is None:
            raise ValueError(f'training needs {name}; install it with pip install "fdiff-jax[train]"')
    from fdiff.training import data as sources

    source = sources.find(Path(data).expanduser()) if data else None
    from fdiff.training import loop
    from fdiff.training.tasks import TASKS

    task = TASKS[arguments.task]
    keep_memory()
    with _asked_to_stop() as asked, _bar(told["steps"]) as report:
        try:
            loop.train(task, task.settings(**given), source, output, resume=arguments.resume, report=report,
                       stop=lambda: bool(asked))
        except loop.Stopped as stopped:
            place = f"--data {shlex.quote(data)} " if data else ""
            again = f"fdiff train {arguments.task} {place}--output {shlex.quote(str(output))}"
            raise KeyboardInterrupt(asked[0], f"{stopped}; {again} --resume goes on with it") from None
    return str(output)


def _given(arguments: argparse.Namespace, settings: Kept, takes_data: bool) -> dict[str, Any]:
    """What the flags say, and what --config says beside them.

    Raises ValueError where a place is missing, and for data that the task does not take.
    """
    given = _from_file(Path(arguments.config).expanduser(), settings) if arguments.config else {}
    given |= {name: value for name, value in vars(arguments).items()
              if name in (*PLACES, *settings) and value is not None}  # fmt: skip
    if given.get("data") and not takes_data:
        raise ValueError(f"--data means nothing to {arguments.task}; leave it out")
    for name in PLACES if takes_data else ("output",):
        if not given.get(name):
            raise ValueError(f"--{name} is missing; give it, or {name} in --config FILE.toml")
    return given


def _from_file(file: Path, settings: Kept) -> dict[str, Any]:
    """The options of a .toml file, by their names with dashes or underscores.

    Raises ValueError for a name that the task does not have, and for a value of another type or out of range.
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
            raise ValueError(f"{file} has an option {key}, which this task has not; --help lists those it has")
        kind = types[name]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{key} in {file} is {value!r}; make it {kind.__name__}")
        Limits(**settings.get(name, {}).get("limits", {})).check(f"{key} in {file}", value)
        found[name] = kind(value)
    return found


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that gets the number of the first SIGINT or SIGTERM, so that a step may end; the second one interrupts."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt(number, "nothing was saved since the last checkpoint, from which --resume goes on")
        asked.append(number)
        print("\nstopping after this step, which is saved; once more stops at once", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[Any], None]]:
    """A bar with the loss and the samples a second, and what is told of each step; the first one compiles."""
    from fdiff import bars

    with bars.bar(total=total, unit="step", desc="compiling") as bar:
        began = False

        def report(after: Any) -> None:
            nonlocal began
            if began:
                bar.update(after.step - bar.n)
            else:  # what is left is told without the time that this step took to compile
                began = True
                bar.set_description_str("training", refresh=False)
                bar.reset()
                bar.initial = bar.n = bar.last_print_n = after.step
                bar.refresh()
            loss, speed = after.metrics["loss"], after.metrics["images_per_second"]
            bar.set_postfix_str(f"loss {loss:.4f}, {speed:.0f} images/s", refresh=False)

        yield report
