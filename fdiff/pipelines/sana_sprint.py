"""Sana-Sprint (Chen et al. 2025), which draws in one to four steps: what its pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models import AutoencoderDC, SanaTransformer2DModel
from fdiff.pipelines import flow, inputs, plans
from fdiff.pipelines.binned import OWN, Binned, PicturedInShape, pictured_in_shape, shaped
from fdiff.pipelines.checks import check_scale
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.draws import Seed, Wanted, draw_as_asked
from fdiff.pipelines.flow import Read, Tokens
from fdiff.pipelines.image_to_image import noised
from fdiff.pipelines.latent import Begun, pictures
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.plans import Planned
from fdiff.pipelines.requests import Latents, Pictures, Pixels, Prompt, Redrawn, Scale, Size, Texted
from fdiff.pipelines.sana import Instructed, Instruction, Sana, encoded
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import Counts
from fdiff.pipelines.z_image import from_noise
from fdiff.plan import Plan
from fdiff.schedulers import SCMScheduler


@dataclasses.dataclass(frozen=True)
class Sprinting(Instructed, Texted):
    """What Sana-Sprint can be asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(
        4.5, "how closely to keep to the prompt, a number or one for each picture, which the network is told"
    )
    num_inference_steps: int = option(2)


@dataclasses.dataclass(frozen=True)
class SprintText(Binned, Sprinting, Latents):
    """Pictures from text."""


@dataclasses.dataclass(frozen=True)
class SprintPicture(Redrawn, Binned, Sprinting):
    """Pictures from a picture and text."""

    _: KW_ONLY
    height: Pixels = option(None, OWN)
    width: Pixels = option(None, OWN)
    strength: float = option(0.6)


class SprintCondition(NamedTuple):
    """What the network is told of a batch; leaves are (b, ...), and None is absent."""

    text: Tokens
    guidance: jax.Array | None  # (b,)


@dataclasses.dataclass(frozen=True)
class SprintDenoiser:
    """The transformer as (variables, x, t, condition) -> out; two of the same one are one function to the compiler.

    t is the angle of TrigFlow. The transformer was trained along a line, from the picture at 0 to noise at 1 (Chen et
    al. 2025, section 3.1):

        s = sin(t) / (sin(t) + cos(t)),  c = sqrt(s^2 + (1 - s)^2),  y = c x
        out = ((1 - 2 s) y + (1 - 2 s + 2 s^2) transformer(y, s)) / c
    """

    transformer: SanaTransformer2DModel

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, told: SprintCondition) -> jax.Array:
        """What the transformer says of x."""
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), (len(x),))
        share = jnp.sin(t) / (jnp.sin(t) + jnp.cos(t))
        s = share[:, None, None, None]
        c = jnp.sqrt(s**2 + (1 - s) ** 2)
        y = c * x
        said: Any = self.transformer.apply(variables, y, told.text.embeddings, share, told.text.mask, told.guidance)
        return ((1 - 2 * s) * y + (1 - 2 * s + 2 * s**2) * said) / c


def planned(scheduler: Any, num_inference_steps: int, plan: Plan | None, strength: float = 1.0) -> Planned:
    """Stage: the table, of latents of deviation 1 where the scheduler's are of sigma_data.

    Raises ValueError for a scheduler of another kind.
    """
    if not isinstance(scheduler, SCMScheduler):
        raise ValueError(f"Sana-Sprint is sampled by SCMScheduler alone; replace {type(scheduler).__name__} with it")
    found, size = plans.flow_plan(scheduler, num_inference_steps, plan, None, strength), scheduler.sigma_data
    return Planned(dataclasses.replace(
        found, start_std=found.start_std / size, sigma=found.sigma / size, from_noise=found.from_noise / size,
        from_eps=found.from_eps / size, eps_of=found.eps_of * size,
    ))  # fmt: skip


def read(
    pipe: Any, params: Params, transformer: SanaTransformer2DModel, prompt: Prompt, prompt_embeds: Any,
    guidance_scale: Scale, num_images_per_prompt: int, max_sequence_length: int,
    complex_human_instruction: Instruction,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""

    def encode(texts: Sequence[str]) -> Tokens:
        return encoded(pipe, params, texts, max_sequence_length, complex_human_instruction)

    found = flow.sides(encode, flow.given_tokens, False, prompt, prompt_embeds)
    sides = flow.repeated((found.positive, None), num_images_per_prompt)
    count, guidance = len(sides[0].mask), None
    check_scale("guidance_scale", guidance_scale, count)
    if transformer.guidance_embeds:
        guidance = jnp.broadcast_to(jnp.asarray(guidance_scale, jnp.float32), (count,))
        guidance *= transformer.guidance_embeds_scale

    def told(text: Tokens) -> SprintCondition:
        return SprintCondition(text, guidance)

    return flow.asked(SprintDenoiser(transformer), params, sides, found.prompts, told)


def pictured(
    vae: AutoencoderDC, transformer: SanaTransformer2DModel, image: Pictures, height: Pixels, width: Pixels,
    use_resolution_binning: bool,
) -> PicturedInShape:  # fmt: skip
    """Stage: pictures or, where they have as many channels, latents. Raises ValueError for what is neither."""
    return pictured_in_shape(vae, transformer, "image", image, height, width, use_resolution_binning)


def from_picture(
    vae: AutoencoderDC, params: Params, plan: Plan, image: np.ndarray, size: Size, texts: Counts, key: Key,
    torch_seed: Seed,
) -> Begun:  # fmt: skip
    """Stage: begin with the picture at the plan's first level."""
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    shape = (texts.batch_size, *size, vae.latent_channels)
    draws = draw_as_asked(key, torch_seed, plan, shape, "float32", Wanted(shape[1:]))
    latents = inputs.latents_of(vae, params, image, None, shape[0])
    return Begun(noised(plan, latents, draws.arrays[0]), draws)


drawing = Task(
    SprintText, (shaped, planned, read, from_noise, guided), pictures, "Draw pictures from text with Sana-Sprint."
)
redrawing = Task(
    SprintPicture, (pictured, planned, read, from_picture, guided), pictures,
    "Redraw a picture as a text says (SDEdit, Meng et al. 2022), with Sana-Sprint.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SanaSprint(Sana):
    """The components of Sana-Sprint, which are those of Sana."""

    family: ClassVar[str] = "Sana-Sprint"
    siblings: ClassVar[dict[str, str]] = {"image": "SanaSprintImg2ImgPipeline"}


@dataclasses.dataclass(frozen=True)
class SanaSprintPipeline(SanaSprint):
    """Pictures from text with Sana-Sprint, a consistency model, in one to four steps.

    Angles of its steps are those of a `plan`, such as pipe.scheduler.plan(2, intermediate_timesteps=1.1).
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class SanaSprintImg2ImgPipeline(SanaSprint):
    """Pictures redrawn as a text says, with Sana-Sprint."""

    __call__, steps = redrawing.methods()
