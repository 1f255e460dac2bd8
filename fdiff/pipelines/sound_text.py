"""What pipelines that make sound from text share: their request, how texts are read, and where a run begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.pipelines.checks import finite
from fdiff.pipelines.requests import Prompt, Scale
from fdiff.pipelines.sound import Long
from fdiff.pipelines.task import option
from fdiff.spacing import check_count
from fdiff.tokenizers.texts import Batch


@dataclasses.dataclass(frozen=True)
class SoundText(Long):
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


def tokenized(tokenizer: Any, prompts: Sequence[str], length: int | None = None) -> Batch:
    """The prompts as ids of equal number, cut to what the text encoder reads."""
    read: Callable[..., Batch] = tokenizer.batch
    return read(prompts, length)
