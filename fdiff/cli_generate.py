"""What `fdiff generate` does: pictures, a sheet or a folder of them, and an animation."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdiff.cli_options import with_defaults


def generate(arguments: argparse.Namespace) -> list[str]:
    """Make pictures, a sheet or a folder of them, and an animation if asked; returns what was written."""
    from fdiff import images

    arguments = with_defaults(arguments)
    check_options(arguments)
    pipe, params = _load(arguments)
    run = pipe.steps(params, **_call_options(pipe, arguments))
    frames, x = [], run.x
    for state, x0 in _bar(run):
        x = state.x
        if arguments.animate:
            frames.append(images.grid([images.enlarge(image, 32) for image in _decode(pipe, params, x0)]))
    drawn = [images.enlarge(image, 32) for image in _decode(pipe, params, x)]
    if Path(arguments.out).suffix:
        images.save(images.grid(drawn, columns=10 if len(drawn) == 100 else None), arguments.out)
    else:
        images.save_all(drawn, arguments.out)
    if arguments.animate:
        images.save_animation(frames, arguments.animate)
    return [str(path) for path in (arguments.out, arguments.animate) if path]


def check_options(arguments: argparse.Namespace) -> None:
    """Raise ValueError for what can be known to be wrong before a model is loaded, places to write to included."""
    from fdiff import images

    for name, value in vars(arguments).items():
        if value == "":
            raise ValueError(f"--{name} is empty; give it a value or leave it out")
    for name in ("num_images", "steps"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more")
    if not -(2**63) <= arguments.seed < 2**63:
        raise ValueError(f"--seed is {arguments.seed}; it must be a number of 64 bits")
    for name in ("mask", "strength"):
        if getattr(arguments, name) is not None and arguments.image is None:
            raise ValueError(f"--{name} is of no use alone; add --image, the picture to begin from")
    check_sources(arguments)
    sheet, out = bool(Path(arguments.out).suffix), Path(arguments.out)
    if sheet:
        images.picture_format(out)
    _check_place("--out", out, folder=not sheet)
    if arguments.animate:
        animation = Path(arguments.animate)
        if animation.suffix.lower() != ".gif":
            raise ValueError(f"--animate writes a GIF; call {animation} something.gif")
        if animation.resolve() == out.resolve():
            raise ValueError(f"--out and --animate are both {animation}; give them two names")
        _check_place("--animate", animation, folder=False)


def check_sources(arguments: argparse.Namespace) -> None:
    """Raise ValueError or FileNotFoundError for a model and for pictures that are not where they are said to be."""
    from fdiff import hub
    from fdiff.flags import flags

    model = arguments.model
    if model is not None and not Path(model).expanduser().exists():
        if len(model.split()) > 1:
            raise ValueError(f'"{model}" looks like a prompt, and which model is to draw it is missing; say fdiff '
                             f'generate MODEL "{model}"')
        hub.check_name(model)
    for flag, how in flags().items():
        value = getattr(arguments, flag.replace("-", "_"))
        if how.get("metavar") == "FILE" and value is not None and not Path(value).exists():
            raise ValueError(f"--{flag} {value} is not there; check its name")


def _check_place(flag: str, path: Path, folder: bool) -> None:
    """Raise ValueError unless a file, or a folder, can be written there."""
    if path.exists() and path.is_dir() != folder:
        found = "folder" if path.is_dir() else "file"
        raise ValueError(f"{flag} {path} is a {found} already; choose another name")
    above = next(parent for parent in (path if folder else path.parent, *path.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise ValueError(f"{flag} {path} cannot be written ({error.strerror}); choose another place") from None


def _load(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The pipeline asked for, with its scheduler swapped if asked, and its parameters."""
    import fdiff

    source = arguments.model or fdiff.DIGITS
    pipe: Any
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(source, dtype=arguments.dtype)
    if arguments.scheduler:
        pipe = pipe.replace(scheduler=_swapped(arguments.scheduler, pipe.scheduler))
    if arguments.lora:
        params = _with_adapters(params, arguments.lora)
    options = {one.name for one in pipe.steps.task.options}
    if arguments.image and "image" not in options:
        pipe = _sibling(pipe, "mask_image" if arguments.mask else "image")
    return pipe, params


def _swapped(name: str, scheduler: Any) -> Any:
    """The scheduler of that name with the options of the model's own.

    Raises ValueError where one of the two is for networks that were trained on betas and the other is not, or it runs
    from pictures to noise.
    """
    from fdiff.schedulers import named_scheduler

    cls = named_scheduler(name)
    if "Inverse" in cls.__name__:
        raise ValueError(f"--scheduler {cls.__name__} runs from a picture to noise; choose one that draws")
    on_betas = ["beta_start" in {field.name for field in dataclasses.fields(one)} for one in (cls, scheduler)]
    if on_betas[0] != on_betas[1]:
        kinds = [f"{'' if on else 'not '}trained on betas" for on in on_betas]
        raise ValueError(f"--scheduler {cls.__name__} is for networks {kinds[0]}, and the model, which has "
                         f"{type(scheduler).__name__}, was {kinds[1]}; choose one like that")
    return cls.from_config(scheduler)


def _with_adapters(params: Any, files: Sequence[str]) -> Any:
    """The parameters with the LoRAs merged, each given as FILE or FILE:SCALE."""
    from fdiff.adapters import lora

    adapters = []
    for given in files:
        name, _, scale = given.rpartition(":") if not Path(given).exists() and ":" in given else (given, "", "1")
        try:
            number = float(scale)
        except ValueError:
            raise ValueError(f"--lora {given}: the scale is {scale!r}; it must be a number, as in FILE:0.8") from None
        try:
            adapters.append((lora.load(name, params), number))
        except ValueError as error:
            raise ValueError(f"--lora {given}: {error}") from None
    return lora.merge(params, *adapters)[0]


def _sibling(pipe: Any, option: str) -> Any:
    """The pipeline over the same components that takes this option. Raises ValueError where there is none."""
    from fdiff.pipelines.pipeline import find_pipeline

    if option not in pipe.siblings:
        raise ValueError(f"a {type(pipe).__name__} draws from nothing; leave --image out")
    return find_pipeline(pipe.siblings[option], type(pipe).__name__).from_pipe(pipe)


def _call_options(pipe: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of this pipeline's call. Raises ValueError for one that it does not have."""
    import jax

    import fdiff
    from fdiff.flags import flags

    known = {one.flag: one for one in pipe.steps.task.options if one.flag}
    count = arguments.num_images or (100 if arguments.model in (None, fdiff.DIGITS.name) else 1)
    options: dict[str, Any] = {}
    for flag in flags():
        value = getattr(arguments, flag.replace("-", "_"))
        if value is None:
            continue
        if flag not in known:
            raise ValueError(f"--{flag} means nothing to a {type(pipe).__name__}; leave it out")
        options[known[flag].name] = _open(value) if known[flag].kind == "Pictures" else value
    names = {one.name for one in pipe.steps.task.options}
    if arguments.prompt is not None:
        if "prompt" not in names:
            raise ValueError(f"PROMPT means nothing to a {type(pipe).__name__}; leave it out")
        options["prompt"] = arguments.prompt
    for flag, one in known.items():
        if one.kind == "Pictures" and one.name not in options:
            raise ValueError(f"{arguments.model} works on a picture; add --{flag} FILE")
    if "prompt" in names and not arguments.prompt:
        raise ValueError(f"{arguments.model} draws what a text says; add a PROMPT in quotes after it")
    if "class_labels" in names:
        asked = options.get("class_labels")
        classes = asked.split(",") if asked else list(range(pipe.unet.num_class_embeds - 1))
        options["class_labels"] = [classes[i % len(classes)] for i in range(count)]
    else:
        options[known["num-images"].name] = count
    if arguments.torch_seed is None:
        options["key"] = jax.random.key(arguments.seed)
    return options


def _open(file: str) -> Any:
    """A picture. Raises ValueError for a file that is none."""
    from PIL import Image, ImageOps

    try:
        picture = Image.open(file)
        picture.load()
        return ImageOps.exif_transpose(picture)  # as every viewer turns it
    except FileNotFoundError:
        raise ValueError(f"{file} is not there; check its name") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{file} is too large a picture; make it smaller") from None
    except OSError:  # also that of Pillow, for what it does not know or finds cut short
        raise ValueError(f"{file} is not a picture, or is damaged; give a .png or .jpg") from None


def _decode(pipe: Any, params: Any, x: Any) -> list[Any]:
    """PIL images of what the sampler carries, which some pipelines keep in a latent space."""
    from fdiff import images

    return images.to_pil(pipe.decode(params, x) if hasattr(pipe, "decode") else x)


def _bar(run: Any) -> Any:
    from fdiff.bars import bar

    return bar(run, unit="step", desc="denoising")
