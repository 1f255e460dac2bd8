"""Pictures drawn in the latent space of an autoencoder that has been trained before."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import hub, registry
from fdiff.bars import bar
from fdiff.models import AutoencoderKL, DiTTransformer2DModel, VQModel
from fdiff.models.model import CONFIG
from fdiff.pipelines import DiTPipeline, LDMPipeline
from fdiff.pipelines.latent import encoded, factor_of
from fdiff.pipelines.task import option
from fdiff.pipelines.unconditional import PictureNetwork
from fdiff.training.data import Source
from fdiff.training.kept import Kept, digest, keep
from fdiff.training.loader import Prepare, Preparing, once, pixels
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.step import Loss
from fdiff.training.tasks.denoising import collated, loss_of, prepared_for
from fdiff.training.tasks.pixels import NetworkSettings, Shape, buckets, init_params, network, prepared, scheduler

BATCH = 16  # pictures that are encoded at a time
CLASSES = 1000  # diffusers' DiTPipeline takes class 1,000 for "no class", whatever the network has
ONLY = "picture"  # the name of the one class of DiTs that were told nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSettings(NetworkSettings):
    """Of networks in latents."""

    vae: str = option("", "the autoencoder: a folder, such as one that the training vae wrote, or a Hub id")
    unconditional: bool = option(False, "draw pictures of no class, though the data has some")
    withhold: float = setting(
        0.1, "share of the samples whose class is withheld, so that guidance can be used", least=0, below=1
    )

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range, and for no autoencoder."""
        super().__post_init__()
        if not self.vae:
            raise ValueError("vae is not given; name an autoencoder, such as a folder that fdiff train vae wrote")


class Autoencoder(NamedTuple):
    """The autoencoder and its parameters."""

    model: AutoencoderKL | VQModel
    params: Any


def load(source: str) -> Autoencoder:
    """The autoencoder of a folder or Hub id. Raises ValueError for what is none."""
    try:
        config = hub.load_config(source, CONFIG)
    except FileNotFoundError as error:
        raise ValueError(f"vae is {source}, which holds no {CONFIG}; give the folder of an AutoencoderKL or a VQModel, "
                         "such as the vae in a pipeline's") from error
    kind = registry.lookup(config.get("_class_name"), config=config)
    if kind not in (AutoencoderKL, VQModel):
        raise ValueError(f"vae is {source}, which holds a {config.get('_class_name')}; give the folder of an "
                         "AutoencoderKL or a VQModel")
    return Autoencoder(*kind.from_pretrained(source, dtype=jnp.float32))


def shape_in_latents(vae: AutoencoderKL | VQModel, size: tuple[int, int]) -> Shape:
    """The shape of the latents of pictures of that size. Raises ValueError for one without whole latents."""
    factor = factor_of(vae)
    if size[0] % factor or size[1] % factor:
        raise ValueError(f"size {size[0]}x{size[1]} has no whole latents, {factor} pixels wide; choose a multiple of "
                         f"{factor} with --size")
    channels = getattr(vae, "vq_embed_dim", None) or vae.latent_channels
    return size[0] // factor, size[1] // factor, channels


@dataclasses.dataclass(frozen=True)
class Side:
    """Takes one side of the latents that are kept of a sample: as it is, or mirrored."""

    def __call__(self, sample: Any, random: np.random.Generator) -> dict[str, Any]:
        """The arrays of the sample."""
        return {**sample, "latents": sample["latents"][random.integers(len(sample["latents"]))]}


def encoded_latents(
    vae: Autoencoder, prepare: Prepare, source: Source, flip: bool
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(numbers, arrays) of all samples: latents (b, sides, h, w, c) as a denoiser has them, and labels if any."""
    with bar(total=len(source), desc="latents", unit="picture") as shown:
        for numbers, arrays in once(source, prepare, BATCH):
            images = arrays["image"]
            room = [(0, BATCH - len(images)), *((0, 0),) * 3]  # so that it compiles once
            sides = [images, images[:, :, ::-1]] if flip else [images]
            found = [encoded(vae.model, vae.params, pixels(np.pad(side, room)))[: len(images)] for side in sides]
            yield numbers, {"latents": np.stack(found, 1)} | ({"label": arrays["label"]} if "label" in arrays else {})
            shown.update(len(numbers))


def facts_of(vae: Autoencoder, prepare: Prepare, source: Source, flip: bool) -> dict[str, Any]:
    """All that latents depend on."""
    weights = hashlib.sha256()
    for leaf in jax.tree.leaves(vae.params):
        weights.update(np.ascontiguousarray(leaf).tobytes())
    return {
        "vae": vae.model.config(), "weights": weights.hexdigest(), "size": list(prepare.size or ()),
        "fit": prepare.fit, "flip": flip, "samples": digest(source.name(i) for i in range(len(source))),
    }  # fmt: skip


def widened(model: PictureNetwork, params: Any, alone: bool) -> tuple[PictureNetwork, Any]:
    """The network with a row for each of `CLASSES` and, behind them, for "no class", as diffusers asks for it.

    alone: there is one class, which is then "no class" too, so that guidance changes nothing.
    """
    classes = (model.num_class_embeds or 1) - 1
    if classes >= CLASSES:
        return model, params

    def wide(path: Any, leaf: Any) -> Any:
        if not any(name in entry.key for entry in path for name in ("embedding_table", "class_embedding")):
            return leaf
        none = leaf[:1] if alone else leaf[-1:]
        return jnp.concatenate([leaf[:-1], jnp.zeros((CLASSES - classes, leaf.shape[1]), leaf.dtype), none])

    told = ("num_embeds_ada_norm", CLASSES) if isinstance(model, DiTTransformer2DModel) else (
        "num_class_embeds", CLASSES + 1
    )  # fmt: skip
    config = {**model.config(), told[0]: told[1]}
    return type(model).from_config(config), jax.tree_util.tree_map_with_path(wide, params)


def recipe(settings: LatentSettings, source: Source, folder: Path) -> Recipe:
    """A network that draws latents of pictures like those of the source, of a class where it has some.

    The latents are computed once and kept in the output folder, but with buckets in every step. Raises ValueError for
    an autoencoder that is none, and for pictures that do not fit it.
    """
    vae = load(settings.vae)
    if vae.model.in_channels not in (1, 3):
        raise ValueError(f"vae is {settings.vae}, for pictures of {vae.model.in_channels} channels; choose one for 1 "
                         "or 3")
    prepare = dataclasses.replace(prepared(settings, source, vae.model.in_channels == 1), flip=False)
    assert prepare.size is not None
    shape = shape_in_latents(vae.model, prepare.size)
    conditional = bool(source.classes) and not settings.unconditional
    alone = not conditional and settings.network == "dit"  # diffusers has no pipeline for a DiT that is told nothing
    names = source.classes if conditional else (ONLY,) * alone
    model, levels = network(settings, shape, len(names)), scheduler(settings)
    shapes = buckets(settings, model, factor_of(vae.model))
    of_latents = loss_of(settings, model, jnp.asarray, len(names), settings.withhold if conditional else 0.0)

    def of_pictures(frozen: Any, params: Any, batch: Any, key: jax.Array) -> Any:
        return of_latents(params, {**batch, "x0": encoded(vae.model, frozen, pixels(batch["x0"]))}, key)

    loss: Loss = of_latents
    kept: Kept | None = None
    preparing: Preparing = dataclasses.replace(prepare, flip=settings.flip)
    if shapes:
        loss = Partial(of_pictures, vae.params)
    else:
        kept = keep(folder / "latents", facts_of(vae, prepare, source, settings.flip), len(source),
                    encoded_latents(vae, prepare, source, settings.flip))  # fmt: skip
        preparing = prepared_for(settings, Side(), shape)
    collate = collated("image" if shapes else "latents", conditional)

    def labelled(arrays: dict[str, Any]) -> Any:
        batch = collate(arrays)
        return {**batch, "label": np.zeros(len(batch["x0"]), np.int32)} if alone else batch

    def pipeline(params: Any) -> tuple[Any, Any]:
        if not names:
            return LDMPipeline(vae.model, model, levels), {"vqvae": vae.params, "unet": params}
        wide, params = widened(model, params, alone)
        return DiTPipeline(wide, vae.model, levels, names), {"transformer": params, "vae": vae.params}

    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        asked = {"class_labels": [i % len(names) for i in range(count)]} if names else {"batch_size": count}
        drawn: list[Any] = pipe(params, **asked, key=key, progress=False).images
        return drawn

    return Recipe(
        init_params(model, settings.seed), loss, preparing, labelled, pipeline, draw, kept, shapes=shapes,
    )  # fmt: skip


latent = Task(LatentSettings, recipe, "Pictures like those of the data, drawn in the latents of an autoencoder.")
