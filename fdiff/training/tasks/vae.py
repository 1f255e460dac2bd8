"""Autoencoders: pictures to latents and back, normally distributed ones or vectors of a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import images
from fdiff.models import AutoencoderKL, VQModel
from fdiff.pipelines.latent import decoded, encoded
from fdiff.pipelines.task import option
from fdiff.training.data import Source
from fdiff.training.loader import Prepare, batches, pixels
from fdiff.training.recipe import Recipe, Settings, Task, setting
from fdiff.training.tasks.pixels import numbers, prepared

Perceptual = Callable[[jax.Array, jax.Array], jax.Array]
MEASURED = 512  # pictures from which the scale of the latents is measured
BATCH = 16  # of them at a time
COLLAPSED = 1e-6  # a deviation of latents that say nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(Settings):
    """Of autoencoders."""

    kind: str = setting("kl", "kl, normally distributed latents; or vq, vectors of a table", choices=("kl", "vq"))
    channels: str = option("32,64", "of each level; every further one halves the picture")
    layers: int = setting(1, "residual blocks of each level", least=1)
    latent_channels: int = setting(4, "of the latents", least=1)
    codes: int = setting(256, "vectors in the table of kind vq", least=1)
    error: str = setting("l1", "how far a reconstruction is off: l1, the mean distance of pixels, or l2, its square",
                         choices=("l1", "l2"))
    kl_weight: float = setting(1e-6, "of the distance of latents from standard normal ones, of kind kl", least=0)
    codebook_weight: float = setting(
        1.0, "of the distance of latents from the vectors of the table, of kind vq", least=0
    )
    commitment: float = setting(
        0.25, "how much latents are drawn to their vectors, beside these to them, of kind vq", least=0
    )
    gray: bool | None = option(None, "one channel in place of three; as the first picture is if not given")


def network(settings: AutoencoderSettings, prepare: Prepare) -> AutoencoderKL | VQModel:
    """An autoencoder for pictures of that size. Raises ValueError for a size that its levels do not halve."""
    assert prepare.size is not None
    (height, width), channels = prepare.size, numbers("channels", settings.channels)
    multiple = 2 ** (len(channels) - 1)
    if not channels or height % multiple or width % multiple:
        raise ValueError(f"size {height}x{width} cannot be halved {max(len(channels) - 1, 0)} times by channels "
                         f"{settings.channels!r}; choose a multiple of {multiple}, or other channels")
    options: dict[str, Any] = {
        "in_channels": prepare.channels, "out_channels": prepare.channels, "block_out_channels": channels,
        "layers_per_block": settings.layers, "latent_channels": settings.latent_channels, "scaling_factor": 1.0,
        "norm_num_groups": math.gcd(8, *channels), "sample_size": height if height == width else (height, width),
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
    }  # fmt: skip
    return AutoencoderKL(**options) if settings.kind == "kl" else VQModel(num_vq_embeddings=settings.codes, **options)


def begun(settings: AutoencoderSettings, model: Any, some: np.ndarray) -> Any:
    """Parameters to begin with, from bytes of some pictures.

    Latents of kind kl have little noise, so that something comes through; the table of kind vq holds latents of the
    pictures, since a vector that lies far from all of them is never used and so never learned.
    """
    params = model.init_params(jax.random.key(settings.seed))
    if settings.kind == "kl":
        params["quant_conv"]["bias"] = params["quant_conv"]["bias"].at[settings.latent_channels :].set(-6.0)
        return params
    found = latents_of(model, params, some).reshape(-1, settings.latent_channels)
    random = np.random.default_rng(settings.seed)
    table = found[random.choice(len(found), settings.codes, replace=len(found) < settings.codes)]
    params["quantize"]["embedding"]["embedding"] = jnp.asarray(
        table + 0.01 * found.std() * random.standard_normal(table.shape, np.float32)
    )
    return params


def latents_of(model: Any, params: Any, some: np.ndarray) -> np.ndarray:
    """Latents (n, h, w, c) of bytes (n, H, W, c) as a denoiser has them, `BATCH` at a time."""
    room = np.concatenate([some, np.zeros((-len(some) % BATCH, *some.shape[1:]), some.dtype)])
    parts = [encoded(model, params, pixels(room[i : i + BATCH])) for i in range(0, len(room), BATCH)]
    return np.concatenate(parts)[: len(some)]


def scaled(model: Any, params: Any, some: np.ndarray) -> Any:
    """The autoencoder with the scaling_factor that gives latents of those pictures the deviation 1.

    Raises ValueError where all of them have the same latents.
    """
    deviation = float(latents_of(model.clone(scaling_factor=1.0), params, some).std())
    if not deviation > COLLAPSED:
        raise ValueError("all pictures have the same latents, so nothing can be drawn from them; train with a lower "
                         "learning rate or kl_weight")
    return model.clone(scaling_factor=round(1 / deviation, 4))


def off(settings: AutoencoderSettings, drawn: jax.Array, pictures: jax.Array) -> jax.Array:
    """The mean error of reconstructions."""
    error = drawn.astype(jnp.float32) - pictures
    return jnp.mean(jnp.abs(error) if settings.error == "l1" else error**2)


def loss_of(settings: AutoencoderSettings, model: Any, perceptual: Perceptual | None) -> Any:
    """The loss of a batch of bytes: error + weight KL (Rombach et al. 2022, appendix G), or, of kind vq,

        error + weight (|nearest - sg(z)|^2 + commitment |z - sg(nearest)|^2)    (van den Oord et al. 2017, eq. 3)
    """
    stop = jax.lax.stop_gradient

    def of_table(model: Any, pictures: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        z = model.encode(pictures)
        return model.decode(z), z, model.quantize.lookup(model.quantize(z).indices)

    def loss(params: Any, batch: Any, key: jax.Array) -> Any:
        pictures = pixels(batch)
        if settings.kind == "kl":
            posterior = model.apply({"params": params}, pictures, method="encode")
            drawn = model.apply({"params": params}, posterior.sample(key), method="decode")
            beside = {"kl": jnp.mean(posterior.kl().astype(jnp.float32))}
            total = settings.kl_weight * beside["kl"]
        else:
            drawn, z, nearest = model.apply({"params": params}, pictures, method=of_table)
            z, nearest = z.astype(jnp.float32), nearest.astype(jnp.float32)
            table, commitment = (jnp.mean((a - stop(b)) ** 2) for a, b in ((nearest, z), (z, nearest)))
            beside = {"codebook": table}
            total = settings.codebook_weight * (table + settings.commitment * commitment)
        beside["error"] = off(settings, drawn, pictures)
        total += beside["error"]
        return total if perceptual is None else total + perceptual(pictures, drawn.astype(jnp.float32)), beside

    return loss


def recipe(
    settings: AutoencoderSettings, source: Source, _: Path, perceptual: Perceptual | None = None
) -> Recipe:
    """An autoencoder of the source's pictures; see `autoencoder`."""
    prepare = prepared(settings, source, settings.gray)
    model = network(settings, prepare)
    some = next(batches(source, prepare, min(MEASURED, len(source)), seed=settings.seed)).arrays["image"]

    def draw(model: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        """Pictures above what becomes of them."""
        shown = some[:count]
        latents = encoded(model, params, pixels(shown))
        return images.to_pil(jnp.concatenate([pixels(shown), decoded(model, params, latents)], axis=1))

    return Recipe(
        begun(settings, model, some), loss_of(settings, model, perceptual), prepare, lambda arrays: arrays["image"],
        lambda params: (scaled(model, params, some), params), draw,
    )  # fmt: skip


def autoencoder(perceptual: Perceptual | None = None) -> Task:
    """The task whose loss has a number more: perceptual(pictures, reconstructions), both (b, h, w, c) in [-1, 1].

    Such as a distance in the features of a network that knows pictures (Zhang et al. 2018), weighed already.
    """
    def with_it(settings: AutoencoderSettings, source: Source, folder: Path) -> Recipe:
        return recipe(settings, source, folder, perceptual)

    return Task(AutoencoderSettings, with_it, "An autoencoder, in whose latents others can be trained to draw.")


vae = autoencoder()
