"""Krea 2, base and distilled (Krea 2026): what its pipeline consists of, and does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.models import AutoencoderKLQwenImage, Krea2Transformer2DModel, Qwen3VLModel
from fdiff.models.layers.patches import packed, unpacked
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance, check_scale
from fdiff.pipelines.denoise import Both, Network, guide
from fdiff.pipelines.flow import PATCH, Read, T, Tokens, places_of, sized
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, encoder_of, tree_of
from fdiff.pipelines.plans import Planned, flow_plan, linear_mu
from fdiff.pipelines.qwenimage import BEFORE, BEHIND, DROPPED
from fdiff.pipelines.requests import READ_AT_MOST, Latents, Negated, Patched, Prompt, Scale, Size, Texted
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import Qwen2Tokenizer

LAYERS = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)  # of the text encoder, whose hidden states the network reads
TOKENS_BEHIND = 5  # of what is behind the prompt in Qwen-Image's words, in which Krea 2 asks, too
DISTILLED_MU = 1.15


@dataclasses.dataclass(frozen=True)
class Krea2Text(Texted, Negated, Patched, Latents):
    """Pictures from text."""

    _: KW_ONLY
    guidance_scale: Scale = option(
        4.5, "how closely to keep to the prompt: positive + scale (positive - negative), so that 0 is none, and costs "
        "half, which is what the distilled checkpoint wants"
    )  # fmt: skip
    num_inference_steps: int = option(28, "network calls; 8 are enough for the distilled checkpoint")
    max_sequence_length: int = option(512, READ_AT_MOST)


def planned(
    pipe: Krea2Pipeline, scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, size: Size
) -> Planned:
    """Stage: the table, shifted by the number of patches, or as far as a distilled checkpoint was trained for."""
    mu = DISTILLED_MU if pipe.is_distilled else linear_mu(scheduler, size[0] * size[1] // PATCH**2)
    return Planned(flow_plan(scheduler, num_inference_steps, plan, mu))


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, max_sequence_length: int = 512
) -> tuple[Tokens, Tokens]:
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        max_sequence_length: how many tokens are read, those behind the prompt in the template among them.
    """
    return flow.both_sides(_encoder(pipe, params, max_sequence_length), prompt, negative_prompt)


def _encoder(pipe: Any, params: Params, length: int) -> flow.Encoder:
    return partial(read_layers, pipe, params, length=length)


def read_layers(pipe: Any, params: Params, prompts: Sequence[str], length: int) -> Tokens:
    """What the layers of the text encoder make of prompts, (b, n, layers, d), and which tokens are there, (b, n).

    What is behind a prompt in the template is behind its padding, too, which has no place: as in training.
    """
    check_count("max_sequence_length", length)
    encoder, tokenizer = encoder_of(pipe)
    most = length + DROPPED - TOKENS_BEHIND
    ids, mask = tokenizer.batch([BEFORE + prompt for prompt in prompts], most)
    ids, mask = flow.without_padding(ids, mask)
    behind = np.tile(np.array(tokenizer.ids(BEHIND), ids.dtype), (len(ids), 1))
    ids, mask = np.concatenate([ids, behind], axis=1), np.concatenate([mask, np.ones_like(behind)], axis=1)
    places, layers = np.maximum(mask.cumsum(1) - 1, 0), tuple(pipe.text_encoder_select_layers)
    states = flow.states_of(encoder, layers, True, tree_of(params, "text_encoder"), ids, mask, places)
    states = states.reshape(*ids.shape, len(layers), -1)
    return Tokens(states[:, DROPPED:], jnp.asarray(mask[:, DROPPED:]))


@dataclasses.dataclass(frozen=True)
class Krea2Denoiser:
    """The transformer as (variables, x, t, tokens) -> out; two of the same one are one function to the compiler."""

    transformer: Krea2Transformer2DModel

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, tokens: Tokens) -> jax.Array:
        """What points from the picture to noise."""
        height, width = x.shape[1:3]
        places = places_of(0, (height // PATCH, width // PATCH))
        words = np.zeros((tokens.embeddings.shape[1], 3), np.float32)
        said: Any = self.transformer.apply(
            variables, packed(x, PATCH), tokens.embeddings, t / T, places, words, tokens.mask
        )
        return unpacked(said, height, width, PATCH)


def read(
    pipe: Any, params: Params, transformer: Krea2Transformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""
    given = partial(flow.given_tokens, layers=len(pipe.text_encoder_select_layers))
    found = flow.sides(
        _encoder(pipe, params, max_sequence_length), given, asks_guidance(guidance_scale, above=0), prompt,
        prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    both = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    return flow.asked(Krea2Denoiser(transformer), params, both, found.prompts)


def guided(x: jax.Array, denoiser: guidance.Conditional, both: Both, guidance_scale: Scale) -> Network:
    """Stage: the network, guided from the negative prompts to the others. Raises ValueError for scales that are none.
    """
    check_scale("guidance_scale", guidance_scale, len(x))
    return Network(guide(denoiser, *both, 1 + jnp.asarray(guidance_scale, jnp.float32)))


drawing = Task(
    Krea2Text, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text with Krea 2."
)


@dataclasses.dataclass(frozen=True)
class Krea2Pipeline(DiffusionPipeline):
    """Pictures from text with Krea 2 (Krea 2026).

        pipe(params, "a red cat", key=jax.random.key(0))

    A text encoder that is None needs prompt_embeds. `is_distilled` says that the checkpoint draws in few steps, with
    guidance_scale=0.
    """

    family: ClassVar[str] = "Krea 2"

    scheduler: Scheduler
    vae: AutoencoderKLQwenImage
    text_encoder: Qwen3VLModel | None
    tokenizer: Qwen2Tokenizer | None
    transformer: Krea2Transformer2DModel
    text_encoder_select_layers: tuple[int, ...] = LAYERS
    is_distilled: bool = False
    patch_size: int = PATCH

    encode_prompt = encode_prompt
    decode = latent.decode
    __call__, steps = drawing.methods()
