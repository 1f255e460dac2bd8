"""What pipelines that make sound from text share: their request, how texts are read, and where a run begins."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.pipelines.checks import check_scale, finite
from fdiff.pipelines.draws import Draws, Wanted, draw_as_asked
from fdiff.pipelines.requests import Prompt, Scale
from fdiff.pipelines.sound import Sound
from fdiff.pipelines.task import option
from fdiff.spacing import check_count
from fdiff.tokenizers.texts import Batch


@dataclasses.dataclass(frozen=True)
class SoundText(Sound):
    """Sounds from text."""

    prompt: Prompt = option(None, "what is to be heard, a text or several", flag=None)
    _: KW_ONLY
    negative_prompt: Prompt = option(None, "what not to draw, or not to be heard, one for all or one for each")
    guidance_scale: Scale = option(
        7.0, "how closely to keep to the prompt, a number or one for each sound; at most 1 is none, and costs half"
    )
    num_waveforms_per_prompt: int = option(1, "sounds of each prompt, side by side", flag="num-images")
    prompt_embeds: Any = option(None, "what the text encoder makes of a prompt, in place of it")
    negative_prompt_embeds: Any = option(None, "the same, in place of a negative prompt")
    latents: Any = option(None, "standard normal numbers to begin from, in place of a draw")


class Read(NamedTuple):
    """What to make and what not, None without guidance, for b sounds; and how the network is asked."""

    denoiser: guidance.Conditional
    both: tuple[Any, Any]
    batch_size: int


class Begun(NamedTuple):
    """The first x and the draws of the steps."""

    x: jax.Array
    draws: Draws


def texts(prompt: Prompt, count: int | None = None) -> list[str]:
    """The prompts, or one for all `count`. Raises ValueError for none, and for another number."""
    found = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if not found or not all(isinstance(one, str) for one in found):
        raise ValueError(f"prompt is {prompt!r}; it must be a text or several")
    if count is not None and len(found) == 1:
        found *= count
    if count is not None and len(found) != count:
        raise ValueError(f"{len(found)} negative prompts are given for {count} prompts; pass one, or one for each")
    return found


def encoder_of(pipe: Any, encoder: str = "text_encoder", tokenizer: str = "tokenizer") -> tuple[Any, Any]:
    """The text encoder and its tokenizer. Raises ValueError where the pipeline has none."""
    found = getattr(pipe, encoder), getattr(pipe, tokenizer)
    if None in found:
        missing = encoder if found[0] is None else tokenizer
        raise ValueError(f"{type(pipe).__name__} has no {missing}; pass prompt_embeds, and negative_prompt_embeds")
    return found


def one_of(prompt: Prompt, prompt_embeds: Any, name: str = "prompt") -> None:
    """Raise ValueError for both."""
    if prompt is not None and prompt_embeds is not None:
        raise ValueError(f"both {name} and {name}_embeds are given; pass one of them")


def needs_negative(scale: Scale) -> bool:
    """Whether a scale asks for a second prediction. Raises ValueError for one that is no number."""
    check_scale("guidance_scale", scale)
    return isinstance(scale, jax.core.Tracer) or bool(np.any(np.asarray(scale) > 1))


def given(name: str, embeds: Any, ndim: int) -> jax.Array:
    """The user's embeddings. Raises ValueError for another number of axes."""
    if np.ndim(embeds) != ndim:
        raise ValueError(f"{name} has shape {np.shape(embeds)}; it must have {ndim} axes, the first for the prompts")
    found: jax.Array = finite(name, jnp.asarray(embeds, jnp.float32))
    return found


def spread(tree: Any, num_waveforms_per_prompt: int) -> Any:
    """Each prompt's arrays as often as there are sounds of it. Raises ValueError for a number that is none."""
    check_count("num_waveforms_per_prompt", num_waveforms_per_prompt)
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, num_waveforms_per_prompt, axis=0), tree)


@functools.partial(jax.jit, static_argnums=0)
def applied(model: Any, params: Any, *inputs: Any) -> Any:
    """What the model makes of the inputs."""
    return model.apply({"params": params}, *inputs)


def first_latents(plan: Any, shape: tuple[int, ...], latents: Any, key: Any, torch_seed: Any) -> Begun:
    """Where a run from noise starts, (b, ...), and the draws of its steps."""
    draws = draw_as_asked(key, torch_seed, plan, shape, "float32", Wanted(shape[1:], None if latents is None else 0))
    if latents is None:
        return Begun(plan.start * draws.arrays[0], draws)
    if np.shape(latents) != shape:
        raise ValueError(f"latents have shape {np.shape(latents)}; it must be {shape}")
    return Begun(plan.start * finite("latents", jnp.asarray(latents, jnp.float32)), draws)


def tokenized(tokenizer: Any, prompts: Sequence[str], length: int | None = None) -> Batch:
    """The prompts as ids of equal number, cut to what the text encoder reads."""
    read: Callable[..., Batch] = tokenizer.batch
    return read(prompts, length)
