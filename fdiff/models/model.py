"""The one base of every Hub model: config.json in, module and parameters out, and back."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax

from convert import files, weights
from convert.tensors import Tensor
from fdiff import hub, registry, sources, upload
from fdiff.messages import show
from fdiff.models import one_file
from fdiff.models.fields import checked
from fdiff.models.layers.parameter import SHAPES
from fdiff.stacked import unstack_blocks

CONFIG = "config.json"
# How weights were averaged while they were trained, which training scripts write into the config.json of "unet_ema".
AVERAGING = (
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
)
QUANTIZATION = "quantization_config"  # how weights are quantised, which their names say too


class Model(nn.Module):
    """A Linen module whose fields are the keys of the Hub's config.json, with the Hub's defaults.

    A subclass declares its fields, `example_inputs` and `__call__`; everything else is here. Its parameters
    are a plain tree that the caller keeps:

        model, params = UNet2DModel.from_pretrained("google/ddpm-cat-256")
        residual = model.apply({"params": params}, noisy, t)
    """

    # What the Hub calls the weights file, without its extension: transformers' models say "model".
    weights_name: ClassVar[str] = "diffusion_pytorch_model"
    # transformers' model_type. Its config.json names the class under "architectures", and holds many keys
    # that no model reads, so unknown ones are passed over where this is set.
    model_type: ClassVar[str | None] = None
    # Keys of old config.json files that nothing reads any more.
    ignored_keys: ClassVar[tuple[str, ...]] = ()

    def example_inputs(self) -> tuple[Any, ...]:
        """The smallest legal arguments of `__call__`, NumPy arrays: what `shapes` and `init_params` trace."""
        raise NotImplementedError(f"{type(self).__name__} must define example_inputs().")

    def __post_init__(self) -> None:
        """Make lists tuples and whole numbers int. Raises ValueError for a value that its field cannot have."""
        for name, kind in _annotations(type(self)).items():
            object.__setattr__(self, name, checked(type(self).__name__, name, kind, getattr(self, name)))
        super().__post_init__()

    def check_options(self) -> None:
        """Raise ValueError for options that do not fit together; a subclass says which those are."""

    def fitted(self, found: Mapping[str, Tensor]) -> Self:
        """The module for those weights, by their names in a file: this one, but where a config does not say all."""
        return self

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, file: str | os.PathLike[str] = CONFIG) -> Self:
        """The module that a config.json describes: lists become tuples, keys starting with "_" are left out.

        `file` is what the errors name. Raises ValueError for the config of another class, for a key that is not a
        field, for a value that is none of that field, and for values that do not fit together.
        """
        found = config.get("_class_name", cls.__name__)
        if found != cls.__name__ and registry.lookup(found, cls, config) is not cls:
            raise ValueError(f"{file} describes a {found}, not a {cls.__name__}; load it with fdiff.{found}.")
        fields = _annotations(cls)
        given = {key: value for key, value in config.items() if not key.startswith("_")}
        unknown = sorted(given.keys() - fields.keys() - {*cls.ignored_keys, *AVERAGING, QUANTIZATION})
        if unknown and cls.model_type is None:
            raise ValueError(
                f"{file} sets {show(unknown[0])}, which {cls.__name__} does not know; correct or remove it."
            )
        try:
            module = cls(**{key: value for key, value in given.items() if key in fields})
            module.check_options()
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return module

    def config(self) -> dict[str, Any]:
        """The config.json of this module, whole: what `from_config` reads."""
        values = {name: _plain(getattr(self, name)) for name in sorted(_annotations(type(self)))}
        if self.model_type is None:
            return {"_class_name": type(self).__name__, **values}
        return {"architectures": [type(self).__name__], "model_type": self.model_type, **values}

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        variant: str | None = None,
        subfolder: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        dtype: Any = None,
        sharding: weights.Places = None,
        quantize: str | None = None,
        streamed: bool = False,
    ) -> tuple[Self, dict[str, Any]]:
        """(module, params) from a Hub id or a folder.

        Args:
            source: a Hub id such as "google/ddpm-cat-256", or a folder.
            revision: a branch, tag or commit.
            variant: the infix of the weights file, such as "fp16".
            subfolder: where the model is in the source, such as "unet".
            cache_dir: where downloads are kept.
            token: for private and gated repositories.
            local_files_only: read the cache, do not use the network.
            force_download: download again what is in the cache.
            dtype: of the floating point parameters, and so of the computation, such as "bfloat16"; None keeps
                what the file has.
            sharding: where the parameters go: a jax.sharding.Sharding or a device, a function to one from a
                parameter's path ("mid_block.resnets.0.conv1.kernel"), or a tree of them.
            quantize: "int8", "int4" or "float8" keeps the matrices of the layers that repeat, and tables of words, in
                that many bits, which those layers widen as they read them (`convert.packed.chosen` says which); they
                compute in `dtype`. What is quantised in the file stays as it is there.
            streamed: large matrices of the layers that repeat stay in the file, and are read whenever they are computed
                with: for what does not fit into memory.

        For errors see `fdiff.hub.fetch`, `from_config` and `convert.weights.load`.
        """
        place = hub.Source(source, subfolder, revision, cache_dir, token, local_files_only, force_download)
        module, load = cls.opened(place, variant, dtype=dtype, sharding=sharding, quantize=quantize, streamed=streamed)
        return module, load()

    @classmethod
    def from_single_file(
        cls,
        source: str | Path,
        *,
        config: str | Path | None = None,
        subfolder: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        dtype: Any = None,
        sharding: weights.Places = None,
        quantize: str | None = None,
        streamed: bool = False,
    ) -> tuple[Self, dict[str, Any]]:
        """(module, params) from one file of weights in the names of its authors, of ComfyUI or of the Hub.

        The file may be a whole checkpoint with other models beside.

        Args:
            source: a .safetensors, .gguf or .ckpt file, its address on the Hub, or "owner/name/file.safetensors".
            config: a folder or Hub id with the config.json of the model, or with a pipeline that has one; if not given,
                the config.json beside a file of one model, or else what follows from the tensors.
            subfolder: the component of the pipeline, such as "text_encoder_2", where several are of this class.
            cache_dir, token, local_files_only, force_download, dtype, sharding, quantize, streamed: see
                `from_pretrained`.

        Raises ValueError for a file without such a model, of which no config is known, or whose tensors do not fit.
        """
        place = hub.Source("", None, None, cache_dir, token, local_files_only, force_download)
        file = sources.find(source, place)
        module, found = one_file.opened(cls, file, config, subfolder, place)
        options: dict[str, Any] = {"dtype": dtype, "sharding": sharding, "quantize": quantize, "streamed": streamed}
        return module, weights.fill(found, module.shapes(), file=file, **options)

    @classmethod
    def opened(
        cls, place: hub.Source, variant: str | None = None, **options: Any
    ) -> tuple[Self, Callable[[], dict[str, Any]]]:
        """The module, and what reads its parameters, as often as it is called; `options` are those of
        `weights.fill`."""
        config = hub.fetch(place, CONFIG)
        module = cls.from_config(hub.read_json(config), file=config)
        file = hub.fetch_weights(hub.pinned(place, config), cls.weights_name, variant)
        found = weights.tensors(file)
        module = module.fitted(found)
        return module, lambda: weights.fill(found, module.shapes(), file=file, **options)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        params: Mapping[str, Any],
        *,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
    ) -> None:
        """Write config.json and the weights into a folder in the Hub's layout; all appear at once.

        Raises ValueError for parameters that are not this module's, OSError where the disk is full.
        """
        params = unstack_blocks(params)
        weights.check(params, self.shapes())
        with files.staged(folder) as temporary:
            hub.write_json(temporary / CONFIG, self.config())
            weights.save(temporary, params, self.weights_name, variant=variant, max_shard_size=max_shard_size)

    def push_to_hub(
        self,
        repo_id: str,
        params: Mapping[str, Any],
        *,
        variant: str | None = None,
        token: str | bool | None = None,
        private: bool | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the model with a model card to a Hub repository, made if need be; returns its address."""
        return upload.push(
            lambda folder: self.save_pretrained(folder, params, variant=variant),
            repo_id,
            token=token,
            private=private,
            commit_message=commit_message,
            create_pr=create_pr,
        )

    def shapes(self) -> dict[str, Any]:
        """The parameter tree as jax.ShapeDtypeStruct leaves, without allocating or computing anything."""

        def init(*inputs: Any) -> dict[str, Any]:
            key = jax.random.key(0)
            return self.init({"params": key, SHAPES: key}, *inputs)["params"]

        return jax.eval_shape(init, *self.example_inputs())

    def count_parameters(self) -> int:
        """How many numbers the parameters are, without allocating or computing anything."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.shapes()))

    def init_params(self, key: jax.Array) -> dict[str, Any]:
        """Fresh float32 parameters, drawn with `key`."""

        def draw(key: jax.Array) -> dict[str, Any]:
            return self.init(key, *self.example_inputs())["params"]

        if isinstance(key, jax.core.Tracer):  # a program compiled ahead of time passes no transformation
            return draw(key)
        # A draw for each parameter, run once: on a CPU, optimizing that takes longer than it gives back.
        cpu = jax.default_backend() == "cpu"
        quick: dict[str, str | bool] | None = {"xla_backend_optimization_level": "0"} if cpu else None
        return jax.jit(draw).lower(key).compile(quick)(key)


def _annotations(cls: type[Model]) -> dict[str, Any]:
    """The fields that are keys of config.json, and what each may hold."""
    return {field.name: field.type for field in dataclasses.fields(cls) if field.name not in ("parent", "name")}


def _plain(value: Any) -> Any:
    """A field's value as JSON has it."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
