"""What `fdiff generate` does: pictures, a sheet or a folder of them, and an animation; or sounds, see `outputs`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fdiff.cli import memory, recall, remember, sources
from fdiff.cli.checks import check_options, preview_file
from fdiff.cli.options import with_defaults
from fdiff.cli.pictures import open_picture

LEAST = 64  # pixels of a side of what is written: smaller pictures are magnified, their pixels kept sharp


def generate(arguments: argparse.Namespace) -> list[str]:
    """Make pictures, a sheet or a folder of them, or what the model makes; returns what was written."""
    arguments, number = recall.recalled(arguments)
    arguments = with_defaults(arguments)
    check_options(arguments)
    from fdiff import images, save_plan
    from fdiff.cli import outputs

    arguments = remember.pinned(arguments)
    memory.check(arguments)
    pipe, params, options = sources.load(arguments)
    arguments = outputs.suited(pipe, arguments)
    options |= _call_options(pipe, arguments)
    run = pipe.steps(params, **options)
    plan, finish, steps = run.plan, run.finish(), iter(run)  # finish checks what it needs
    del run  # so that the network goes with the last step, where nothing else keeps it
    told = remember.Told(arguments, pipe, options, plan, (0, 0), remember.hashes(arguments))
    if Path(arguments.out).suffix and pipe.makes == "pictures":
        images.text_options(arguments.out, told.text(number))  # which may be too long
    labels = [str(label) for label in options.get("class_labels", ())]
    made, frames = _drawn(pipe, params, steps, finish, len(plan), arguments, labels)
    if pipe.makes == "pictures":
        _write(made.images, frames, dataclasses.replace(told, size=made.images[0].size), number, labels)
        written = [arguments.out]
    else:
        written = outputs.write(pipe.makes, made, Path(arguments.out), told.text)
    if arguments.save_plan:
        save_plan(arguments.save_plan, plan)
    return [str(path) for path in (*written, arguments.animate, arguments.save_plan) if path]


def _drawn(
    pipe: Any, params: Any, steps: Iterator[Any], finish: Callable[[Any], Any], count: int,
    arguments: argparse.Namespace, labels: list[str],
) -> tuple[Any, list[Any]]:  # fmt: skip
    """What the pipeline returns, and the frames of the animation if there is to be one, or previews."""
    from fdiff import images
    from fdiff.pipelines.in_turn import give_back

    frames: list[Any] = []
    with _preview(arguments) as preview, _bar(count) as bar:
        for i, (state, x0) in enumerate(steps):
            x = state.x.block_until_ready()  # or the bar would count steps that have only been asked for
            bar(i)
            shown = preview is not None and (i + 1) % arguments.preview == 0
            if arguments.animate or shown:
                sheet = _sheet(_decode(pipe, params, x0), labels)
                frames.append(sheet)
                if preview is not None and shown:
                    images.save(sheet, preview)
        give_back()
        return finish(x), frames


def _write(pictures: list[Any], frames: list[Any], told: Any, number: int | None, labels: list[str]) -> None:
    """Write what was drawn, each file with how that was done; of pictures of a folder only that of the number."""
    from fdiff import images

    arguments = told.arguments
    numbers = range(len(pictures)) if number is None else [number]
    if not Path(arguments.out).suffix:
        alone = [images.enlarge(pictures[i], LEAST) for i in numbers]
        images.save_all(alone, arguments.out, [told.text(i) for i in numbers])
    else:
        sheet = _sheet([pictures[i] for i in numbers], [labels[i] for i in numbers if labels])
        images.save(sheet, arguments.out, told.text(number))
    if arguments.animate:
        images.save_animation(frames, arguments.animate, text=told.text(number))


@contextlib.contextmanager
def _preview(arguments: argparse.Namespace) -> Iterator[Path | None]:
    """Where previews are written, beside --out, until the run ends."""
    if arguments.preview is None:
        yield None
        return
    file = preview_file(arguments.out)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A bar, and what is called after each step; the first one compiles, and what is left is told without it."""
    from fdiff import bars

    with bars.bar(total=total, unit="step", desc="compiling") as bar:

        def done(i: int) -> None:
            if i == 0:
                bar.set_description_str("denoising", refresh=False)
                bar.reset()
                bar.initial = bar.n = bar.last_print_n = 1
                bar.refresh()
            else:
                bar.update()
            if i == total - 1:
                bar.set_description_str("decoding")

        yield done


def _call_options(pipe: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of this pipeline's call. Raises ValueError for one that it does not have."""
    import jax

    from fdiff import load_plan
    from fdiff.cli.flags import flags
    from fdiff.cli.sources import count_of

    known = {_flag(pipe, one): one for one in pipe.steps.task.options if one.flag}
    count = count_of(arguments)
    options: dict[str, Any] = {}
    for name in flags():
        value = getattr(arguments, name.replace("-", "_"))
        if value is None:
            continue
        if name not in known:
            cure = "add --controlnet MODEL" if name == "control-image" else "leave it out"
            raise ValueError(f"--{name} means nothing to a {type(pipe).__name__}; {cure}")
        options[known[name].name] = OPENED.get(known[name].kind, lambda given: given)(value)
    names = {one.name for one in pipe.steps.task.options}
    prompt = arguments.prompt or arguments.prompt_text
    if prompt is not None:
        if "prompt" not in names:
            raise ValueError(f"PROMPT means nothing to a {type(pipe).__name__}; leave it out")
        options["prompt"] = prompt
    for name, one in known.items():
        if one.kind == "Pictures" and one.name not in options:
            raise ValueError(f"{arguments.model} works on a picture; add --{name} FILE")
    if "prompt" in names and not prompt:
        raise ValueError(f"{arguments.model} draws what a text says; add a PROMPT in quotes after it")
    if "class_labels" in names:
        asked = options.get("class_labels")
        classes = asked.split(",") if asked else list(range(pipe.classes))
        options["class_labels"] = [classes[i % len(classes)] for i in range(count)]
    else:
        options[known["num-images"].name] = count
    if arguments.ip_adapter_image:
        options["ip_adapter_image"] = open_picture(arguments.ip_adapter_image)
    if arguments.plan:
        options["plan"] = load_plan(arguments.plan)
    if arguments.torch_seed is None:
        options["key"] = jax.random.key(arguments.seed)
    return options


def _open_molecules(file: str) -> Any:
    from fdiff import molecules

    return molecules.read(file)


def _cache(text: str) -> Any:
    from fdiff import caching

    return caching.named(text)


def _properties(text: str) -> Any:
    pairs = [one.partition("=") for one in text.split(",")]
    with contextlib.suppress(ValueError):
        found = {name.strip(): float(number) for name, _, number in pairs}
        if all(map(math.isfinite, found.values())):
            return found
    raise ValueError(f"--properties is {text!r}; give names and numbers, such as gap=0.25,alpha=75")


# How an option whose value is a file, or a word for something, is read, by its type as the request writes it.
OPENED: Mapping[str, Callable[[str], Any]] = {
    "Pictures": open_picture, "References": open_picture, "Molecules | None": _open_molecules, "Cache | None": _cache,
    "Properties": _properties,
}  # fmt: skip


def _flag(pipe: Any, one: Any) -> str:
    """The flag of an option of this pipeline."""
    from fdiff.cli.sources import option_of

    return "control-image" if option_of(pipe, one.name) != one.name else one.flag


def _sheet(pictures: list[Any], labels: list[str]) -> Any:
    """All pictures in one, large enough to look at, with a gap, and of several each one's label below it, if any."""
    from fdiff import images

    large = [images.enlarge(picture, LEAST) for picture in pictures]
    return images.grid(large, columns=10 if len(large) in (sources.SHEET, 100) else None, gap=4,
                       labels=labels if len(large) > 1 and labels else None)


def _decode(pipe: Any, params: Any, x: Any) -> list[Any]:
    """PIL images of what the sampler carries, which some pipelines keep in a latent space."""
    from fdiff import images

    return images.to_pil(pipe.decode(params, x) if hasattr(pipe, "decode") else x)
