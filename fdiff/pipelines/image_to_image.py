"""Pictures from a picture and text: Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

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
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


def image_to_image(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    params: Params,
    plan: Plan,
    image: jax.Array,
    condition: Condition,
    negative: Condition | None,
    key: jax.Array,
    *,
    guidance_scale: Scale = 7.5,
    guidance_rescale: Scale = 0.0,
    nets: tuple[ControlNetModel, ...] = (),
    control: Control | None = None,
) -> jax.Array:
    """Redraw pictures (b, h, w, 3) in [-1, 1], noised to the plan's first level: a pure function (Meng et al. 2022).

        x = alpha z + sigma noise,  z drawn from the autoencoder's distribution of the picture's latents

    plan: of a strength, scheduler.plan(50, strength=0.6). The other arguments are those of `text_to_image`.
    """
    shape = (image.shape[1] // latent.factor_of(vae), image.shape[2] // latent.factor_of(vae), vae.latent_channels)
    (for_encoder, noise), later, _ = draw(key, image.shape[0], Wanted(shape), Wanted(shape))
    latents = latent.encoded(vae, params["vae"], image, for_encoder)
    network = denoise.denoiser(unet, params, nets, control)
    guided = denoise.guide(network, condition, negative, guidance_scale, guidance_rescale)
    latents = sampling.sample(guided, plan, noised(plan, latents, noise), later)
    return latent.decoded(vae, params["vae"], latents)


def noised(plan: Plan, latents: jax.Array, noise: jax.Array) -> jax.Array:
    """Latents at the plan's first level."""
    return plan.alpha[0] * latents + plan.sigma[0] * noise


def start(
    pipe: Any,
    params: Params,
    plan: Plan,
    image: Any,
    shape: tuple[int, ...],
    key: Key,
    torch_seed: Seed,
    dtype: Any,
    begun: bool = False,
) -> tuple[jax.Array, Draws]:
    """x (b, h, w, c) of a user's picture at the plan's first level, and the draws of the steps.

    begun: the picture is at that level already. Where the seed is torch's, one picture is encoded once, as diffusers
    does, but for seeds that are one an image.
    """
    rows = None if isinstance(torch_seed, list | tuple) else len(image)
    for_encoder = Wanted(shape[1:], 0 if inputs.holds_latents(pipe.vae, image) else rows)
    draws = draw_as_asked(key, torch_seed, plan, shape, dtype, for_encoder, Wanted(shape[1:], 0 if begun else None))
    latents = inputs.latents_of(pipe.vae, params, image, draws.arrays[0], shape[0])
    return latents if begun else noised(plan, latents, draws.arrays[1]), draws


@dataclasses.dataclass(frozen=True)
class StableDiffusionImg2ImgPipeline(DiffusionPipeline):
    """Pictures from a picture and text with Stable Diffusion 1.x and 2.x (SDEdit, Meng et al. 2022)."""

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
        self, params: Params, prompt: Prompt = None, image: Picture = None, *, strength: float = 0.8, key: Key = None,
        torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 7.5,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
        output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, strength=strength, key=key, torch_seed=torch_seed, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, guidance_rescale=guidance_rescale, guidance_interval=guidance_interval,
            num_inference_steps=num_inference_steps, num_images_per_prompt=num_images_per_prompt,
            prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds, guider=guider,
            attention=attention, plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *, strength: float = 0.8, key: Key = None,
        torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 7.5,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionPipeline.steps`, and:

        image: what to begin from: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each; its
            sides are multiples of 8. An array with the autoencoder's latent channels is taken as latents.
        strength: 0 to 1, how much of it to redraw; so much of num_inference_steps is run.
        plan: of that strength already.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        array = inputs.pictures("image", image)
        size, _ = inputs.check_picture(self, "image", array)
        table = make_plan(self.scheduler, num_inference_steps, plan, strength)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        inputs.check_number("image", array, texts.batch_size, texts.prompts)
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws = start(self, params, table, array, shape, key, torch_seed, texts.dtype)
        return denoise.start_run(self, params, table, x, draws, text.conditions(self, texts, guidance_scale), how)
