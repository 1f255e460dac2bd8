"""Between pictures and the latents of an autoencoder: sizes, first latents, encoding and decoding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import images
from fdiff.image_processors import CLIPImageProcessor
from fdiff.lean import Program
from fdiff.models import AutoencoderDC, AutoencoderKL, StableDiffusionSafetyChecker, UNet2DConditionModel
from fdiff.models.autoencoder_kl_wan import StandardizedAutoencoder
from fdiff.models.layers.vae import DiagonalGaussian
from fdiff.models.tiling import sliced, tiled_decode
from fdiff.pipelines.checks import check_finite, finite
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.pipeline import ImageOutput, Params, tree_of
from fdiff.pipelines.requests import Pixels, Size
from fdiff.pipelines.task import Key
from fdiff.plan import Plan

Autoencoder: TypeAlias = AutoencoderKL | StandardizedAutoencoder | AutoencoderDC  # of pictures


def factor_of(vae: Any) -> int:
    """How many pixels a latent is wide."""
    channels = getattr(vae, "block_out_channels", None) or vae.decoder_block_out_channels
    return 2 ** (len(channels) - 1)


class Sized(NamedTuple):
    """Height and width in latents."""

    size: Size


def sized(vae: AutoencoderKL, unet: UNet2DConditionModel, height: Pixels, width: Pixels) -> Sized:
    """Stage: the size in latents, that which the U-Net was trained on if not given.

    Raises ValueError unless they are multiples of 8 pixels.
    """
    factor, size = factor_of(vae), unet.sample_size
    if size is None and None in (height, width):
        raise ValueError("the config.json of the unet has no sample_size; pass height and width")
    own: Any = (size, size) if size is None or isinstance(size, int) else size
    pixels = [side * factor if given is None else given for given, side in zip((height, width), own, strict=True)]
    check_pixels(pixels[0], pixels[1], factor)
    return Sized((pixels[0] // factor, pixels[1] // factor))


def check_pixels(height: int, width: int, factor: int) -> None:
    """Raise ValueError unless both are multiples of 8, or of the pixels of a latent if those are more."""
    check_multiples(height, width, max(8, factor))


def check_multiples(height: int, width: int, step: int) -> None:
    """Raise ValueError unless both are multiples of so many pixels."""
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, int | np.integer) or value < step or value % step:
            known = isinstance(value, int | float | np.number) and np.isfinite(value)
            near = max(step, round(value / step) * step) if known else 8 * step
            raise ValueError(f"{name} is {value!r}; it must be a multiple of {step}, such as {near}")


class Begun(NamedTuple):
    """The first x, (b, h, w, c), and the draws of the steps."""

    x: jax.Array
    draws: Draws


def first_latents(
    plan: Plan, shape: tuple[int, ...], latents: Any, key: Key, torch_seed: Seed, dtype: Any
) -> Begun:
    """Where a run from pure noise starts: the user's `latents` or a draw, (b, h, w, c), and the draws of its steps."""
    draws = draw_as_asked(key, torch_seed, plan, shape, dtype, Wanted(shape[1:], None if latents is None else 0))
    return Begun(plan.start * (draws.arrays[0] if latents is None else checked_latents(latents, shape)), draws)


def checked_latents(latents: Any, shape: tuple[int, ...]) -> jax.Array:
    """The user's latents. Raises ValueError where they have another shape."""
    if tuple(np.shape(latents)) != shape:
        axes = ": batch, height, width, c" if len(shape) == 4 else ""
        raise ValueError(f"latents have shape {tuple(np.shape(latents))}; it must be {shape}{axes}")
    return finite("latents", jnp.asarray(latents, jnp.float32))


@partial(Program, static_argnums=(0, 3))
def decoded(vae: Any, params: Any, latents: jax.Array, tile_size: int | None = None) -> jax.Array:
    """Pictures (b, H, W, 3), float32, of latents as a denoiser has them; one at a time, to save memory."""

    def one(z: jax.Array) -> jax.Array:
        if tile_size is not None:
            return tiled_decode(vae, params, z, tile_size)
        pictures: jax.Array = vae.apply({"params": params}, z, method="decode")
        return pictures

    return sliced(one, rescaled(vae, params, latents, "unscale")).astype(jnp.float32)


@partial(Program, static_argnums=0)
def decoded_around(vae: Any, params: Any, latents: jax.Array, image: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Pictures (b, H, W, 3), float32, of latents and of the pictures around them."""
    unscaled = rescaled(vae, params, latents, "unscale")
    drawn: jax.Array = vae.apply({"params": params}, unscaled, image, mask, method="decode")
    return drawn.astype(jnp.float32)


@partial(Program, static_argnums=0)
def encoded(vae: Any, params: Any, pictures: jax.Array | np.ndarray, noise: jax.Array | None = None) -> jax.Array:
    """Latents as a denoiser takes them, float32: the most probable ones, or drawn with `noise` (b, h, w, c).

    There may be fewer pictures than noise; each is then drawn as often as that takes.
    """
    latents = sliced(lambda x: vae.apply({"params": params}, x, method="encode"), jnp.asarray(pictures))
    if noise is not None:
        latents = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(noise) // len(leaf), axis=0), latents)
    if isinstance(latents, DiagonalGaussian):
        latents = latents.mean if noise is None else latents.mean + latents.std * noise
    return rescaled(vae, params, latents.astype(jnp.float32), "scale")


def rescaled(vae: Any, params: Any, latents: jax.Array, method: str) -> jax.Array:
    """Latents as a denoiser has them, by "scale", or as the autoencoder has them, by "unscale"."""
    found: jax.Array = vae.apply({"params": params}, latents, method=method)
    return found


def decode(
    pipe: Any, params: Params, latents: jax.Array, tile_size: int | None = None, *, image: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Pictures (b, H, W, 3) in [-1, 1], or nearly so, of latents: a preview of x0, or the end of a run.

    tile_size: in pixels; large pictures are decoded in tiles of that size, see `fdiff.models.tiling.tiled_decode`.
    image, mask: what an AsymmetricAutoencoderKL sees of the picture around the part that is painted anew.
    """
    if image is not None:
        return decoded_around(getattr(pipe, pipe.autoencoder), tree_of(params, pipe.autoencoder), latents, image, mask)
    return decoded(getattr(pipe, pipe.autoencoder), tree_of(params, pipe.autoencoder), latents, tile_size)


def check_output_type(output_type: str) -> None:
    """Raise ValueError unless it is one of those of `fdiff.images` or latent."""
    if output_type not in ("latent", *images.OUTPUT_TYPES):
        raise ValueError(f"output_type is {output_type!r}; it can be latent, {', '.join(images.OUTPUT_TYPES)}")


def pictures(
    pipe: Any, params: Params, output_type: str, safety_checker: StableDiffusionSafetyChecker | None = None,
    feature_extractor: CLIPImageProcessor | None = None, around: dict[str, Any] | None = None,
    overlay: Callable[[Any], list[Any]] | None = None,
) -> Callable[[jax.Array], ImageOutput]:  # fmt: skip
    """Finish: latents to pictures.

    output_type: pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1]; latent, undecoded. Where the pipeline has a safety
    checker, what it finds unsafe comes out black. around: what the decoder is told besides the latents; overlay: what
    becomes of the PIL images that it makes.
    """
    check_output_type(output_type)
    if output_type == "latent":
        return ImageOutput
    tree_of(params, pipe.autoencoder)

    def made(latents: jax.Array) -> ImageOutput:
        drawn, flags = pipe.decode(params, latents, **around or {}), None
        check_finite(drawn)
        if safety_checker is not None:
            pixels = (feature_extractor or CLIPImageProcessor())(np.asarray(drawn))
            flags = _flagged(safety_checker, tree_of(params, "safety_checker"), pixels)
            drawn = jnp.where(flags[:, None, None, None], -1.0, drawn)
        found = images.to_output(drawn, output_type)
        return ImageOutput(overlay(found) if overlay else found, None if flags is None else np.asarray(flags))

    return made


@partial(jax.jit, static_argnums=0)
def _flagged(checker: Any, params: Any, pixels: Any) -> jax.Array:
    flags: jax.Array = checker.apply({"params": params}, pixels)
    return flags
