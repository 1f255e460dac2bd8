"""What pipelines of diffusion transformers share: sizes in patches, shifts, and prompts that a chat model reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.lean import Program
from fdiff.pipelines import crop, inpaint, inputs
from fdiff.pipelines.checks import either, finite, one_of
from fdiff.pipelines.denoise import Both, variables_of
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.inpaint import BegunInPart
from fdiff.pipelines.inputs import Pictured
from fdiff.pipelines.latent import Sized, check_multiples, factor_of
from fdiff.pipelines.pipeline import Params, encoder_of, tree_of
from fdiff.pipelines.plans import Planned, flow_plan, linear_mu
from fdiff.pipelines.requests import Pictures, Pixels, Prompt, Size
from fdiff.pipelines.task import Key
from fdiff.pipelines.text import Counts, listed
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count

LATENTS = 128  # the height and the width where they are not given
PATCH = 2  # latents that a patch is wide
T = 1000  # the time of pure noise as schedulers have it; networks are told shares of it
MULTIPLE = 32  # of which texts have a length, so that few of them compile anew


class Tokens(NamedTuple):
    """Texts as a language model read them: (b, n, d), and (b, n), 0 where they are of no token."""

    embeddings: jax.Array
    mask: jax.Array


class Read(NamedTuple):
    """The network that is told a condition, what to draw and what not, and how many pictures there are."""

    denoiser: guidance.Conditional
    both: Both
    texts: Counts


def sized(vae: Any, height: Pixels, width: Pixels) -> Sized:
    """Stage: the size in latents. Raises ValueError unless it is one of whole patches."""
    factor = factor_of(vae)
    pixels = [LATENTS * factor if side is None else side for side in (height, width)]
    check_multiples(pixels[0], pixels[1], PATCH * factor)
    return Sized((pixels[0] // factor, pixels[1] // factor))


def pictured(vae: Any, image: Pictures, height: Pixels, width: Pixels) -> Pictured:
    """Stage: pictures or latents, of whole patches; see `inputs.pictured_by`."""
    return inputs.pictured_by(PATCH * factor_of(vae), vae, image, height, width)


def cropped(
    vae: Any, image: Pictures, mask_image: Pictures, height: Pixels, width: Pixels, padding_mask_crop: int | None,
    output_type: str,
) -> crop.Cropped:  # fmt: skip
    """Stage: with padding_mask_crop, the box around the mask and so many pixels beside it, at the size to draw.

    Raises ValueError as `crop.cropped`.
    """
    if padding_mask_crop is None:
        return crop.Cropped(image, mask_image, height, width, None, None)
    factor = factor_of(vae)

    def pixels(height: Pixels, width: Pixels) -> Size:
        high, wide = sized(vae, height, width).size
        return high * factor, wide * factor

    return crop.cut_out(pixels, PATCH * factor, image, mask_image, height, width, padding_mask_crop, output_type)


def planned(
    scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, size: Size, strength: float = 1.0
) -> Planned:
    """Stage: the table, shifted by the number of patches where the scheduler is for that."""
    mu = linear_mu(scheduler, size[0] * size[1] // PATCH**2)
    return Planned(flow_plan(scheduler, num_inference_steps, plan, mu, strength))


def planned_as_trained(scheduler: Scheduler, num_inference_steps: int, plan: Plan | None) -> Planned:
    """Stage: the table, whose shift the checkpoint has."""
    return Planned(flow_plan(scheduler, num_inference_steps, plan, None))


def places_of(picture: int, size: Size) -> np.ndarray:
    """(h w, 3): the picture, the row and the column of each patch."""
    row, column = np.indices(size).reshape(2, -1)
    return np.stack([np.full(len(row), picture), row, column], axis=-1).astype(np.float32)


def from_masked(
    vae: Any, params: Params, plan: Plan, image: np.ndarray, mask: np.ndarray, size: Size, texts: Counts,
    strength: float, latents: Any, key: Key, torch_seed: Seed,
) -> BegunInPart:  # fmt: skip
    """Stage: begin with noise, or with the picture noised, for a network that does not see the picture."""
    return inpaint.in_part(True, vae, params, plan, image, mask, size, texts, strength, latents, key, torch_seed)


def read_chat(
    pipe: Any, params: Params, prompts: Sequence[str], length: int, *, thinking: bool, layers: tuple[int, ...],
    whole: bool = False,
) -> Tokens:  # fmt: skip
    """What a chat model makes of prompts: the hidden states of its layers, side by side, (b, n, len(layers) d).

    length: how many tokens are read at most. whole: n is that, and not what the longest of the prompts takes.

    Raises ValueError for a length that is none, and a pipeline without a text encoder.
    """
    _, tokenizer = encoder_of(pipe)
    chats = [tokenizer.chat(prompt, thinking=thinking) for prompt in prompts]
    return read_texts(pipe, params, chats, length, layers=layers, whole=whole)


def read_texts(
    pipe: Any, params: Params, texts: Sequence[str], length: int, *, layers: tuple[int, ...], whole: bool = False,
    norm_last: bool = True, tokenizer: str = "tokenizer",
) -> Tokens:  # fmt: skip
    """What a language model makes of texts as they are; see `read_chat`.

    norm_last: whether the last of its states is normalized; tokenizer: the component that is one.
    """
    check_count("max_sequence_length", length)
    encoder, reader = encoder_of(pipe, tokenizer=tokenizer)
    ids, mask = reader.batch(texts, length)
    if not whole:
        ids, mask = without_padding(ids, mask)
    states = states_of(encoder, layers, norm_last, tree_of(params, "text_encoder"), ids, mask)
    return Tokens(states, jnp.asarray(mask))


@partial(Program, static_argnums=(0, 1, 2))
def states_of(
    encoder: Any, layers: tuple[int, ...], norm_last: bool, params: Any, ids: Any, mask: Any, places: Any = None,
    shown: Sequence[Any] = (),
) -> jax.Array:  # fmt: skip
    """Hidden states of a language model, those of its layers side by side: (b, n) -> (b, n, len(layers) d)."""
    states: Any = encoder.apply({"params": params}, ids, mask, layers, places, norm_last, shown)
    return jnp.concatenate(states, axis=-1)


Encoder = Callable[[Sequence[str]], Any]  # what it makes of texts


class Sides(NamedTuple):
    """What to draw and what not, None without guidance, of k prompts."""

    positive: Any
    negative: Any
    prompts: int


def without_padding(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (b, n) and their mask as far as the longest text goes, to a MULTIPLE, what is behind being padding."""
    used = min(-(-int(mask.sum(1).max()) // MULTIPLE) * MULTIPLE, ids.shape[1])
    return ids[:, :used], mask[:, :used]


def asked(
    denoiser: Callable[..., jax.Array], params: Params, both: tuple[Any, Any], prompts: int,
    told: Callable[[Any], Any] | None = None,
) -> Read:  # fmt: skip
    """The network, and what it is told of both sides, what the text encoder made of them or `told` of that.

    prompts: how many both were made of, `repeated` as often as there are pictures of each.
    """
    first = jax.tree.leaves(both[0])[0]
    positive, negative = (side if side is None or told is None else told(side) for side in both)
    network = Partial(denoiser, variables_of(params, "transformer"))
    return Read(network, (positive, negative), Counts(len(first), prompts, first.dtype))


def sides(
    encode: Encoder, given: Callable[[str, Any], Any], guides: bool, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt = None, negative_prompt_embeds: Any = None, encode_negative: Encoder | None = None,
) -> Sides:  # fmt: skip
    """Both sides as the user asks for them: texts, which `encode` reads, or what it made of them, checked by `given`.

    encode_negative: reads negative prompts, if otherwise than the others.

    Raises ValueError for none or both of prompt and prompt_embeds, and for prompts that are no texts.
    """
    either(prompt, prompt_embeds)
    one_of(negative_prompt, negative_prompt_embeds, "negative_prompt")
    positive = given("prompt_embeds", prompt_embeds) if prompt is None else encode(listed("prompt", prompt))
    count = len(jax.tree.leaves(positive)[0])
    if not guides:
        return Sides(positive, None, count)
    if negative_prompt_embeds is None:
        against = listed("negative_prompt", negative_prompt or "", count)
        return Sides(positive, (encode_negative or encode)(against), count)
    negative = given("negative_prompt_embeds", negative_prompt_embeds)
    if len(jax.tree.leaves(negative)[0]) != count:
        raise ValueError(f"negative_prompt_embeds are of {len(jax.tree.leaves(negative)[0])} prompts, and there are "
                         f"{count}; pass as many")
    return Sides(positive, negative, count)


def both_sides(
    encode: Encoder, prompt: Prompt, negative_prompt: Prompt, encode_negative: Encoder | None = None
) -> tuple[Any, Any]:
    """What `encode` makes of prompts, and of negative ones, one for all or one for each; see `sides`."""
    found = sides(encode, given_tokens, True, prompt, None, negative_prompt, encode_negative=encode_negative)
    return found.positive, found.negative


def given_tokens(name: str, embeds: Any, layers: int | None = None) -> Tokens:
    """The user's embeddings, with or without their mask, of so many layers if not of one. ValueError for other shapes.
    """
    embeddings, mask = embeds if isinstance(embeds, tuple) else (embeds, None)
    if np.ndim(embeddings) != (3 if layers is None else 4) or layers not in (None, np.shape(embeddings)[2]):
        axes = "tokens" if layers is None else f"tokens, {layers}"
        raise ValueError(f"{name} must be an array (batch, {axes}, channels), or a pair of that and of a mask, from "
                         f"encode_prompt, not {type(embeds).__name__}")
    shape = np.shape(embeddings)[:2]
    mask = np.ones(shape, np.int32) if mask is None else mask
    if np.shape(mask) != shape:
        raise ValueError(f"the mask of {name} has shape {np.shape(mask)}; it must be {shape}")
    return Tokens(finite(name, jnp.asarray(embeddings)), jnp.asarray(mask))


def given_pair(name: str, embeds: Any) -> tuple[jax.Array, jax.Array]:
    """The user's embeddings, a pair (embeddings, pooled). Raises ValueError for other shapes."""
    if not isinstance(embeds, tuple) or len(embeds) != 2 or np.ndim(embeds[0]) != 3 or np.ndim(embeds[1]) != 2:
        raise ValueError(f"{name} must be a pair (embeddings, pooled), from encode_prompt")
    if len(embeds[0]) != len(embeds[1]):
        raise ValueError(f"the second of {name} is of {len(embeds[1])} prompts, the first of {len(embeds[0])}")
    return finite(name, jnp.asarray(embeds[0])), finite(name, jnp.asarray(embeds[1]))


def check_alike(positive: tuple[jax.Array, jax.Array], negative: tuple[jax.Array, jax.Array] | None) -> None:
    """Raise ValueError for pairs (embeddings, pooled) of other shapes."""
    if negative is not None and negative[0].shape != positive[0].shape:
        raise ValueError(f"negative_prompt_embeds have shape {negative[0].shape} and the prompt's "
                         f"{positive[0].shape}; they must be equal")


def equally_long(positive: Tokens, negative: Tokens | None) -> tuple[Tokens, Tokens | None]:
    """Both with as many tokens, those that are none at the end."""
    if negative is None:
        return positive, None
    most = max(positive.mask.shape[1], negative.mask.shape[1])

    def longer(tokens: Tokens) -> Tokens:
        more = most - tokens.mask.shape[1]
        return Tokens(
            jnp.pad(tokens.embeddings, ((0, 0), (0, more), *((0, 0),) * (np.ndim(tokens.embeddings) - 2))),
            jnp.pad(tokens.mask, ((0, 0), (0, more))),
        )

    return longer(positive), longer(negative)


def repeated(both: tuple[Any, Any], num_images_per_prompt: int) -> tuple[Any, Any]:
    """Each prompt's arrays as often as there are pictures of it. Raises ValueError for a number that is none."""
    check_count("num_images_per_prompt", num_images_per_prompt)
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, num_images_per_prompt, axis=0), both)
