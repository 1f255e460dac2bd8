"""What trainings share that begin with a text-to-image model: settings, the base, what its U-Net is told, the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdiff import guidance, prompts
from fdiff.models.layers.vae import DiagonalGaussian
from fdiff.models.tiling import sliced
from fdiff.pipelines import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from fdiff.pipelines.denoise import Condition, denoiser
from fdiff.pipelines.task import needed, option
from fdiff.prompts import Encoded
from fdiff.sampling import Network
from fdiff.schedulers import Level
from fdiff.training.loader import pixels
from fdiff.training.loss import denoising_loss, withhold
from fdiff.training.recipe import Settings, setting
from fdiff.training.step import lowered
from fdiff.training.tasks.pixels import weight

Params = dict[str, Any]
@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings(Settings):
    """Of trainings that begin with a text-to-image model."""

    model: str = needed("the text-to-image model to begin with: a Hub id, a folder, or one that ships")
    prompt: str = option("", "what the pictures show that have no caption")
    steps: int = option(1000)
    batch_size: int = option(4)
    learning_rate: float = option(1e-5)
    decay: float = option(0.99)
    size: int | None = option(None, "height and width of the pictures; those that the model draws if not given")
    buckets: str = option("", "shapes of pictures, to the nearest of which each is brought, and a batch has one of: a "
                          "number of them, of the area of the size, or heights and widths as 512x768,768x512; no "
                          "latents are kept then")
    random_crop: bool = option(False, "cut pictures anywhere in place of the middle, anew each time")
    keep_encoded: bool = option(
        True, "compute latents and texts once and keep them in the output folder; no latents with random-crop"
    )
    withhold: float = option(0.0, "share of the samples whose text is withheld, so that guidance stays of use")
    weight: str = setting("", "of the loss: min-snr or p2; 1 if not given", choices=("", "min-snr", "p2"))
    offset_noise: float = setting(0.0, "size of noise that is the same all over a picture, such as 0.1", least=0)
    samples: int = option(4)
    sample_prompt: str = option("", "what the sheets of samples show; the texts of the data if not given")

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        super().__post_init__()
        if not 0 <= self.withhold <= 1:
            raise ValueError(f"withhold is {self.withhold}; it must lie within 0 and 1")


class Base(NamedTuple):
    """The model to begin with: its pipeline and its parameters."""

    pipe: Any
    params: Params

    def of(self, names: Sequence[str]) -> Params:
        """The parameters of these models."""
        return {name: self.params[name] for name in names}

    @property
    def encoders(self) -> list[str]:
        """The names of the text encoders."""
        return [one.model for one in self.pipe.encoders]


def load(model: str) -> Base:
    """The model of that name. Raises ValueError for one that is not Stable Diffusion from text, or lacks a part."""
    pipe, params = DiffusionPipeline.from_pretrained(model)
    if not isinstance(pipe, StableDiffusionPipeline | StableDiffusionXLPipeline):
        raise ValueError(f"{model} is a {type(pipe).__name__}; choose a model of StableDiffusionPipeline or "
                         "StableDiffusionXLPipeline, which draw pictures from text")
    for one in pipe.encoders:
        if getattr(pipe, one.model) is None:
            raise ValueError(f"{model} has no {one.model}, which training needs; choose another model")
    return Base(pipe, params)


def posterior(vae: Any, params: Any, pictures: jax.Array) -> DiagonalGaussian:
    """What the autoencoder makes of pictures (b, h, w, 3) in [-1, 1], one at a time to save memory."""
    found: DiagonalGaussian = sliced(lambda x: vae.apply({"params": params}, x, method="encode"), pictures)
    return found


def tokens(pipe: Any, texts: Sequence[str]) -> tuple[prompts.Tokens, ...]:
    """The texts for each text encoder."""
    return tuple(one.tokens(pipe, texts) for one in pipe.encoders)


def read(pipe: Any, params: Params, found: tuple[prompts.Tokens, ...]) -> Encoded:
    """What the text encoders make of texts; "lora" of the parameters is added while they run."""
    each = [one.encode(pipe, params, some) for one, some in zip(pipe.encoders, found, strict=True)]
    return Encoded(jnp.concatenate([one.embeddings for one in each], axis=-1), each[-1].pooled)


def latents(pipe: Any, params: Params, batch: Mapping[str, Any], key: jax.Array) -> jax.Array:
    """Latents (b, h, w, c) of a batch as the U-Net has them, drawn from what the autoencoder says of its pictures."""
    if "image" in batch:
        found = posterior(pipe.vae, params["vae"], pixels(batch["image"]))
    else:
        found = DiagonalGaussian(batch["mean"], batch["logvar"])
    scaled: jax.Array = pipe.vae.scale(found.sample(key).astype(jnp.float32))
    return scaled


def told_sizes(pipe: Any) -> bool:
    """Whether the U-Net is told pooled embeddings and the sizes of pictures, as SDXL's is."""
    return bool(pipe.unet.addition_embed_type == "text_time")


def told(pipe: Any, encoded: Encoded, batch: Mapping[str, Any], scale: jax.Array | None = None) -> Condition:
    """What the U-Net is told: of SDXL the pooled embedding and the sizes too; `scale` as it is embedded."""
    if not told_sizes(pipe):
        return Condition(encoded.embeddings, scale=scale)
    return Condition(encoded.embeddings, {"text_embeds": encoded.pooled, "time_ids": batch["time_ids"]}, scale=scale)


def read_batch(
    pipe: Any, params: Params, batch: Mapping[str, Any], key: jax.Array, rate: float
) -> tuple[Encoded, Encoded]:
    """(the texts of a batch, those withheld at that rate being nothing; nothing, one for all)."""
    def known(found: Any) -> Encoded:
        return found if isinstance(found, Encoded) else read(pipe, params, found)

    encoded, nothing = known(batch["text"]), known(params["nothing"])
    return (withhold(key, rate, encoded, nothing) if rate else encoded), nothing


Denoise = Callable[[Any, Params, Mapping[str, Any], Condition], Network]


def plain(pipe: Any, params: Params, batch: Mapping[str, Any], condition: Condition) -> Network:
    """The U-Net alone, with "lora" of the parameters if it is there."""
    return guidance.given(denoiser(pipe.unet, params), condition)


def loss(
    pipe: Any, settings: TextSettings, params: Params, batch: Mapping[str, Any], key: jax.Array,
    network: Denoise = plain,
) -> jax.Array:  # fmt: skip
    """The denoising loss of a pipeline with these parameters and those that `Material.needs`.

    The batch is `Material.collate`'s, and may have "share" (b,), a weight of each sample. network: what denoises, told
    the batch.
    """
    key_latents, key_text, key = jax.random.split(key, 3)
    x0 = latents(pipe, params, batch, key_latents)
    condition = told(pipe, read_batch(pipe, params, batch, key_text, settings.withhold)[0], batch)
    weighed = weight(settings.weight)
    if "share" in batch:
        weighed = _shared(weighed, batch["share"])
    return denoising_loss(
        network(pipe, params, batch, condition), pipe.scheduler, x0, key, weight=weighed,
        offset_noise=settings.offset_noise,
    )  # fmt: skip


def _shared(weighed: Any, share: jax.Array) -> Callable[[Level], jax.Array]:
    return lambda level: share if weighed is None else share * weighed(level)


def frozen(settings: TextSettings, params: Params) -> Params:
    """Parameters that are not trained, in what the training computes in; not the autoencoder, which may overflow."""
    if settings.dtype == "float32":
        return params
    return {name: tree if name == "vae" else lowered(tree, settings.dtype) for name, tree in params.items()}
