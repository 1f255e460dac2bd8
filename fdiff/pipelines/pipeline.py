"""The base of every pipeline: components and parameters from a Hub id or a folder, and back."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import jax.numpy as jnp

from fdiff import hub, registry, single_file, upload
from fdiff.display import attempted
from fdiff.lean import Program
from fdiff.pipelines.components import (
    INDEX,
    check_complete,
    completed,
    listed,
    load_component,
    load_model,
    open_model,
    read_index,
    required,
    save_component,
    setting,
    several,
    write_index,
)
from fdiff.pipelines.in_turn import InTurn
from fdiff.pipelines.shown import output_html, pipeline_html

Params = dict[str, Any]


class ImageOutput(NamedTuple):
    """What an image pipeline returns: PIL images, or an array (b, h, w, c).

    nsfw_content_detected: booleans (b,), which of them a safety checker made black; None where there is none.
    """

    images: Any
    nsfw_content_detected: Any = None

    def _repr_html_(self) -> str | None:
        return attempted(output_html, self)


@dataclasses.dataclass(frozen=True)
class DiffusionPipeline:
    """A frozen dataclass whose fields are the components of model_index.json; parameters are kept apart.

    `from_pretrained` on this class picks the pipeline that the repository names. A subclass that `fdiff.register` knows
    is found there; its `__call__` and `steps` are made by a `Task`. What a pipeline needs to be told of its class:

    family: pipelines of one family can use each other's checkpoints.
    makes: pictures, or another kind of what `fdiff.cli.outputs` can write.
    autoencoder: the component that `decode` uses.
    siblings: by an option such as image, or the class of a component such as ControlNetModel, the class of the same
        family that takes it.
    """

    family: ClassVar[str] = ""
    makes: ClassVar[str] = "pictures"
    autoencoder: ClassVar[str] = "vae"
    siblings: ClassVar[Mapping[str, str]] = {}

    def _repr_html_(self) -> str | None:
        return attempted(pipeline_html, self)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, variant: str | None = None,
        cache_dir: str | Path | None = None, token: str | bool | None = None, local_files_only: bool = False,
        force_download: bool = False, dtype: Any = jnp.float32, sharding: Any = None, quantize: str | None = None,
        in_turn: bool = False, streamed: bool = False, stack_blocks: bool = False, **components: Any,
    ) -> tuple[Self, Params]:  # fmt: skip
        """(pipeline, params) from a Hub id or a folder; params holds the tree of each model under its name.

        Args:
            source: a Hub id such as "google/ddpm-cat-256", or a folder.
            revision, variant, cache_dir, token, local_files_only, force_download: see `fdiff.hub`; a model without
                weights of the variant has its plain ones, where another has such ones.
            dtype: of the parameters, and so of the computation.
            sharding: see `Model.from_pretrained`.
            quantize: "int8", "int4" or "float8" keeps the networks and the text encoders so, see
                `Model.from_pretrained`; autoencoders stay wide.
            in_turn: params holds one model at a time, which is read whenever another one was used before it: slower, in
                less memory (see `fdiff.pipelines.in_turn`).
            streamed: the networks and the text encoders stay in their files, and their layers are read whenever they
                are computed with: for what does not fit into memory.
            stack_blocks: the blocks that a model repeats come as one, see `fdiff.stack_blocks`: programs are traced and
                compiled in a fraction of the time.
            components: a component to use in place of the repository's, such as scheduler=...; a model comes as
                (module, params), several ControlNets as a list of those; None leaves an optional one out, and True
                loads one that is loaded only when asked for, such as the safety checker.

        Raises ValueError where the repository needs a class that fdiff does not have, or lacks a component.
        """
        place = hub.Source(source, None, revision, cache_dir, token, local_files_only, force_download)
        file = hub.fetch(place, INDEX)
        index = read_index(file)
        where: dict[str, Any] = {
            "revision": hub.pinned(place, file).revision,  # all components from one commit
            "cache_dir": cache_dir,
            "token": token,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        if cls is DiffusionPipeline:
            found: Any = find_pipeline(index.get("_class_name"), source).from_pretrained(
                source, variant=variant, dtype=dtype, sharding=sharding, quantize=quantize, in_turn=in_turn,
                streamed=streamed, stack_blocks=stack_blocks, **where, **components
            )
            return found
        check_family(cls, index.get("_class_name"), source)
        given = _given(cls, components)
        entries = listed(index, cls, file)
        check_complete(cls, {**entries, **given}, source, "pass it by its name or choose another model")
        hub.available_variant(place._replace(revision=where["revision"]), variant)
        options: dict[str, Any] = {"variant": variant, "dtype": dtype, "sharding": sharding, "quantize": quantize,
                                   "streamed": streamed, "stack_blocks": stack_blocks}
        load = functools.partial(open_model if in_turn else load_model, **options)
        built, params = assembled(cls, given, entries, source, where, load, components)
        return cls(**completed(cls, built)), cast(Params, InTurn(params)) if in_turn else params

    @classmethod
    def from_single_file(
        cls, source: str | Path, *, config: str | Path | None = None, tokenizer: str | Path | None = None,
        prediction_type: str | None = None, ema: bool = False, dtype: Any = jnp.float32, sharding: Any = None,
        quantize: str | None = None, in_turn: bool = False, streamed: bool = False,
        cache_dir: str | Path | None = None, token: str | bool | None = None, local_files_only: bool = False,
        force_download: bool = False, **components: Any,
    ) -> tuple[Self, Params]:  # fmt: skip
        """(pipeline, params) from one file; its class, on DiffusionPipeline, by `config` or else by the tensors.

        What the file lacks, such as the text encoders of a transformer, comes from `components` as in
        `from_pretrained`, or else from `config`, a folder or a Hub id, with its weights.

        For the other arguments and errors see `fdiff.single_file.load` and `from_pretrained`; of EDM's checkpoints,
        whose files end in .npy, see `fdiff.edm_checkpoint`.
        """
        if Path(source).suffix == ".npy":
            from fdiff import edm_checkpoint

            found: Any = edm_checkpoint.load(source, dtype=dtype, sharding=sharding)
            return found
        where: dict[str, Any] = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only,
                                 "force_download": force_download}
        place = single_file.ANYWHERE._replace(**where)
        path = single_file.find(source, place)
        file = single_file.inspect(path, config=config, tokenizer=tokenizer, prediction_type=prediction_type, ema=ema,
                                   place=place)
        if file.pipeline is None and cls is DiffusionPipeline:
            raise ValueError(f"{source} holds a {' and a '.join(file.models)} alone; {single_file.cure(file) or PARTS}")
        kind: Any = find_pipeline(file.pipeline, source) if cls is DiffusionPipeline else cls
        check_family(kind, file.pipeline, source)
        other, entries = "" if config is None else config, {}
        if config is not None and (listing := single_file.index_file(place._replace(name=config))):
            entries = listed(read_index(listing), kind, listing)
            where["revision"] = hub.pinned(place._replace(name=config), listing).revision
        own = {**({} if entries else file.options), **file.tokenizers, **file.models, "scheduler": file.scheduler}
        names = [field.name for field in dataclasses.fields(kind)]
        given = {name: own[name] for name in names if own.get(name) is not None} | _given(kind, components)
        check_complete(kind, {**entries, **given}, source, single_file.cure(file) or PARTS)
        how: dict[str, Any] = {"dtype": dtype, "sharding": sharding, "quantize": quantize, "streamed": streamed}
        for name, read in single_file.readers(file, path, **how).items():
            if name in given and name not in components:
                given[name] = file.models[name], read if in_turn else read()
        load = functools.partial(open_model if in_turn else load_model, variant=None, **how)
        built, params = assembled(kind, given, entries, other, where, load, components)
        return kind(**completed(kind, built)), cast(Params, InTurn(params)) if in_turn else params

    @classmethod
    def from_pipe(cls, pipe: DiffusionPipeline, **components: Any) -> Self:
        """This pipeline of the components of another one, whose params serve it too; `components` go before them.

        Raises ValueError where it needs a component that neither has.
        """
        fields = dataclasses.fields(cls)
        given = {field.name: getattr(pipe, field.name) for field in fields if hasattr(pipe, field.name)} | components
        check_complete(cls, given, type(pipe).__name__, "pass it")
        return cls(**completed(cls, given))

    def replace(self, **components: Any) -> Self:
        """The pipeline with other components, such as another scheduler."""
        return dataclasses.replace(self, **components)

    def save_pretrained(self, folder: str | Path, params: Params, *, variant: str | None = None) -> None:
        """Write the pipeline and its parameters in the Hub's layout: all of it appears, or nothing."""
        index: dict[str, Any] = {}
        with hub.staged(folder) as temporary:
            for field in dataclasses.fields(self):
                component, tree = getattr(self, field.name), params.get(field.name)
                index[field.name] = save_component(component, tree, temporary, field.name, variant)
            if "safety_checker" in index:  # diffusers warns of a missing one unless the index says this
                index["requires_safety_checker"] = index["safety_checker"] != [None, None]
            write_index(temporary, type(self).__name__, index)

    def push_to_hub(self, repo_id: str, params: Params, *, token: str | None = None, private: bool = False) -> str:
        """Upload the pipeline with a model card to a Hub repository, made if need be; returns its address."""
        task = getattr(getattr(self, "steps", None), "task", None)
        reads = [one.name for one in task.options] if task else []
        tag = "image-to-image" if "image" in reads else "text-to-image"
        return upload.push(
            lambda folder: self.save_pretrained(folder, params), repo_id, token=token, private=private,
            pipeline_tag=tag if "prompt" in reads else "unconditional-image-generation",
        )  # fmt: skip


# Components that are loaded only when asked for by name.
OPT_IN = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
PARTS = "load its parts with fdiff.single_file.load"  # the cure for a single file that is no whole pipeline


def _given(kind: type[DiffusionPipeline], components: Mapping[str, Any]) -> dict[str, Any]:
    """The components that are passed to a pipeline of that class. ValueError for one that it does not have."""
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(components.keys() - set(names)):
        raise ValueError(f"{kind.__name__} has no component {unknown[0]!r}; it has {', '.join(names)}")
    return {name: value for name, value in components.items() if value is not True}


def assembled(
    kind: type[DiffusionPipeline], given: Mapping[str, Any], entries: Mapping[str, Any], source: str | Path,
    where: dict[str, Any], load: Callable[..., tuple[Any, Any]], asked: Container[str],
) -> tuple[dict[str, Any], Params]:  # fmt: skip
    """The components of a pipeline and the parameters of its models.

    Args:
        given: components to take as they are; a model comes as (module, params).
        entries: what the model_index.json of `source` lists; `where` and `load` are as of `load_component`.
        asked: what of OPT_IN is loaded.
    """
    built: dict[str, Any] = {}
    params: Params = {}
    for field in dataclasses.fields(kind):
        name, entry, tree = field.name, entries.get(field.name), None
        if name in given:
            pair = several(given[name]) if isinstance(given[name], list) else given[name]
            built[name], tree = pair if isinstance(pair, tuple) else (pair, None)
        elif isinstance(entry, list) and (name not in OPT_IN or name in asked or required(field)):
            built[name], tree = load_component(entry[1], source, name, where, load)
        elif isinstance(entry, list):
            logging.getLogger("fdiff").info("%s of %s is left out; pass %s=True to load it", name, source, name)
        elif entry is not None:
            built[name] = setting(entry)
        if tree is not None:
            params[name] = tree
    return built, params


def find_pipeline(name: str | None, source: str | Path) -> type[DiffusionPipeline]:
    """The pipeline class of that name. Raises ValueError where fdiff has none."""
    if not name:
        raise ValueError(f"{source} names no pipeline; add its _class_name to {INDEX}")
    found: type[DiffusionPipeline] | None = registry.lookup(name, DiffusionPipeline)
    if found is None:
        raise ValueError(
            f"{source} is a {name}, a pipeline that fdiff does not have; load its models one by one instead"
        )
    return found


def check_family(kind: type[DiffusionPipeline], name: Any, source: str | Path) -> None:
    """Raise ValueError where the checkpoint's pipeline, of that name, is one of another family than this class."""
    known: type[DiffusionPipeline] | None = registry.lookup(str(name), DiffusionPipeline)
    if known is not None and known.family != kind.family:
        raise ValueError(f"{source} is a {name}, whose models {kind.__name__} cannot use; load it with fdiff.{name}")


def sample_shape(unet: Any) -> tuple[int, int, int]:
    """(h, w, c) of the samples that a U-Net was trained on. Raises ValueError where its config does not say."""
    size = unet.sample_size
    if size is None:
        raise ValueError("the config.json of the unet has no sample_size; add the height and width of its samples")
    height, width = (size, size) if isinstance(size, int) else size
    return height, width, unet.in_channels


def tree_of(params: Params, name: str) -> Any:
    """The parameters of the model of that name. Raises ValueError where there are none."""
    if name not in params:
        raise ValueError(f"params has no {name!r}; pass the params that from_pretrained gave with this pipeline")
    return params[name]


def encoder_of(pipe: Any, encoder: str = "text_encoder", tokenizer: str = "tokenizer") -> tuple[Any, Any]:
    """The text encoder and its tokenizer. Raises ValueError where the pipeline has none."""
    found = getattr(pipe, encoder), getattr(pipe, tokenizer)
    if None in found:
        missing = encoder if found[0] is None else tokenizer
        raise ValueError(f"{type(pipe).__name__} has no {missing}; pass prompt_embeds, and negative_prompt_embeds")
    return found


@functools.partial(Program, static_argnums=0)
def applied(model: Any, params: Any, *inputs: Any) -> Any:
    """What the model makes of the inputs."""
    return model.apply({"params": params}, *inputs)
