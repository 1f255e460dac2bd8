"""The network of latent diffusion with U-Nets, what it is told, and how it is guided."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance, sampling
from fdiff.models import UNet2DConditionModel, edits
from fdiff.models.layers.embeddings import sinusoidal
from fdiff.pipelines.checks import asks_guidance, check_scale, numeric
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.plans import count_rows
from fdiff.pipelines.requests import Interval, Scale
from fdiff.plan import Plan
from fdiff.rows import ByRow
from fdiff.token_merging import merged


class Condition(NamedTuple):
    """What a U-Net is told of a batch, read by `Denoiser` and `tell` alone; leaves are (b, ...), and None is absent."""

    text: jax.Array  # (b, n, d), what the U-Net attends to
    added: dict[str, jax.Array] | None = None  # of SDXL: text_embeds (b, d), time_ids (b, n)
    labels: jax.Array | None = None  # (b,), of the x4 upscaler: the noise level of the small picture
    scale: jax.Array | None = None  # (b, time_cond_proj_dim), of LCM: the guidance scale that it imitates
    appended: jax.Array | None = None  # (b, h, w, c), channels that follow those of x
    attention: Any = None  # the collection that changes attention in one run


class Residuals(NamedTuple):
    """What others add to a U-Net: ControlNets on its way down and in its middle, T2I-Adapters to each level."""

    down: tuple[jax.Array, ...] | None = None
    mid: jax.Array | None = None
    features: tuple[jax.Array, ...] = ()


NOTHING = Residuals()
Both = tuple[Any, Any]  # what to draw and what not: conditions of one kind, the second None without guidance


def tell(condition: Condition) -> dict[str, Any]:
    """The condition as arguments of the modules that are told it: the U-Net, and ControlNets made for it."""
    return {
        "encoder_hidden_states": condition.text, "class_labels": condition.labels, "timestep_cond": condition.scale,
        "added_cond_kwargs": condition.added,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """The network of latent diffusion: (params, x, t, condition, residuals) -> out, shaped like x.

    A frozen dataclass of a module, so that two of the same one are one function to the compiler. `params` holds
    "params" and, while a LoRA runs, "lora", and edits for the whole batch, "attention" (see `fdiff.models.edits`).
    """

    unet: UNet2DConditionModel

    def __call__(
        self, params: Params, x: jax.Array, t: jax.Array, condition: Condition, residuals: Residuals = NOTHING
    ) -> jax.Array:
        """What the U-Net says of x."""
        variables, given = dict(params), dict[str, Any]()
        if residuals.features:
            given["down_intrablock_additional_residuals"] = residuals.features
        if residuals.down is not None:
            given["down_block_additional_residuals"] = residuals.down
            given["mid_block_additional_residual"] = residuals.mid
        if condition.appended is not None:
            x = jnp.concatenate([x, condition.appended], axis=-1)
        if condition.attention is not None:
            variables["attention"] = edits.merge(variables.get("attention", {}), condition.attention)
        out: Any = self.unet.apply(variables, x, t, **tell(condition), **given)
        return out


def denoiser(
    unet: UNet2DConditionModel, params: Params, freeu: Any = None, token_merging: float | None = None
) -> guidance.Conditional:
    """The U-Net as (x, t, condition) -> out; its parameters are data.

    freeu: the numbers of `fdiff.models.edits.freeu`, if any.

    token_merging: the share of the tokens that `fdiff.token_merging` merges, if any.

    params: "unet" and under "lora", if there, what `fdiff.adapters.lora.collection` gives, which then is added while
    the U-Net runs.
    """
    own = variables_of(params, "unet")
    if freeu is not None:
        own["attention"] = edits.freeu(*freeu)
    network = Partial(Denoiser(unet), own)
    return network if token_merging is None else merged(network, token_merging)


def variables_of(params: Params, name: str) -> dict[str, Any]:
    """What a model is applied to: its parameters and, while a LoRA runs, "lora"."""
    lora = params.get("lora", {})
    return {"params": tree_of(params, name), **({"lora": lora[name]} if name in lora else {})}


def each(condition: Any, function: Callable[[Any], Any]) -> Any:
    """The function of a condition, or the sum with that of each that a `guidance.Sum` adds up; None of None."""
    if isinstance(condition, guidance.Sum):
        return condition._replace(conditions=tuple(function(one) for one in condition.conditions))
    return None if condition is None else function(condition)


def change(condition: Any, edit: Callable[[Condition], Condition]) -> Any:
    """The condition with the U-Net's own one edited, which may lie inside what steers it (see `steering`), or a sum."""
    if isinstance(condition, guidance.Sum):
        return each(condition, lambda one: change(one, edit))
    if isinstance(condition, Condition):
        return edit(condition)
    return condition._replace(condition=change(condition.condition, edit))


def append(condition: Any, channels: jax.Array | None) -> Any:
    """The condition with channels that follow those of x."""
    return change(condition, lambda told: told._replace(appended=channels))


def guide(
    network: guidance.Conditional, condition: Any, negative: Any, scale: Scale, rescale: Scale = 0.0,
    on: ByRow | None = None, guider: guidance.Guider | None = None,
) -> sampling.Network:  # fmt: skip
    """Classifier-free guidance, or another, at all rows or at those that are `on`; else the condition alone."""
    guided = (guider or guidance.classifier_free)(network, condition, negative, scale, rescale=rescale)
    if on is None or (negative is None and guider is None):
        return guided
    summed = isinstance(condition, guidance.Sum)  # which is what guidance of scale 1 makes of it
    one = guidance.classifier_free(network, condition, negative, 1.0) if summed else guidance.given(network, condition)
    return guidance.part(guided, one, on)


def attention_perturbed(unet_params: Any, layers: str = "mid_block.*attn1") -> Callable[[Any, bool], Any]:
    """For `guidance.perturbed`: self-attention layers whose path `layers` is found in look at themselves alone.

        guider = functools.partial(guidance.perturbed, perturb=attention_perturbed(params["unet"]), perturbed_scale=3.0)
        pipe(params, prompt, guider=guider, key=key)
    """
    return partial(_perturb, edits.identity_attention, unet_params, layers)


def blocks_skipped(unet_params: Any, layers: str) -> Callable[[Any, bool], Any]:
    """For `guidance.perturbed`: transformer blocks whose path `layers` is found in are left out."""
    return partial(_perturb, edits.skip_blocks, unet_params, layers)


def _perturb(edit: Any, unet_params: Any, layers: str, condition: Any, on: bool) -> Any:
    def perturbed(told: Condition) -> Condition:
        tree = edit(unet_params, layers, jnp.full(told.text.shape[0], on))
        return told._replace(attention=edits.merge(told.attention or {}, tree))

    return change(condition, perturbed)


def is_guided(unet: UNet2DConditionModel, scale: Scale, guides: bool = False) -> bool:
    """Whether a scale asks for a second prediction; U-Nets that were told the scale in training need none.

    guides: this one was not, though it has a time_cond_proj_dim.

    Raises ValueError for a scale that is no number.
    """
    return asks_guidance(scale) and (guides or unet.time_cond_proj_dim is None)


def told_scale(unet: UNet2DConditionModel, scale: Scale, batch_size: int) -> jax.Array | None:
    """The embedding (b, time_cond_proj_dim) of a guidance scale, for U-Nets that are told it (Meng et al. 2023)."""
    if unet.time_cond_proj_dim is None:
        return None
    scales = jnp.broadcast_to(jnp.asarray(scale, jnp.float32), (batch_size,))
    return sinusoidal(scales - 1, unet.time_cond_proj_dim, scale=1000.0)


class Denoising(NamedTuple):
    """The U-Net as (x, t, condition) -> out, and the conditions."""

    denoiser: guidance.Conditional
    both: Both


def denoising(
    pipe: Any, unet: UNet2DConditionModel, params: Params, both: Both, freeu: Any = None,
    token_merging: float | None = None,
) -> Denoising:  # fmt: skip
    """Stage: the U-Net. Raises ValueError for conditions of another one, which then belongs to another pipeline."""
    each(both[0], lambda condition: check_condition(pipe, condition))
    if freeu is not None and (np.shape(freeu) != (4,) or not numeric(np.asarray(freeu))):
        raise ValueError(f"freeu is {freeu!r}; it must be four numbers, s1, s2, b1 and b2")
    return Denoising(denoiser(unet, params, freeu, token_merging), both)


class Network(NamedTuple):
    """(x, t) -> out."""

    network: sampling.Network


def guided(
    plan: Plan, x: jax.Array, denoiser: guidance.Conditional, both: Both, guidance_scale: Scale,
    guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, guider: guidance.Guider | None = None,
) -> Network:  # fmt: skip
    """Stage: the network, guided from the second condition to the first.

    Raises ValueError for scales and intervals that are none.
    """
    check_scale("guidance_scale", guidance_scale, len(x))
    check_scale("guidance_rescale", guidance_rescale, len(x))
    traced = isinstance(guidance_rescale, jax.core.Tracer)
    if not traced and not np.all((np.asarray(guidance_rescale) >= 0) & (np.asarray(guidance_rescale) <= 1)):
        raise ValueError(f"guidance_rescale is {guidance_rescale!r}; it must lie within 0 and 1")
    on = rows_within(plan, guidance_interval)
    return Network(guide(denoiser, *both, guidance_scale, guidance_rescale, on, guider))


def check_condition(pipe: Any, condition: Condition) -> None:
    """Raise ValueError unless the U-Net takes as many channels, of pictures and of text, as it is given."""
    unet, name = pipe.unet, type(pipe).__name__
    channels = pipe.vae.latent_channels + (0 if condition.appended is None else condition.appended.shape[-1])
    if unet.in_channels != channels:
        raise ValueError(
            f"the unet takes {unet.in_channels} channels and {name} gives it {channels}; load the checkpoint with "
            "the pipeline that its model_index.json names"
        )
    width, wanted = condition.text.shape[-1], unet.encoder_hid_dim or unet.cross_attention_dim
    if isinstance(wanted, int) and width != wanted:
        raise ValueError(
            f"the unet reads text of {wanted} channels and the prompt's has {width}; use the text encoders, or the "
            "prompt_embeds, that belong to it"
        )
    if condition.added is not None and unet.addition_embed_type is None:
        raise ValueError(f"the unet is told nothing of the picture, so it is none of SDXL; {name} cannot use it, "
                         "load the checkpoint with the pipeline that its model_index.json names")
    if condition.added is not None and unet.addition_time_embed_dim is not None:
        told = {key: value.shape[-1] for key, value in condition.added.items()}
        total = told["text_embeds"] + told["time_ids"] * unet.addition_time_embed_dim
        expected = unet.projection_class_embeddings_input_dim
        if total != expected:
            raise ValueError(
                f"the unet is told {expected} numbers of the picture and gets {total}; requires_aesthetics_score is "
                "True for a refiner alone"
            )


def rows_within(plan: Plan, interval: Interval) -> ByRow | None:
    """1 at the rows within an interval of the run, 0 its start and 1 its end, and 0 at the others.

    Row i of n is within it where int(start n) <= i < int(stop n). Raises ValueError unless 0 <= start <= stop <= 1.
    """
    if interval is None:
        return None
    if np.shape(interval) != (2,) or not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(f"guidance_interval is {interval!r}; it must be two numbers that rise from 0 to 1")
    n = count_rows(plan)
    start, stop = (int(share * n) for share in interval)
    rows = np.arange(n)
    return ByRow(((start <= rows) & (rows < stop)).astype(np.float32))
