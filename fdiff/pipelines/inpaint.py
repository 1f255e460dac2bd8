"""A part of a picture painted anew: Stable Diffusion 1.x and 2.x, with U-Nets made for it and plain ones."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff import sampling
from fdiff.guidance import Guider
from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import (
    AutoencoderKL,
    CLIPTextModel,
    ControlNetModel,
    StableDiffusionSafetyChecker,
    UNet2DConditionModel,
)
from fdiff.pipelines import denoise, inputs, latent, text
from fdiff.pipelines.denoise import Condition, Control, Guidance, Interval, Scale
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw, draw_as_asked
from fdiff.pipelines.image_to_image import noised
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


def inpaint(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    params: Params,
    plan: Plan,
    image: jax.Array,
    mask: jax.Array,
    condition: Condition,
    negative: Condition | None,
    key: jax.Array,
    *,
    strength: float = 1.0,
    guidance_scale: Scale = 7.5,
    guidance_rescale: Scale = 0.0,
    nets: tuple[ControlNetModel, ...] = (),
    control: Control | None = None,
) -> jax.Array:
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
    condition, negative = _append(appended, condition), None if negative is None else _append(appended, negative)
    network = denoise.denoiser(unet, params, nets, control)
    guided = denoise.guide(network, condition, negative, guidance_scale, guidance_rescale)
    return latent.decoded(vae, params["vae"], sampling.sample(guided, plan, x, later, after=after))


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
        after = Partial(_put_back, mask, latents, known.noise, *_levels_after(plan))
    if begin == "noise" or latents is None:
        return plan.start * known.noise, appended, after
    return latents if begin == "picture" else noised(plan, latents, known.noise), appended, after


def _small(known: _Known) -> jax.Array:
    """The mask (b, h, w, 1) in latents: of each square the first pixel."""
    factor = known.mask.shape[1] // known.noise.shape[1]
    return inputs.spread("mask_image", known.mask[:, ::factor, ::factor], len(known.noise))


def _levels_after(plan: Plan) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma), (n,) each: the level of x behind each row, which is clean at the end."""
    follows = jnp.append(jnp.asarray(plan.c_in)[1:] != 0, False)
    alpha, sigma = (jnp.append(jnp.asarray(level)[1:], 0.0) for level in (plan.alpha, plan.sigma))
    return jnp.where(follows, alpha, 1.0), jnp.where(follows, sigma, 0.0)


def _put_back(
    mask: jax.Array, known: jax.Array, noise: jax.Array, alpha: jax.Array, sigma: jax.Array, x: jax.Array, i: jax.Array
) -> jax.Array:
    return mask * x + (1 - mask) * (alpha[i] * known + sigma[i] * noise)


def _append(appended: jax.Array | None, condition: Condition) -> Condition:
    return condition._replace(appended=appended)


def start(
    pipe: Any,
    params: Params,
    plan: Plan,
    image: Any,
    mask: Any,
    shape: tuple[int, ...],
    strength: float,
    latents: Any,
    key: Key,
    torch_seed: Seed,
    dtype: Any,
    begun: bool = False,
) -> tuple[jax.Array, Draws, jax.Array | None, Any]:
    """x, the draws of the steps, what to append and what to do after each step, for a user's picture and mask.

    begun: the picture is at the plan's first level already. torch's numbers come in the order of diffusers, which
    encodes the rest even where the U-Net does not see it. Raises ValueError for latents where it does.
    """
    begin = "picture" if begun else "noise" if strength == 1 else "noised"
    plain, ready = pipe.unet.in_channels == pipe.vae.latent_channels, inputs.holds_latents(pipe.vae, image)
    if ready and not plain:
        raise ValueError("image holds latents, and the unet needs to see the picture; pass the picture itself")
    rows = 0 if ready else len(image)
    wanted = (rows if plain or begin != "noise" else 0, None if latents is None else 0, rows)
    draws = draw_as_asked(key, torch_seed, plan, shape, dtype, *(Wanted(shape[1:], one) for one in wanted))
    for_image, noise, for_rest = draws.arrays
    noise = noise if latents is None else latent.checked_latents(latents, shape)
    known = _Known(jnp.asarray(image), jnp.asarray(mask), for_image, noise, for_rest)
    x, appended, after = _prepare(pipe.vae, params, plan, known, begin, plain)
    return x, draws, appended, after


@dataclasses.dataclass(frozen=True)
class StableDiffusionInpaintPipeline(DiffusionPipeline):
    """A part of a picture painted anew with Stable Diffusion 1.x and 2.x, inpainting checkpoints and plain ones."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: Scheduler
    safety_checker: StableDiffusionSafetyChecker | None = None
    feature_extractor: CLIPImageProcessor | None = None

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, mask_image: Picture = None, *,
        strength: float = 1.0, key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None,
        guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0, guidance_interval: Interval = None,
        num_inference_steps: int = 50, num_images_per_prompt: int = 1, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, latents: Any = None, guider: Guider | None = None, attention: Any = None,
        plan: Plan | None = None, clip_skip: int = 0, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, mask_image, strength=strength, key=key, torch_seed=torch_seed,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval, num_inference_steps=num_inference_steps,
            num_images_per_prompt=num_images_per_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, latents=latents, guider=guider, attention=attention,
            plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, mask_image: Picture = None, *,
        strength: float = 1.0, key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None,
        guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0, guidance_interval: Interval = None,
        num_inference_steps: int = 50, num_images_per_prompt: int = 1, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, latents: Any = None, guider: Guider | None = None, attention: Any = None,
        plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionImg2ImgPipeline.steps`, and:

        mask_image: of the picture's size, PIL, uint8 or float in [0, 1], one channel; white, at least 0.5, is painted
            anew.
        strength: at 1 nothing of the painted part is kept, and the run begins with noise alone.
        latents: the noise of the run.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        array = inputs.pictures("image", image)
        size, pixels = inputs.check_picture(self, "image", array)
        mask = inputs.mask_pictures(mask_image, pixels)
        table = make_plan(self.scheduler, num_inference_steps, plan, strength)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        inputs.check_number("image", array, texts.batch_size, texts.prompts)
        inputs.check_number("mask_image", mask, texts.batch_size, texts.prompts)
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws, appended, after = start(
            self, params, table, array, mask, shape, strength, latents, key, torch_seed, texts.dtype
        )
        both = text.conditions(self, texts, guidance_scale, appended)
        return denoise.start_run(self, params, table, x, draws, both, how, after=after)
