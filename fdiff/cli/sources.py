"""Where `fdiff generate` takes a model and what is added to it from."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ENCODER = "image_encoder"
NETWORKS = ("transformer", "unet")  # beside which a LoRA can run
SHEET = 40  # pictures of the model that ships where no number is given, ten in a row


class Given(NamedTuple):
    """FILE:SUFFIX of an option, such as a LoRA and its scale; the suffix is None if not given."""

    source: str
    suffix: str | None


def given(text: str) -> Given:
    """The source and what follows its last colon, which no name of a file that is there has, and no address."""
    source, colon, suffix = text.rpartition(":")
    if Path(text).exists() or not colon or re.search(r"[/\\]", suffix):
        return Given(text, None)
    return Given(source, suffix)


def scaled(flag: str, text: str) -> tuple[str, float]:
    """The source of FILE or FILE:SCALE and its scale. Raises ValueError for a scale that is no number."""
    source, scale = given(text)
    try:
        number = 1.0 if scale is None else float(scale)
        if not math.isfinite(number):
            raise ValueError
        return source, number
    except ValueError:
        raise ValueError(f"--{flag} {text}: the scale is {scale!r}; it must be a number, as in FILE:0.8") from None


def adapter_place(source: str) -> dict[str, Any]:
    """The arguments of the adapters' `load` for a file, a folder, a Hub id, or a file of the Hub, owner/name/path."""
    from fdiff.sources import ENDINGS, ON_HUB

    match = ON_HUB.fullmatch(source)
    if Path(source).exists() or match is None or Path(source).suffix not in ENDINGS:
        return {"source": source}
    return {"source": match["repository"], "weight_name": match["file"], "subfolder": None,
            "revision": match["revision"]}  # fmt: skip


def is_default(model: str | None) -> bool:
    """Whether these are the digits that fdiff draws where no model is named, named or not."""
    from fdiff.pipelines.class_conditional import DEFAULT

    return model is None or (model == DEFAULT.name and not Path(model).exists())


def count_of(arguments: argparse.Namespace) -> int:
    """How many pictures are to be drawn."""
    return arguments.num_images or (SHEET if is_default(arguments.model) else 1)


def adapter_file(name: str, text: str) -> Path:
    """The file of an adapter, as the option of that name gives it, downloaded if need be."""
    from fdiff import hub
    from fdiff.adapters import files, ip_adapter, lora, textual_inversion

    modules: dict[str, Any] = {"lora": lora, "textual_inversion": textual_inversion, "ip_adapter": ip_adapter}
    place = adapter_place(given(text).source)
    subfolder = place.get("subfolder", "models" if name == "ip_adapter" else None)
    source = hub.Source(place["source"], subfolder, place.get("revision"))
    return files.find(source, place.get("weight_name"), modules[name].NAMES)


def load(arguments: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """The pipeline asked for, with its scheduler swapped and everything added to it, its parameters, and options of its
    call that come with what is added.
    """
    pipe, params = _model(arguments)
    if arguments.scheduler:
        pipe = pipe.replace(scheduler=_swapped(arguments.scheduler, pipe.scheduler))
    options: dict[str, Any] = {}
    if arguments.lora:
        params = _with_loras(pipe, params, arguments.lora)
    for one in arguments.textual_inversion:
        pipe, params = _with_word(pipe, params, one)
    if arguments.ip_adapter:
        pipe, params, options = _with_ip_adapter(pipe, params, arguments)
    if arguments.controlnet:
        pipe, params = _with_controlnet(pipe, params, arguments)
    wanted = "mask_image" if arguments.mask else "image" if arguments.image else None
    if wanted is not None and wanted not in {option_of(pipe, one.name) for one in pipe.steps.task.options}:
        pipe = _sibling(pipe, wanted)
    return pipe, params, options


def option_of(pipe: Any, name: str) -> str:
    """What the command line means by an option of a pipeline of that name: the `image` of one that ControlNets steer
    is control_image, unless it has that as well.
    """
    steered = name == "image" and hasattr(pipe, "controlnet")
    names = {one.name for one in pipe.steps.task.options} if steered else {"control_image"}
    return name if "control_image" in names else "control_image"


def _model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    import fdiff
    from fdiff.pipelines.class_conditional import DEFAULT
    from fdiff.sources import is_single_file

    source = arguments.model or DEFAULT
    if not is_single_file(source):
        return fdiff.DiffusionPipeline.from_pretrained(
            source, revision=arguments.revision, variant=arguments.variant, dtype=arguments.dtype,
            quantize=arguments.quantize, in_turn=bool(arguments.low_memory),
            streamed=bool(arguments.streamed),
        )
    return fdiff.DiffusionPipeline.from_single_file(
        source, tokenizer=arguments.tokenizer, config=arguments.config, dtype=arguments.dtype,
        quantize=arguments.quantize, in_turn=bool(arguments.low_memory), streamed=bool(arguments.streamed),
    )


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


def _with_loras(pipe: Any, params: Any, files: Sequence[str]) -> Any:
    """The parameters with the LoRAs, each given as FILE or FILE:SCALE: merged, or beside a network that is quantised or
    of a model whose parts are in memory in turn.
    """
    from convert.quantized import holds_quantized
    from fdiff.adapters import lora
    from fdiff.pipelines.in_turn import InTurn

    in_turn = isinstance(params, InTurn)
    shapes = {name: getattr(pipe, name).shapes() for name in params} if in_turn else params
    adapters = []
    for one in files:
        source, scale = scaled("lora", one)
        try:
            adapters.append((lora.load(**adapter_place(source), params=shapes), scale))
        except ValueError as error:
            raise ValueError(f"--lora {one}: {error}") from None
    if not in_turn and not any(holds_quantized(params.get(name)) for name in NETWORKS):
        return lora.merge(params, *adapters)[0]

    def parts(network: bool) -> list[Any]:
        chosen = [({name: one for name, one in adapter.items() if (name in NETWORKS) == network}, scale)
                  for adapter, scale in adapters]  # fmt: skip
        return [pair for pair in chosen if pair[0]]

    if in_turn and parts(False):
        raise ValueError(f"--lora {files[0]} changes the text encoder, which --low-memory reads anew; leave one out")
    beside = {"lora": lora.collection(shapes, *parts(True))}
    return params.beside(beside) if in_turn else {**lora.merge(params, *parts(False))[0], **beside}


def _with_word(pipe: Any, params: Any, text: str) -> tuple[Any, Any]:
    """The pipeline and parameters that know a word, given as FILE or FILE:TOKEN."""
    from fdiff.adapters import textual_inversion

    source, token = given(text)
    if not hasattr(pipe, "text_encoder"):
        raise ValueError(f"--textual-inversion {text}: a {type(pipe).__name__} reads no text; leave it out")
    try:
        return textual_inversion.add(pipe, params, textual_inversion.load(**adapter_place(source), token=token or None))
    except ValueError as error:
        said = str(error).replace("token=.", "FILE:TOKEN.")
        raise ValueError(f"--textual-inversion {text}: {said}") from None


def _with_ip_adapter(pipe: Any, params: Any, arguments: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """The pipeline and parameters with the image encoder, and the options that say what it sees, and how strongly."""
    from fdiff.adapters import ip_adapter

    source, scale = scaled("ip-adapter", arguments.ip_adapter)
    if "ip_adapter" not in {one.name for one in pipe.steps.task.options}:
        raise ValueError(f"--ip-adapter {source}: a {type(pipe).__name__} takes none; leave it out")
    try:
        adapter = ip_adapter.load(**adapter_place(source), unet_params=params["unet"], dtype=arguments.dtype)
    except ValueError as error:
        raise ValueError(f"--ip-adapter {source}: {error}") from None
    encoder, tree = _image_encoder(source, arguments)
    options = {"ip_adapter": adapter, "ip_adapter_scale": scale}
    return pipe.replace(image_encoder=encoder), {**params, ENCODER: tree}, options


def image_encoder_place(source: str, named: str | None) -> dict[str, Any]:
    """Where the image encoder of an IP-Adapter is: as named, or else the folder image_encoder beside it."""
    place = adapter_place(source)
    if named is not None:
        return {"source": named}
    if "weight_name" in place:
        folder = (Path(place["weight_name"]).parent / ENCODER).as_posix()
        return {"source": place["source"], "subfolder": folder, "revision": place["revision"]}
    path = Path(source)
    return {"source": path.parent, "subfolder": ENCODER} if path.is_file() else {
        "source": source, "subfolder": f"models/{ENCODER}"
    }  # fmt: skip


def _image_encoder(source: str, arguments: argparse.Namespace) -> tuple[Any, Any]:
    from fdiff.models import CLIPVisionModelWithProjection

    place = image_encoder_place(source, arguments.image_encoder)
    try:
        return CLIPVisionModelWithProjection.from_pretrained(**place, dtype=arguments.dtype)
    except FileNotFoundError as error:
        if arguments.image_encoder is not None:
            raise
        raise FileNotFoundError(f"--ip-adapter {source} has no folder image_encoder beside it; name CLIP's vision "
                                "model with --image-encoder MODEL") from error


def _with_controlnet(pipe: Any, params: Any, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The sibling that a ControlNet of that class steers, and the parameters with those of the net."""
    net, tree = _controlnet(arguments.controlnet, arguments.dtype)
    sibling = pipe.siblings.get(type(net).__name__)
    if sibling is None:
        raise ValueError(f"--controlnet {arguments.controlnet} is a {type(net).__name__}, and a {type(pipe).__name__} "
                         "is steered by none; choose a model and a ControlNet that belong together")
    widths = [getattr(one, "cross_attention_dim", None) for one in (net, getattr(pipe, "unet", None))]
    if None not in widths and widths[0] != widths[1]:
        raise ValueError(f"--controlnet {arguments.controlnet} reads texts of width {widths[0]}, and the model of "
                         f"{widths[1]}: it is for another base model; choose one for this")
    return _as_sibling(pipe, sibling, controlnet=net), {**params, "controlnet": tree}


def _controlnet(source: str, dtype: str) -> tuple[Any, Any]:
    """A ControlNet from a folder, a Hub id or a single file."""
    from fdiff import hub, single_file
    from fdiff.models.model import CONFIG
    from fdiff.registry import find_component
    from fdiff.sources import is_single_file

    if is_single_file(source):
        loaded = single_file.load(source, dtype=dtype)
        if list(loaded.models) != ["controlnet"]:
            raise ValueError(f"--controlnet {source} holds a {' and a '.join(loaded.models)}; choose a ControlNet")
        return loaded.models["controlnet"], loaded.params["controlnet"]
    config = hub.load_config(source, CONFIG)
    kind = find_component(hub.class_name(config, Path(source) / CONFIG), source, config)
    if "ControlNet" not in kind.__name__:
        raise ValueError(f"--controlnet {source} is a {kind.__name__}; choose a ControlNet")
    loaded_pair: tuple[Any, Any] = kind.from_pretrained(source, dtype=dtype)
    return loaded_pair


def _sibling(pipe: Any, option: str) -> Any:
    """The pipeline over the same components that takes this option. Raises ValueError where there is none."""
    if option not in pipe.siblings:
        flag = "mask" if option == "mask_image" else option
        raise ValueError(f"a {type(pipe).__name__} takes no --{flag}; leave it out")
    return _as_sibling(pipe, pipe.siblings[option])


def _as_sibling(pipe: Any, name: str, **components: Any) -> Any:
    from fdiff.pipelines.pipeline import find_pipeline

    return find_pipeline(name, type(pipe).__name__).from_pipe(pipe, **components)
