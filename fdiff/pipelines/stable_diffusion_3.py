"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): what its pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance, prompts
from fdiff.models import AutoencoderKL, CLIPTextModelWithProjection, SD3Transformer2DModel, T5EncoderModel
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance, check_scale
from fdiff.pipelines.denoise import Both, Network
from fdiff.pipelines.flow import PATCH, Read, cropped, from_masked, pictured, sized
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import masked
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, encoder_of, tree_of
from fdiff.pipelines.plans import Planned, count_rows, flow_plan, linear_mu
from fdiff.pipelines.requests import (
    READ_AT_MOST,
    Cropping,
    Latents,
    Negated,
    Patched,
    Prompt,
    Redrawn,
    Repainted,
    RepatchedPicture,
    Scale,
    Size,
    Texted,
)
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import encode_jit, listed
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan
from fdiff.rows import ByRow
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import CLIPTokenizer, T5Tokenizer


@dataclasses.dataclass(frozen=True)
class Asked(Texted, Negated):
    """What Stable Diffusion 3 can be asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(7.0)
    num_inference_steps: int = option(28)
    prompt_2: Prompt = option(None, "what the second text encoder reads in place of the prompt")
    prompt_3: Prompt = option(None, "what T5 reads in place of the prompt, which CLIP reads")
    negative_prompt_2: Prompt = option(None, "what the second text encoder reads in place of the negative prompt")
    negative_prompt_3: Prompt = option(None, "what T5 reads in place of the negative prompt")
    prompt_embeds: Any = option(None, "a pair (embeddings, pooled) from `encode_prompt`, in place of a prompt")
    negative_prompt_embeds: Any = option(None, "the same, in place of a negative prompt")
    max_sequence_length: int = option(256, READ_AT_MOST)
    clip_skip: int = option(0, "how many of CLIP's last layers to leave out, of the prompt's")
    skip_guidance_layers: Sequence[int] | None = option(
        None, "move away from what the transformer says without these blocks, too (skip-layer guidance): [7, 8, 9] for "
        "3.5 medium"
    )  # fmt: skip
    skip_layer_guidance_scale: Scale = option(2.8, "how far to move away from that")
    skip_layer_guidance_start: float = option(0.01, "from this share of the run on")
    skip_layer_guidance_stop: float = option(0.2, "up to this share of the run")


@dataclasses.dataclass(frozen=True)
class SD3Text(Asked, Patched, Latents):
    """Pictures from text."""


@dataclasses.dataclass(frozen=True)
class SD3Picture(Redrawn, Asked, RepatchedPicture):
    """Pictures from a picture and text."""

    _: KW_ONLY
    strength: float = option(0.6)
    num_inference_steps: int = option(50)


@dataclasses.dataclass(frozen=True)
class SD3Masked(Repainted, Cropping, Asked, RepatchedPicture, Latents):
    """A part of a picture painted anew."""

    _: KW_ONLY
    strength: float = option(0.6)
    num_inference_steps: int = option(50)


class SD3Condition(NamedTuple):
    """What the network is told of a batch; leaves are (b, ...), and None is absent."""

    text: jax.Array  # (b, m, d), as CLIP and then T5 read it
    pooled: jax.Array  # (b, p), as CLIP does
    skipped: jax.Array | None = None  # (b, layers), True where a block is left out
    pictures: tuple[jax.Array, ...] = ()  # (b, h, w, c), latents of what each ControlNet sees


@dataclasses.dataclass(frozen=True)
class SD3Denoiser:
    """The transformer as (variables, x, t, condition) -> out; two of the same one are one function to the compiler."""

    transformer: SD3Transformer2DModel

    def __call__(
        self, variables: Any, x: jax.Array, t: jax.Array, told: SD3Condition, samples: Sequence[jax.Array] = ()
    ) -> jax.Array:
        """What points from the picture to noise; what a ControlNet says is added behind the blocks."""
        out: Any = self.transformer.apply(variables, x, told.text, told.pooled, t, samples, told.skipped)
        return out


def planned(
    scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, size: Size, strength: float = 1.0
) -> Planned:
    """Stage: the table of the scheduler's own levels, shifted by the number of patches where it is for that."""
    mu = linear_mu(scheduler, size[0] * size[1] // PATCH**2)
    return Planned(flow_plan(scheduler, num_inference_steps, plan, mu, strength, even=False))


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, *, prompt_2: Prompt = None, prompt_3: Prompt = None,
    max_sequence_length: int = 256, clip_skip: int = 0,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """What the text encoders make of prompts, (embeddings (b, n, d), pooled (b, p)): the prompt_embeds of a call.

    Negative ones are read alike, for its negative_prompt_embeds.

    Args:
        params: with the text encoders'.
        prompt: a text or several.
        prompt_2, prompt_3: what the second CLIP and T5 read in place of those.
        max_sequence_length: how many tokens T5 reads, and the network sees whatever is text in them.
        clip_skip: how many of CLIP's last layers to leave out.
    """
    texts = _asked("prompt", listed("prompt", prompt), prompt_2, prompt_3)
    return _encoded(pipe, params, texts, max_sequence_length, clip_skip)


def _asked(name: str, texts: Sequence[str], second: Prompt, third: Prompt) -> list[Sequence[str]]:
    """What each of the three encoders reads."""
    others = (f"{name}_2", second), (f"{name}_3", third)
    return [texts, *(texts if other is None else listed(name, other, len(texts)) for name, other in others)]


def _encoded(
    pipe: Any, params: Params, texts: Sequence[Sequence[str]], length: int, clip_skip: int
) -> tuple[jax.Array, jax.Array]:
    check_count("max_sequence_length", length)
    seen, cure = [], "shorten it" if pipe.text_encoder_3 is None else "T5 reads more"
    for name, tokenizer, read in zip(
        ("text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2"), texts[:2], strict=True
    ):
        clip, reader = encoder_of(pipe, name, tokenizer)
        tokens = prompts.tokenize(reader, read, cure=cure)
        seen.append(encode_jit(clip, tree_of(params, name), tokens, penultimate=True, clip_skip=clip_skip))
    pooled = jnp.concatenate([one.pooled for one in seen], axis=-1)
    both = jnp.concatenate([one.embeddings for one in seen], axis=-1)
    width = pipe.transformer.joint_attention_dim
    if both.shape[-1] > width:
        raise ValueError(f"the text encoders give {both.shape[-1]} numbers a token and the transformer reads {width}; "
                         "use those that belong to it")
    both = jnp.pad(both, ((0, 0), (0, 0), (0, width - both.shape[-1])))
    if pipe.text_encoder_3 is None:  # which takes most of the memory, and may be left out
        return jnp.concatenate([both, jnp.zeros((len(both), length, width), both.dtype)], axis=1), pooled
    t5, reader = encoder_of(pipe, "text_encoder_3", "tokenizer_3")
    ids, _ = reader.batch(texts[2], length)
    return jnp.concatenate([both, applied(t5, tree_of(params, "text_encoder_3"), ids)], axis=1), pooled


def read(
    pipe: Any, params: Params, transformer: SD3Transformer2DModel, prompt: Prompt, prompt_2: Prompt, prompt_3: Prompt,
    prompt_embeds: Any, negative_prompt: Prompt, negative_prompt_2: Prompt, negative_prompt_3: Prompt,
    negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int, max_sequence_length: int,
    clip_skip: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""

    def encode(texts: Sequence[str]) -> tuple[jax.Array, jax.Array]:
        asked = _asked("prompt", texts, prompt_2, prompt_3)
        return _encoded(pipe, params, asked, max_sequence_length, clip_skip)

    def encode_negative(texts: Sequence[str]) -> tuple[jax.Array, jax.Array]:
        asked = _asked("negative_prompt", texts, negative_prompt_2, negative_prompt_3)
        return _encoded(pipe, params, asked, max_sequence_length, 0)

    found = flow.sides(
        encode, flow.given_pair, asks_guidance(guidance_scale), prompt, prompt_embeds, negative_prompt,
        negative_prompt_embeds, encode_negative,
    )  # fmt: skip
    flow.check_alike(found.positive, found.negative)
    sides = flow.repeated((found.positive, found.negative), num_images_per_prompt)
    return flow.asked(SD3Denoiser(transformer), params, sides, found.prompts, lambda side: SD3Condition(*side))


def guided(
    plan: Plan, x: jax.Array, transformer: SD3Transformer2DModel, denoiser: guidance.Conditional, both: Both,
    guidance_scale: Scale, skip_guidance_layers: Sequence[int] | None, skip_layer_guidance_scale: Scale,
    skip_layer_guidance_start: float, skip_layer_guidance_stop: float,
) -> Network:  # fmt: skip
    """Stage: the network, guided from the second condition to the first, and away from what it says without blocks.

    Raises ValueError for scales that are none, and blocks that are not there.
    """
    check_scale("guidance_scale", guidance_scale, len(x))
    positive, negative = both
    plain = guidance.classifier_free(denoiser, positive, negative, guidance_scale)
    if skip_guidance_layers is None:
        return Network(plain)
    check_scale("skip_layer_guidance_scale", skip_layer_guidance_scale, len(x))
    layers = np.asarray(skip_guidance_layers)
    if layers.ndim != 1 or not set(layers.tolist()) <= set(range(transformer.num_layers)):
        raise ValueError(f"skip_guidance_layers is {skip_guidance_layers!r}; it must be a list of blocks, from 0 to "
                         f"{transformer.num_layers - 1}")
    out = jnp.isin(jnp.arange(transformer.num_layers), layers)

    def perturb(told: SD3Condition, on: bool) -> SD3Condition:
        return told._replace(skipped=jnp.broadcast_to(out & on, (len(told.text), len(out))))

    skipping = guidance.perturbed(
        denoiser, positive, negative, guidance_scale, perturb=perturb, perturbed_scale=skip_layer_guidance_scale
    )
    n, rows = count_rows(plan), np.arange(len(plan))
    on = (rows > n * skip_layer_guidance_start) & (rows < n * skip_layer_guidance_stop)
    return Network(guidance.part(skipping, plain, ByRow(on.astype(np.float32))))


drawing = Task(
    SD3Text, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text with Stable Diffusion 3."
)
redrawing = Task(
    SD3Picture, (pictured, planned, read, from_picture, guided), pictures,
    "Redraw a picture as a text says (SDEdit, Meng et al. 2022).",
)  # fmt: skip
inpainting = Task(
    SD3Masked, (cropped, pictured, masked, planned, read, from_masked, guided), pictures,
    "Paint a part of a picture anew.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StableDiffusion3(DiffusionPipeline):
    """The components of Stable Diffusion 3 and 3.5.

    Without T5 (text_encoder_3=None), which takes most of the memory, the network sees zeros in its place; without the
    others it needs prompt_embeds.
    """

    family: ClassVar[str] = "Stable Diffusion 3"
    siblings: ClassVar[dict[str, str]] = {
        "image": "StableDiffusion3Img2ImgPipeline", "mask_image": "StableDiffusion3InpaintPipeline",
        "SD3ControlNetModel": "StableDiffusion3ControlNetPipeline",
    }  # fmt: skip

    scheduler: Scheduler
    vae: AutoencoderKL
    text_encoder: CLIPTextModelWithProjection | None
    tokenizer: CLIPTokenizer | None
    text_encoder_2: CLIPTextModelWithProjection | None
    tokenizer_2: CLIPTokenizer | None
    text_encoder_3: T5EncoderModel | None
    tokenizer_3: T5Tokenizer | None
    transformer: SD3Transformer2DModel

    encode_prompt = encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class StableDiffusion3Pipeline(StableDiffusion3):
    """Pictures from text with Stable Diffusion 3 and 3.5 (Esser et al. 2024).

    Large turbo draws in 4 steps: pipe(params, "a red cat", num_inference_steps=4, guidance_scale=0.0, key=...)
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusion3Img2ImgPipeline(StableDiffusion3):
    """Pictures from a picture and text with Stable Diffusion 3 (SDEdit, Meng et al. 2022)."""

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusion3InpaintPipeline(StableDiffusion3):
    """A part of a picture painted anew with Stable Diffusion 3."""

    __call__, steps = inpainting.methods()
