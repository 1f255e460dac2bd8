"""Pictures from a picture, its depth and text: Stable Diffusion 2's depth model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fdiff import sampling
from fdiff.guidance import Guider
from fdiff.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from fdiff.pipelines import denoise, inputs, latent, text
from fdiff.pipelines.checks import numeric
from fdiff.pipelines.denoise import Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.image_to_image import start
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


def depth_channel(depth_map: Any, height: int, width: int) -> np.ndarray:
    """Depth (b, h, w), in any unit, brought to latents and to [-1, 1]: (b, height, width, 1).

    Near or far may be large, as the model that estimates it has it; fdiff has none: those of the Hub (MiDaS, DPT) do.
    """
    depth = np.asarray(depth_map)
    depth = depth[None] if depth.ndim == 2 else depth
    if depth.ndim != 3 or not depth.size or not numeric(depth):
        raise ValueError(f"depth_map has shape {depth.shape} and holds {depth.dtype}; it must be finite numbers "
                         "(height, width), or (batch, height, width)")
    depth = depth.astype(np.float32)
    rows, columns = cubic_weights(depth.shape[1], height), cubic_weights(depth.shape[2], width)
    depth = np.einsum("yh,bhw,xw->byx", rows, depth, columns)
    low, high = depth.min((1, 2), keepdims=True), depth.max((1, 2), keepdims=True)
    if np.any(high == low):
        raise ValueError("depth_map is the same everywhere, so it says nothing; pass the depth of the picture")
    return (2 * (depth - low) / (high - low) - 1)[..., None].astype(np.float32)


def cubic_weights(size: int, wanted: int) -> np.ndarray:
    """(wanted, size): cubic interpolation along an axis (Keys 1981, a = -0.75), edges repeated, nothing smoothed."""
    places = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    taps = np.floor(places).astype(int)[:, None] + np.arange(-1, 3)
    d, a = np.abs(places[:, None] - taps), -0.75
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    weights = np.where(d <= 1, near, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a)
    matrix = np.zeros((wanted, size))
    np.add.at(matrix, (np.arange(wanted)[:, None], np.clip(taps, 0, size - 1)), weights)
    return matrix


@dataclasses.dataclass(frozen=True)
class StableDiffusionDepth2ImgPipeline(DiffusionPipeline):
    """Pictures from a picture, its depth and text, with stabilityai/stable-diffusion-2-depth.

    The depth is an input: no depth estimator is part of fdiff. The pure function is `image_to_image`, the depth being
    appended in both conditions.
    """

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: Scheduler

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, depth_map: Any = None, *,
        strength: float = 0.8, key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None,
        guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0, guidance_interval: Interval = None,
        num_inference_steps: int = 50, num_images_per_prompt: int = 1, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, guider: Guider | None = None, attention: Any = None,
        plan: Plan | None = None, clip_skip: int = 0, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, depth_map, strength=strength, key=key, torch_seed=torch_seed,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval, num_inference_steps=num_inference_steps,
            num_images_per_prompt=num_images_per_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, guider=guider, attention=attention, plan=plan,
            clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, depth_map: Any = None, *,
        strength: float = 0.8, key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None,
        guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0, guidance_interval: Interval = None,
        num_inference_steps: int = 50, num_images_per_prompt: int = 1, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, guider: Guider | None = None, attention: Any = None,
        plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionImg2ImgPipeline.steps`, and:

        depth_map: (h, w) or (b, h, w), of any size and unit, one for all prompts or one for each.
        """
        if depth_map is None:
            raise ValueError("depth_map is missing; fdiff estimates no depth, so pass that of the picture as an array")
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        array = inputs.pictures("image", image)
        size, _ = inputs.check_picture(self, "image", array)
        depth = depth_channel(depth_map, *size)
        table = make_plan(self.scheduler, num_inference_steps, plan, strength)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        inputs.check_number("image", array, texts.batch_size, texts.prompts)
        inputs.check_number("depth_map", depth, texts.batch_size, texts.prompts)
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws = start(self, params, table, array, shape, key, torch_seed, texts.dtype)
        both = text.conditions(self, texts, guidance_scale, inputs.spread("depth_map", depth, texts.batch_size))
        return denoise.start_run(self, params, table, x, draws, both, how)
