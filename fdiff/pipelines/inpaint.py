"""A part of a picture painted anew, with U-Nets made for it and plain ones: the pure function, and its stages."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import sampling
from fdiff.models import AsymmetricAutoencoderKL, AutoencoderKL, ControlNetModel, UNet2DConditionModel
from fdiff.pipelines import denoise, inputs, latent, steering
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw, draw_as_asked
from fdiff.pipelines.image_to_image import noised
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Pictures, Scale, Size
from fdiff.pipelines.steering import Control
from fdiff.pipelines.task import Key
from fdiff.pipelines.text import Texts
from fdiff.plan import Plan


def inpaint(
    unet: UNet2DConditionModel, vae: AutoencoderKL, params: Params, plan: Plan, image: jax.Array, mask: jax.Array,
    condition: Any, negative: Any, key: jax.Array, *, strength: float = 1.0, guidance_scale: Scale = 7.5,
    guidance_rescale: Scale = 0.0, nets: tuple[ControlNetModel, ...] = (), control: Control | None = None,
    remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Paint pictures (b, h, w, 3) in [-1, 1] anew where mask (b, h, w, 1) is 1: a pure function.

    A U-Net of 9 channels sees the mask and the rest of the picture. With a plain one, the rest is put back after each
    step, at the noise level that the step reached.

    plan: of that strength. strength: at 1 the run begins with noise alone. The other arguments are those of
    `text_to_image`.
    """
    shape = (image.shape[1] // latent.factor_of(vae), image.shape[2] // latent.factor_of(vae), vae.latent_channels)
    (for_image, noise, for_rest), later, _ = draw(key, image.shape[0], *[Wanted(shape)] * 3)
    known = _Known(image, mask, for_image, noise, for_rest)
    begin = "noise" if strength == 1 else "noised"
    x, appended, after = _prepare(vae, params, plan, known, begin, plain=unet.in_channels == vae.latent_channels)
    condition, negative = (each and denoise.append(each, appended) for each in (condition, negative))
    network = steering.controlled(denoise.denoiser(unet, params), params, nets, control)
    guided = denoise.guide(network, condition, negative, guidance_scale, guidance_rescale)
    return latent.decoded(vae, params["vae"], sampling.sample(guided, plan, x, later, after=after, remat=remat))


class _Known(NamedTuple):
    """A picture, its mask, and standard normal noise for its latents, for the run and for those of the rest."""

    image: jax.Array
    mask: jax.Array
    for_image: jax.Array
    noise: jax.Array
    for_rest: jax.Array


def _prepare(
    vae: Any, params: Params, plan: Plan, known: _Known, begin: str, plain: bool
) -> tuple[jax.Array, jax.Array | None, Any]:
    """x at the start; what a U-Net of 9 channels is told; what is done after each step with a plain one.

    begin: with noise, with the picture noised, or with the picture, which is at the plan's first level already.
    """
    batch_size, mask = len(known.noise), _small(known)
    latents = appended = after = None
    if plain or begin != "noise":
        latents = inputs.latents_of(vae, params, known.image, known.for_image, batch_size)
    if not plain:
        rest = known.image * (1 - known.mask)
        of_rest = inputs.latents_of(vae, params, rest, known.for_rest, batch_size)
        appended = jnp.concatenate([mask, of_rest], axis=-1)
    elif latents is not None:
        after = Partial(put_back, mask, latents, known.noise, *levels_after(plan))
    if begin == "noise" or latents is None:
        return plan.start * known.noise, appended, after
    return latents if begin == "picture" else noised(plan, latents, known.noise), appended, after


def _small(known: _Known) -> jax.Array:
    """The mask (b, h, w, 1) in latents: of each square the first pixel."""
    factor = known.mask.shape[1] // known.noise.shape[1]
    return inputs.spread("mask_image", known.mask[:, ::factor, ::factor], len(known.noise))


def levels_after(plan: Plan) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma), (n,) each: the level of x behind each row, which is clean at the end."""
    follows = jnp.append(jnp.asarray(plan.c_in)[1:] != 0, False)
    alpha, sigma = (jnp.append(jnp.asarray(level)[1:], 0.0) for level in (plan.alpha, plan.sigma))
    return jnp.where(follows, alpha, 1.0), jnp.where(follows, sigma, 0.0)


def put_back(
    mask: jax.Array, known: jax.Array, noise: jax.Array, alpha: jax.Array, sigma: jax.Array, x: jax.Array, i: jax.Array
) -> jax.Array:
    """x where the mask is 1, and what is known, noised to the level behind row i, where it is 0."""
    return mask * x + (1 - mask) * (alpha[i] * known + sigma[i] * noise)


class Mask(NamedTuple):
    """What is to be painted: (b, h, w, 1) of 0 and 1."""

    mask: np.ndarray


def masked(mask_image: Pictures, pixels: Size, resized: bool) -> Mask:
    """Stage: the mask of the user's picture, resized as it was."""
    return Mask(inputs.mask_pictures(mask_image, pixels, resized))


class BegunInPart(NamedTuple):
    """The first x, the draws of the steps, what the U-Net sees besides x, and what becomes of x after each step."""

    x: jax.Array
    draws: Draws
    appended: jax.Array | None
    after: Any
    around: dict[str, Any] | None  # what the decoder is told of the picture
    known: jax.Array | None  # the picture's latents, where they are put back


def from_masked(
    vae: AutoencoderKL, unet: UNet2DConditionModel, params: Params, plan: Plan, image: np.ndarray, mask: np.ndarray,
    size: Size, texts: Texts, strength: float, latents: Any, key: Key, torch_seed: Seed,
    denoising_start: float | None = None,
) -> BegunInPart:  # fmt: skip
    """Stage: begin with noise, with the picture noised, or with the picture, if it has a denoising_start.

    Raises ValueError for latents where the U-Net sees the picture.
    """
    plain = unet.in_channels == vae.latent_channels
    return in_part(
        plain, vae, params, plan, image, mask, size, texts, strength, latents, key, torch_seed, denoising_start
    )


def in_part(
    plain: bool, vae: Any, params: Params, plan: Plan, image: np.ndarray, mask: np.ndarray, size: Size, texts: Any,
    strength: float, latents: Any, key: Key, torch_seed: Seed, denoising_start: float | None = None,
) -> BegunInPart:  # fmt: skip
    """Where such a run begins, of a `plain` network, which does not see the picture, or of one that does.

    torch's numbers come in the order of diffusers, which encodes the rest of the picture for both.
    """
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    inputs.check_number("mask_image", mask, texts.batch_size, texts.prompts)
    shape = (texts.batch_size, *size, vae.latent_channels)
    begin = "picture" if denoising_start is not None else "noise" if strength == 1 else "noised"
    ready = inputs.holds_latents(vae, image)
    if not plain:
        inputs.check_seen(vae, image, "unet")
    rows = 0 if ready else len(image)
    wanted = (rows if plain or begin != "noise" else 0, None if latents is None else 0, rows)
    draws = draw_as_asked(key, torch_seed, plan, shape, texts.dtype, *(Wanted(shape[1:], one) for one in wanted))
    for_image, noise, for_rest = draws.arrays
    noise = noise if latents is None else latent.checked_latents(latents, shape)
    known = _Known(jnp.asarray(image), jnp.asarray(mask), for_image, noise, for_rest)
    x, appended, after = _prepare(vae, params, plan, known, begin, plain)
    around = {"image": known.image, "mask": known.mask} if isinstance(vae, AsymmetricAutoencoderKL) else None
    return BegunInPart(x, draws, appended, after, around, None if after is None else after.args[1])
