"""Whether what `fdiff generate` is asked for fits into memory, before weights are loaded."""

from __future__ import annotations

import argparse
from typing import Any


def check(arguments: argparse.Namespace) -> None:
    """Raise ValueError, with what helps, where a model seems not to fit; where anything is unknown it may go on."""
    from fdiff import manifest, memory
    from fdiff.cli.sources import count_of
    from fdiff.pipelines.class_conditional import DEFAULT

    if arguments.any_memory:
        return
    try:
        found = manifest.read(
            arguments.model or DEFAULT, revision=arguments.revision, variant=arguments.variant, config=arguments.config,
            download=False,
        )  # fmt: skip
        parts = [*found.parts, *_added(arguments)]
    except ConnectionError:  # one file on the Hub, of which nothing is here
        return
    free = memory.available()
    how: dict[str, Any] = {"dtype": arguments.dtype, "size": _size(arguments), "count": count_of(arguments),
                           "guided": arguments.guidance_scale is None or arguments.guidance_scale > 1,
                           "quantize": arguments.quantize, "in_turn": bool(arguments.low_memory),
                           "streamed": bool(arguments.streamed)}  # fmt: skip
    need = memory.estimate(parts, **how)
    if free is None or need.total <= free:
        return
    cures = [
        cure for cure, other in (
            ("--dtype bfloat16", {"dtype": "bfloat16"} if arguments.dtype == "float32" else {}),
            ("--quantize int8", {"quantize": "int8"} if arguments.quantize is None else {}),
            ("--low-memory", {"in_turn": True}), ("--streamed", {"streamed": True}),
            ("fewer --num-images", {"count": 1}),
            ("a smaller --height and --width", {"size": (64, 64)}),
        ) if memory.estimate(parts, **{**how, **other}).total < need.total
    ]  # fmt: skip
    raise ValueError(
        f"{arguments.model or 'this'} needs about {memory.gigabytes(need.total)}, {memory.gigabytes(need.parameters)} "
        f"of it for parameters, and {memory.gigabytes(free)} are free; take {' or '.join(cures) or 'another machine'}, "
        "or go on with --any-memory"
    )


def _added(arguments: argparse.Namespace) -> list[Any]:
    from fdiff import manifest

    nets = [name for name in ("controlnet", "image_encoder") if getattr(arguments, name)]
    return [part._replace(name=name) for name in nets
            for part in manifest.read(getattr(arguments, name), download=False).parts]  # fmt: skip


def _size(arguments: argparse.Namespace) -> tuple[int | None, int | None]:
    """The height and width that are asked for, or are those of the picture to begin from."""
    size = (arguments.height, arguments.width)
    picture = arguments.image or arguments.control_image
    if size != (None, None) or picture is None:
        return size
    from PIL import Image

    from fdiff.cli.pictures import opening

    with opening(picture), Image.open(picture) as found:
        return found.height, found.width
