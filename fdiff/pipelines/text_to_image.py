"""Pictures from text: Stable Diffusion 1.x, 2.x and SDXL."""

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
from fdiff.pipelines import denoise, latent, text
from fdiff.pipelines.denoise import Condition, Control, Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed, Wanted, draw
from fdiff.pipelines.latent import Key, Pixels
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.text import Asked, Prompt, Size
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


def text_to_image(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    params: Params,
    plan: Plan,
    condition: Condition,
    negative: Condition | None,
    key: jax.Array,
    *,
    size: Size,
    guidance_scale: Scale = 7.5,
    guidance_rescale: Scale = 0.0,
    nets: tuple[ControlNetModel, ...] = (),
    control: Control | None = None,
) -> jax.Array:
    """Draw pictures (b, h, w, 3), in [-1, 1] or nearly so: a pure function to jit, vmap and differentiate.

    Args:
        unet, vae: the modules; params: their parameters under these names.
        plan: from a scheduler.
        condition, negative: what to draw and what not, see `Condition`; without `negative` there is no guidance.
        key: one key, or (b,) keys; picture i depends on its own key alone.
        size: height and width in pixels.
        guidance_scale: out = negative + scale (positive - negative), a number or (b,).
        guidance_rescale: see `fdiff.guidance.classifier_free`.
        nets: ControlNets, a list of their trees being in params["controlnet"], and their pictures in the conditions;
            control: how they act.
    """
    factor, batch_size = latent.factor_of(vae), condition.text.shape[0]
    shape = (size[0] // factor, size[1] // factor, vae.latent_channels)
    (noise,), later, _ = draw(key, batch_size, Wanted(shape))
    network = denoise.denoiser(unet, params, nets, control)
    guided = denoise.guide(network, condition, negative, guidance_scale, guidance_rescale)
    latents = sampling.sample(guided, plan, plan.start * noise, later)
    return latent.decoded(vae, params["vae"], latents)


@dataclasses.dataclass(frozen=True)
class StableDiffusionPipeline(DiffusionPipeline):
    """Pictures from text with Stable Diffusion 1.x and 2.x (Rombach et al. 2022).

    The safety checker of a checkpoint is loaded only when asked for: from_pretrained(..., safety_checker=True).
    """

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
        self, params: Params, prompt: Prompt = None, *, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        height: Pixels = None, width: Pixels = None, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, guider: Guider | None = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, key=key, torch_seed=torch_seed, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, guidance_rescale=guidance_rescale, guidance_interval=guidance_interval,
            num_inference_steps=num_inference_steps, num_images_per_prompt=num_images_per_prompt, height=height,
            width=width, prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds, latents=latents,
            guider=guider, attention=attention, plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, *, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        height: Pixels = None, width: Pixels = None, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, guider: Guider | None = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over: (state, x0) after each step, latents both; `decode` makes pictures of them.

        Args:
            params: a tree for each model, by its name; and "lora", see `fdiff.adapters.lora.collection`.
            prompt: what to draw, a text or several.
            key: a JAX key, or one for each picture; picture i depends on its own key alone.
            torch_seed: in place of a key, the numbers of torch.Generator("cpu").manual_seed(torch_seed), which give
                the picture that diffusers gives; or a seed for each picture, or generators of `fdiff.torch_random`.
                As in diffusers, pictures that are painted anew, or upscaled, from one picture share its first noise.
            negative_prompt: what not to draw, one for all or one for each.
            guidance_scale: how closely to keep to the prompt, a number or one for each picture; at most 1 is none, and
                costs half.
            guidance_rescale: 0 to 1, against overexposure (Lin et al. 2023).
            guidance_interval: guide only in this part of the run, (0, 1) being all (Kynkaanniemi et al. 2024).
            num_inference_steps: network calls.
            num_images_per_prompt: pictures of each prompt, side by side.
            height, width: in pixels, multiples of 8; what the model was trained on if not given.
            prompt_embeds, negative_prompt_embeds: from `encode_prompt`, in place of prompts.
            latents: (b, h, w, c) standard normal, in place of a draw.
            guider: in place of classifier-free guidance another function of `fdiff.guidance`, its options bound.
            attention: a pair of collections that change the U-Net's attention, for the prompts and for the negative
                ones: what `fdiff.adapters.ip_adapter.collection` makes of a picture, and of none.
            plan: a table in place of the scheduler's own, such as scheduler.plan(20, eta=1.0).
            clip_skip: how many of the text encoder's last layers to leave out.

        Raises ValueError for what does not fit the model or contradicts itself.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        size = latent.latent_size(self, height, width)
        table = make_plan(self.scheduler, num_inference_steps, plan)
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws = latent.first_latents(table, shape, latents, key, torch_seed, texts.dtype)
        both = text.conditions(self, texts, guidance_scale)
        return denoise.start_run(self, params, table, x, draws, both, how)
