"""A training from its data to a Hub folder: steps, checkpoints, metrics, samples and the end."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.tree_util import Partial

from fdiff import hub, images, keys, sharding
from fdiff.training import snapshots
from fdiff.training import step as steps
from fdiff.training.averages import Decay, post_hoc, power, warmed
from fdiff.training.checkpoints import Checkpoints
from fdiff.training.data import Source
from fdiff.training.events import Events
from fdiff.training.folder import (
    AVERAGES,
    CHECKPOINTS,
    CURVE,
    EVENTS,
    METRICS,
    SAMPLES,
    check_folder,
    write_settings,
)
from fdiff.training.loader import Batch, Part, batches
from fdiff.training.recipe import Recipe, Settings, Task, fixed

STEPS = 2**32 - 1  # the number of the steps' key, beyond that of any picture


class Stopped(Exception):
    """A training that was asked to stop, with its last step saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}, which is saved")
        self.step = step


class Report(NamedTuple):
    """What is known after a step: its number, and its metrics, "images_per_second" among them."""

    step: int
    metrics: dict[str, float]


def train(
    task: Task, settings: Settings, source: Source | None, output: str | Path, *, resume: bool = False,
    report: Callable[[Report], None] | None = None, stop: Callable[[], bool] | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """(pipeline, params) of the averaged parameters, which also stand in `output` as a Hub folder.

    Beside them are settings.toml; metrics.jsonl, a line a step; loss.png; sheets of samples; and the last checkpoints,
    from which `resume` goes on as if nothing had happened, bit for bit on the same machine and number of devices.

    Args:
        task: one of `fdiff.training.tasks.TASKS`.
        settings: of the task's own class.
        source: see `fdiff.training.data.find`; None for a task that takes no data.
        output: the folder; without `resume` it must not hold a training yet.
        resume: go on from the last checkpoint there.
        report: told of each step as soon as its loss is known.
        stop: asked after each step; where it says so, in any of several processes, the step is saved and Stopped is
            raised in all of them.

    Raises ValueError for settings or data that do not fit, a folder with a training, or a loss that is no number, and
    OSError where nothing more can be written; what was saved before is good then.
    """
    sharding.join(settings.distributed)
    mesh = sharding.mesh(settings.devices)
    if settings.batch_size // settings.accumulate % mesh.size:
        raise ValueError(f"batch_size {settings.batch_size} in accumulate {settings.accumulate} parts does not divide "
                         f"over {mesh.size} devices; choose a multiple of {mesh.size * settings.accumulate}")
    folder, told = Path(output), dataclasses.asdict(settings)
    check_folder(folder, told, fixed(type(settings)), resume)
    recipe, optimizer = task.recipe(settings, source, folder), settings.optimizer()
    begin = partial(steps.init, optimizer=optimizer, averages=len(_decays(settings)))
    laid = sharding.shardings(jax.eval_shape(begin, recipe.params), sharding.TABLES[settings.shard], mesh)
    state = jax.jit(begin, out_shardings=laid)(sharding.place(recipe.params, laid.params))
    first = jax.process_index() == 0  # the others leave the folder alone, but for their part of the checkpoints
    multihost_utils.sync_global_devices("begun")  # only now does that one write there
    with _room(folder), contextlib.closing(Checkpoints(folder / CHECKPOINTS, settings.keep)) as checkpoints:
        taken = 0
        if resume and checkpoints.latest() is not None:  # else it was ended before anything was saved
            state, facts = checkpoints.restore(state)
            taken = facts["taken"]
        if first:
            write_settings(folder, told)
            _cut(folder / METRICS, int(state.done))
        material = recipe.source or source
        assert material is not None
        stream = batches(material, recipe.prepare, settings.batch_size, seed=settings.seed, taken=taken,
                         workers=settings.workers, shapes=recipe.shapes,
                         part=Part(jax.process_index(), jax.process_count()))
        events = Events(folder / EVENTS, int(state.done)) if settings.tensorboard and first else None
        with contextlib.closing(events) if events else contextlib.nullcontext():
            state = _run(recipe, settings, optimizer, state, laid, stream, folder, checkpoints, report, stop, events)
    average = sharding.to_host(state.average, mesh)
    if settings.average is not None:
        multihost_utils.sync_global_devices("averages are written")
        average = post_hoc(snapshots.read(folder / AVERAGES, settings.steps, average), settings.average)
    pipe, params = recipe.pipeline(average)
    if not first:
        return pipe, params
    with _room(folder):
        pipe.save_pretrained(folder, params)
        if recipe.beside is not None:
            recipe.beside(folder, average)
        images.save(curve(folder / METRICS), folder / CURVE)
    return pipe, params


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Say what is to be done where the system has no room, or lets nobody write."""
    try:
        yield
    except Exception as error:
        found = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore says it, which writes for Orbax
        number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise
        raise OSError(f"{folder} cannot be written ({os.strerror(number)}); make room there, and go on from the last "
                      "checkpoint, which is good, with --resume") from error


def _run(
    recipe: Recipe, settings: Settings, optimizer: Any, state: Any, laid: Any, stream: Iterator[Batch], folder: Path,
    checkpoints: Checkpoints, report: Callable[[Report], None] | None, stop: Callable[[], bool] | None,
    events: Events | None,
) -> Any:  # fmt: skip
    """The steps that are left. What a step gave is looked at while the next one runs; `laid` is how the state lies."""
    step = partial(
        steps.train_step, optimizer=optimizer, decays=_decays(settings), accumulate=settings.accumulate,
        clip=settings.clip, dtype=None if settings.dtype == "float32" else settings.dtype, remat=settings.remat,
        averaged=recipe.averaged,
    )  # fmt: skip
    advance, mesh = jax.jit(step, donate_argnums=0, out_shardings=(laid, None)), laid.done.mesh
    loss = recipe.loss if isinstance(recipe.loss, Partial) else Partial(recipe.loss)
    loss = sharding.place(loss, sharding.shardings(loss, sharding.TABLES[settings.shard], mesh))
    if settings.shard == "full":
        loss = Partial(partial(_of_all, mesh), loss)
    # apart from the key of the sheets, whose picture i draws from fold_in(key, i), since split does what fold_in does
    key, every = keys.fold_in(jax.random.key(settings.seed), STEPS), settings.sample_every
    every = max(1, settings.steps // 10) if every is None else every
    began = int(state.done)
    first = jax.process_index() == 0
    watch = _Watch(folder / METRICS if first else None, settings.batch_size, report if first else None, events)
    for i, batch in zip(range(began, settings.steps), stream, strict=False):
        arrays = sharding.place_batch(recipe.collate(batch.arrays), mesh)
        state, metrics = advance(state, arrays, keys.fold_in(key, i), loss=loss)
        watch.see(i + 1, metrics, batch.taken)
        last, asked = i + 1 == settings.steps, _any(stop is not None and stop())
        if (i + 1) % settings.save_every == 0 or last or asked:
            watch.flush()  # so that what is saved is known to be good
            checkpoints.save(i + 1, state, {"taken": batch.taken})
        if settings.keep_averages and ((i + 1) % settings.keep_averages == 0 or last):
            more = sharding.to_host(state.averages[1:], mesh)
            if first:
                snapshots.write(folder / AVERAGES, i + 1, more)
        if asked and not last:
            raise Stopped(i + 1)
        if every and ((i + 1) % every == 0 or last):
            watch.flush()
            average = sharding.to_host(state.average, mesh)
            if first:
                sheet = _sheet(recipe, average, settings, folder / SAMPLES / f"{i + 1:06d}.png")
                if events is not None:
                    events.picture(i + 1, sheet)
            watch.pause()
    watch.flush()
    return state


def _decays(settings: Settings) -> tuple[Decay, ...]:
    """Of the averages that are carried, the first of which is that which is drawn from."""
    more = snapshots.WIDTHS if settings.keep_averages else ()
    return warmed(settings.decay), *(power(width) for width in more)


def _any(asked: bool) -> bool:
    """Whether any process was asked to stop, so that all stop after the same step."""
    return asked if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(asked)).any())


def _of_all(mesh: Any, loss: Any, params: Any, batch: Any, key: jax.Array, *averages: Any) -> Any:
    """The loss of parameters that devices share, each of which needs them all for its samples."""
    loss, params, averages = sharding.gathered((loss, params, averages), mesh)
    return loss(params, batch, key, *averages)


class _Watch:
    """Writes what steps gave, one late, so that the device need not wait, and stops at what is no number."""

    def __init__(
        self, file: Path | None, batch_size: int, report: Callable[[Report], None] | None,
        events: Events | None,
    ) -> None:
        self.file, self.batch_size, self.report, self.events = file, batch_size, report, events
        self.last: tuple[int, Any, int] | None = None
        self.since = time.perf_counter()

    def see(self, step: int, metrics: Any, taken: int) -> None:
        """What a step that has begun will give; that of the one before is written."""
        self.flush()
        self.last = step, metrics, taken

    def flush(self) -> None:
        """Write what is known of the last step, once it is."""
        if self.last is None:
            return
        step, metrics, taken = self.last
        self.last = None
        known = {name: float(value) for name, value in metrics.items()}
        if not np.isfinite([known["loss"], known["gradient_norm"]]).all():
            raise ValueError(
                f"the loss is not a number in step {step} (samples {taken - self.batch_size} to {taken} of the order); "
                "the last checkpoint is good: go on from it with --resume and a lower --learning-rate"
            )
        now = time.perf_counter()
        known["images_per_second"] = self.batch_size / max(now - self.since, 1e-9)
        self.since = now
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **known}) + "\n")
        if self.events is not None:
            self.events.numbers(step, known)
        if self.report is not None:
            self.report(Report(step, known))

    def pause(self) -> None:
        """What happened since is not the next step's time."""
        self.since = time.perf_counter()


def _sheet(recipe: Recipe, average: Any, settings: Settings, file: Path) -> Any:
    pipe, params = recipe.pipeline(average)
    drawn = recipe.draw(pipe, params, jax.random.key(settings.seed), settings.samples)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet = images.grid([images.enlarge(image, 32) for image in drawn])
    images.save(sheet, file)
    return sheet


def _cut(file: Path, done: int) -> None:
    """Leave the lines of the first `done` steps alone: those after them are done again."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept = [line for line in lines[:done] if line.endswith("}")]
    with hub.replacing(file) as part:
        part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def curve(file: Path, size: tuple[int, int] = (800, 400)) -> Any:
    """The losses of a metrics.jsonl as a picture: each step's, and their running mean, on a logarithmic scale."""
    from PIL import Image, ImageDraw

    losses = np.array([json.loads(line)["loss"] for line in file.read_text(encoding="utf-8").splitlines()])
    (width, height), (left, top, right, bottom) = size, (60, 20, 20, 40)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    heights = np.log10(np.maximum(losses, 1e-12))
    low, high = float(heights.min()), float(heights.max())
    span = max(high - low, 1e-3)

    def places(values: np.ndarray) -> list[tuple[float, float]]:
        x = left + np.linspace(0, 1, len(values)) * (width - left - right)
        y = top + (high - values) / span * (height - top - bottom)
        return list(zip(x.tolist(), y.tolist(), strict=True))

    window = max(1, len(losses) // 50)
    mean = np.convolve(np.pad(losses, (window - 1, 0), mode="edge"), np.full(window, 1 / window), mode="valid")
    for values, colour, thick in ((heights, "#c8d4ea", 1), (np.log10(np.maximum(mean, 1e-12)), "#1f4e9c", 2)):
        points = places(values)
        draw.line(points if len(points) > 1 else points * 2, fill=colour, width=thick)
    for share in (0.0, 0.5, 1.0):
        y = top + share * (height - top - bottom)
        draw.text((6, y - 6), f"{10 ** (high - share * span):.3g}", fill="black")
    draw.text((left, height - 24), "loss of steps 1", fill="black")
    draw.text((width - right - 60, height - 24), f"to {len(losses)}", fill="black")
    return sheet
