"""Checkpoints in one file, by their original names: Stable Diffusion 1.x, 2.x, SDXL, ControlNets and transformers.

    loaded = load("v1-5-pruned-emaonly.safetensors")
    loaded.models["unet"].apply({"params": loaded.params["unet"]}, latents, t, tokens)

Such a file has neither configs nor vocabularies. The configs follow from its tensors, the vocabulary is that
of a repository, or of a folder where there is no network. Files of transformers (FLUX.1 to 3, Chroma, Stable Diffusion
3, Z-Image, Qwen-Image and -2.1, ERNIE-Image, Krea 2, Lumina 2, Sana, PixArt) lack text encoders and autoencoders too,
which `DiffusionPipeline.from_single_file` takes from there.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from convert import families, packed, single_file, transformer_families, weights
from convert.tensors import Tensor
from fdiff import hub
from fdiff.models.model import CONFIG, Model
from fdiff.registry import find_component
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG
from fdiff.schedulers.scheduler import Scheduler
from fdiff.sources import find
from fdiff.tokenizers import CLIPTokenizer

INDEX = "model_index.json"
CLIP = "openai/clip-vit-large-patch14"  # whose vocabulary all of Stable Diffusion shares
ANYWHERE = hub.Source("")  # its name is put in later


class Loaded(NamedTuple):
    """What is in a file: the components of a pipeline, under the names that the Hub gives them."""

    pipeline: str | None  # the pipeline's class, None for a model alone
    models: dict[str, Model]
    params: dict[str, dict[str, Any]]
    scheduler: Scheduler | None
    tokenizers: dict[str, CLIPTokenizer]
    options: dict[str, Any]  # what else model_index.json says, such as requires_aesthetics_score


def load(
    source: str | Path,
    *,
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
    ema: bool = False,
    dtype: Any = None,
    sharding: weights.Places = None,
    quantize: str | None = None,
    streamed: bool = False,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Loaded:
    """Load a .safetensors, .gguf or .ckpt file.

    Args:
        source: a file, its address on the Hub, or "owner/name/file.safetensors".
        config: a folder or Hub id whose configs replace those that follow from the tensors; for a file of one model,
            the config.json beside it, if not given and there.
        tokenizer: a folder or Hub id with CLIP's vocab.json and merges.txt, also in a folder "tokenizer" of it;
            `config`, or else openai/clip-vit-large-patch14, if not given. Of transformers no tokenizers are read.
        prediction_type: "epsilon" or "v_prediction", where neither configs nor tensors say it: SD 2.x is taken to be
            the one with 768 pixels, which predicts v.
        ema: the averaged weights of the U-Net, where the file has both.
        dtype, sharding, quantize, streamed: see `Model.from_pretrained`; autoencoders are not quantised.
        cache_dir, token, local_files_only, force_download: see `fdiff.hub`.

    Raises ValueError for a file of another kind and for tensors that do not fit, FileNotFoundError without a
    vocabulary, and what `fdiff.hub.fetch` raises.
    """
    place = ANYWHERE._replace(
        cache_dir=cache_dir, token=token, local_files_only=local_files_only, force_download=force_download
    )
    file = find(source, place)
    opened = inspect(
        file, config=config, tokenizer=tokenizer, prediction_type=prediction_type, ema=ema, place=place
    )
    read = readers(opened, file, dtype=dtype, sharding=sharding, quantize=quantize, streamed=streamed)
    return opened._replace(params={name: read[name]() for name in read})


def readers(
    opened: Loaded, file: Path, *, quantize: str | None = None, streamed: bool = False, **options: Any
) -> dict[str, Callable[[], dict[str, Any]]]:
    """What reads the parameters of each model of a file that `inspect` opened, as often as it is called.

    options: dtype and sharding of `weights.fill`.
    """

    def reader(name: str) -> Callable[[], dict[str, Any]]:
        kept: dict[str, Any] = {"quantize": quantize, "streamed": streamed} if name.startswith(packed.QUANTIZED) else {}
        shapes = opened.models[name].shapes()
        return lambda: weights.fill(opened.params[name], shapes, file=file, **options, **kept)

    return {name: reader(name) for name in opened.models}


def inspect(
    file: Path,
    *,
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
    ema: bool = False,
    place: hub.Source = ANYWHERE,
) -> Loaded:
    """What `load` loads, but params holds tensors that lie in the file; `place` says how to reach the Hub."""
    found = weights.tensors(file)
    parts = single_file.parts(found, file=file, ema=ema)
    vocabulary = tokenizer or config or CLIP
    family = described(file, found, parts, config=config, prediction_type=prediction_type, place=place)
    built = {name: find_component(kind, config or file, entry).from_config(entry)
             for name, (kind, entry) in family.models.items()}  # fmt: skip
    built = {name: model.fitted(parts[name]) for name, model in built.items()}
    if "transformer" in parts and tokenizer is not None:
        raise ValueError(f"{file} holds a transformer, whose tokenizers are of several kinds; pass config= in place of "
                         "tokenizer=, a folder or a Hub id that has them.")
    encoders = [] if "transformer" in parts else [name for name in built if name.startswith("text_encoder")]
    clip = read_tokenizer(file, vocabulary, place) if encoders else None
    tokenizers = {name.replace("text_encoder", "tokenizer"): pad(clip, built[name]) for name in encoders}
    scheduler = None
    if family.scheduler:
        scheduler = Scheduler.from_config(family.scheduler)
    return Loaded(family.pipeline, built, parts, scheduler, tokenizers, family.options)


def index_file(place: hub.Source) -> Path | None:
    """The model_index.json of a folder or a repository; None where it has none."""
    try:
        return hub.fetch(place, INDEX)
    except FileNotFoundError:
        return None


def cure(opened: Loaded) -> str | None:
    """Where to take what a file with a transformer lacks from."""
    if "transformer" not in opened.params:
        return None
    hub_id = transformer_families.kind(opened.params["transformer"]).hub
    return f"pass config=, a folder or a Hub id with what the file lacks, such as {hub_id}"


def described(
    file: Path, found: Mapping[str, Tensor], parts: single_file.Parts, *, config: str | Path | None = None,
    prediction_type: str | None = None, place: hub.Source = ANYWHERE,
) -> families.Family:  # fmt: skip
    """What a file with these tensors and components is, by the configs that are given, or else by the tensors."""
    if config is None and len(parts) == 1 and (file.parent / CONFIG).is_file():
        config = file.parent
    if config is None:
        return single_file.family(found, parts, file=file, prediction_type=prediction_type)
    family = from_configs(place._replace(name=config), parts)
    if "transformer" in parts:
        kind = transformer_families.kind(parts["transformer"])
        name, told = family.models["transformer"]
        said = find_component(name, config, told).__name__
        if said != kind.cls:
            raise ValueError(f"{file} holds a {kind.cls}, and {config} describes a {said}; pass the config of a model "
                             f"of that class, such as {kind.hub}")
    if prediction_type is not None and family.scheduler:
        family = family._replace(scheduler={**family.scheduler, "prediction_type": prediction_type})
    return family


def pad(tokenizer: Any, encoder: Any) -> CLIPTokenizer:
    """The tokenizer for that text encoder: OpenCLIP's pad with "!", of id 0, where the others repeat the end."""
    sign = tokenizer.eos_token if encoder.hidden_act == "quick_gelu" else "!"
    return dataclasses.replace(tokenizer, pad_token=sign)


def read_tokenizer(file: Path, source: str | Path, place: hub.Source) -> CLIPTokenizer:
    """CLIP's tokenizer, which `file` lacks, from a folder or a repository, or from a folder "tokenizer" of it."""
    reason = ""
    for subfolder in (None, "tokenizer", "tokenizer_2"):
        try:
            return CLIPTokenizer.from_pretrained(
                source,
                subfolder=subfolder,
                cache_dir=place.cache_dir,
                token=place.token,
                local_files_only=place.local_files_only,
                force_download=place.force_download,
            )
        except OSError as error:
            reason = reason or str(error).rstrip(".")
    raise FileNotFoundError(
        f"{file} has no vocabulary, and {reason}; pass tokenizer=..., a folder with CLIP's vocab.json and merges.txt."
    )


def from_configs(place: hub.Source, parts: single_file.Parts) -> families.Family:
    """What the configs of a folder or a repository say of the components; of one alone it may be a model's own."""
    alone = len(parts) == 1
    listing = index_file(place) if alone else hub.fetch(place, INDEX)
    found = {}
    for name in parts:
        paths = (f"{name}/{CONFIG}", CONFIG) if alone else (f"{name}/{CONFIG}",)
        file = hub.fetch(place, *paths)
        config = hub.read_json(file)
        found[name] = (hub.class_name(config, file), config)
    if listing is None:
        return families.Family(None, found, {}, {})
    index = hub.read_json(listing)
    scheduler = hub.read_json(hub.fetch(place._replace(subfolder="scheduler"), SCHEDULER_CONFIG))
    options = {key: value for key, value in index.items() if not (key.startswith("_") or isinstance(value, list))}
    return families.Family(index.get("_class_name"), found, scheduler, options)
