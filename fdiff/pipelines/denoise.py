"""The network of latent diffusion, what it is conditioned on, and how it is guided."""

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
from fdiff.models import ControlNetModel, UNet2DConditionModel, edits
from fdiff.models.controlnet import ControlNetOutput, add_residuals
from fdiff.models.layers.embeddings import sinusoidal
from fdiff.pipelines.checks import check_scale
from fdiff.pipelines.draws import Draws
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.plan import Plan
from fdiff.sampling import Network, Steps

Scale = float | jax.Array
Interval = tuple[float, float] | None


class Condition(NamedTuple):
    """What a batch is conditioned on; every leaf is (b, ...), and None is absent."""

    text: jax.Array  # (b, n, d), what the U-Net attends to
    added: dict[str, jax.Array] | None = None  # of SDXL: text_embeds (b, d), time_ids (b, n)
    labels: jax.Array | None = None  # (b,), of the x4 upscaler: the noise level of the small picture
    scale: jax.Array | None = None  # (b, time_cond_proj_dim), of LCM: the guidance scale that it imitates
    appended: jax.Array | None = None  # (b, h, w, c), channels that follow those of x
    pictures: tuple[jax.Array, ...] = ()  # (b, H, W, c) in [0, 1], one for each ControlNet
    steered: jax.Array | None = None  # (b,), how much the ControlNets act on each; all of it if absent
    features: tuple[jax.Array, ...] = ()  # of a T2IAdapter, one (b, h, w, c) for each level
    attention: Any = None  # the collection that changes attention in one run


class Control(NamedTuple):
    """How strongly each ControlNet acts, and while which t: `scale`, `low` and `high` (nets,)."""

    scale: jax.Array
    low: jax.Array
    high: jax.Array


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """The network of latent diffusion: (params, control, x, t, condition) -> out, shaped like x.

    A frozen dataclass of modules, so that two of the same modules are one function to the compiler.
    params holds "unet" and, where there are `nets`, a list of their trees under "controlnet".
    """

    unet: UNet2DConditionModel
    nets: tuple[ControlNetModel, ...] = ()
    guess_mode: bool = False

    def __call__(
        self, params: Params, control: Control | None, x: jax.Array, t: jax.Array, condition: Condition
    ) -> jax.Array:
        """What the U-Net says of x."""
        c = condition
        shared: dict[str, Any] = {"class_labels": c.labels, "timestep_cond": c.scale, "added_cond_kwargs": c.added}
        given: dict[str, Any] = {}
        if c.features:
            given["down_intrablock_additional_residuals"] = c.features
        if control is not None:
            residuals = self.control(params, control, x, t, c, shared)
            given["down_block_additional_residuals"] = residuals.down_block_res_samples
            given["mid_block_additional_residual"] = residuals.mid_block_res_sample
        if c.appended is not None:
            x = jnp.concatenate([x, c.appended], axis=-1)
        variables = {"params": params["unet"], **params.get("lora", {})}
        if c.attention is not None:
            variables["attention"] = c.attention
        out: Any = self.unet.apply(variables, x, t, c.text, **shared, **given)
        return out

    def control(
        self, params: Params, control: Control, x: jax.Array, t: jax.Array, condition: Condition, shared: dict[str, Any]
    ) -> ControlNetOutput:
        """The sum of what the ControlNets add to the U-Net."""
        on = control.scale * ((control.low <= t) & (t <= control.high))
        options = {**shared, "guess_mode": self.guess_mode}
        residuals: list[Any] = [
            net.apply({"params": tree}, x, t, condition.text, picture, scale, **options)
            for net, tree, picture, scale in zip(self.nets, params["controlnet"], condition.pictures, on, strict=True)
        ]
        total = add_residuals(residuals)
        if condition.steered is None:
            return total
        share = condition.steered[:, None, None, None]
        return jax.tree.map(lambda leaf: share.astype(leaf.dtype) * leaf, total)


def denoiser(
    unet: UNet2DConditionModel,
    params: Params,
    nets: tuple[ControlNetModel, ...] = (),
    control: Control | None = None,
    guess_mode: bool = False,
) -> guidance.Conditional:
    """The U-Net, with ControlNets if given, as (x, t, condition) -> out; their parameters are data.

    params: "unet", for the nets a list of trees under "controlnet", and under "lora", if there, what
    `fdiff.adapters.lora.collection` gives, which then is added while the U-Net runs.
    """
    own = {name: tree_of(params, name) for name in (("unet", "controlnet") if nets else ("unet",))}
    if "unet" in params.get("lora", {}):
        own["lora"] = {"lora": params["lora"]["unet"]}
    return Partial(Denoiser(unet, nets, guess_mode), own, control)


def guide(
    network: guidance.Conditional,
    condition: Condition,
    negative: Condition | None,
    scale: Scale,
    rescale: Scale = 0.0,
    interval: tuple[Any, Any] | None = None,
    guider: guidance.Guider | None = None,
) -> Network:
    """Classifier-free guidance, or another, within an interval of t if given; else the condition alone."""
    guided = (guider or guidance.classifier_free)(network, condition, negative, scale, rescale=rescale)
    if interval is None or (negative is None and guider is None):
        return guided
    return guidance.interval(guided, guidance.given(network, condition), *interval)


def attention_perturbed(unet_params: Any, layers: str = "mid_block.*attn1") -> Callable[[Condition, bool], Condition]:
    """For `guidance.perturbed`: self-attention layers whose path `layers` is found in look at themselves alone.

        guider = functools.partial(guidance.perturbed, perturb=attention_perturbed(params["unet"]), perturbed_scale=3.0)
        pipe(params, prompt, guider=guider, key=key)
    """
    return partial(_perturb, edits.identity_attention, unet_params, layers)


def blocks_skipped(unet_params: Any, layers: str) -> Callable[[Condition, bool], Condition]:
    """For `guidance.perturbed`: transformer blocks whose path `layers` is found in are left out."""
    return partial(_perturb, edits.skip_blocks, unet_params, layers)


def _perturb(edit: Any, unet_params: Any, layers: str, condition: Condition, on: bool) -> Condition:
    tree = edit(unet_params, layers, jnp.full(condition.text.shape[0], on))
    return condition._replace(attention=edits.merge(condition.attention or {}, tree))


def is_guided(unet: UNet2DConditionModel, scale: Scale) -> bool:
    """Whether a scale asks for a second prediction; U-Nets that were told the scale in training need none.

    Raises ValueError for a scale that is no number.
    """
    check_scale("guidance_scale", scale)
    if isinstance(scale, jax.core.Tracer):  # whose value cannot be known
        return unet.time_cond_proj_dim is None
    return bool(np.any(np.asarray(scale) > 1)) and unet.time_cond_proj_dim is None


def told_scale(unet: UNet2DConditionModel, scale: Scale, batch_size: int) -> jax.Array | None:
    """The embedding (b, time_cond_proj_dim) of a guidance scale, for U-Nets that are told it (Meng et al. 2023)."""
    if unet.time_cond_proj_dim is None:
        return None
    scales = jnp.broadcast_to(jnp.asarray(scale, jnp.float32), (batch_size,))
    return sinusoidal(scales - 1, unet.time_cond_proj_dim, scale=1000.0)


class Guidance(NamedTuple):
    """How to guide: see `fdiff.guidance`; `interval` is the part of the run, from 0 to 1, in which to."""

    scale: Scale
    rescale: Scale = 0.0
    interval: Interval = None
    guider: guidance.Guider | None = None


def start_run(
    pipe: Any,
    params: Params,
    plan: Plan,
    x: jax.Array,
    draws: Draws,
    both: tuple[Condition, Condition | None],
    how: Guidance,
    *,
    network: guidance.Conditional | None = None,
    after: Any = None,
) -> Steps:
    """The run of a pipeline, guided from the second condition to the first.

    Raises ValueError where the conditions do not fit the U-Net, which then belongs to another pipeline.
    """
    check_condition(pipe, both[0])
    check_scale("guidance_scale", how.scale, len(x))
    check_scale("guidance_rescale", how.rescale, len(x))
    traced = isinstance(how.rescale, jax.core.Tracer)
    if not traced and not np.all((np.asarray(how.rescale) >= 0) & (np.asarray(how.rescale) <= 1)):
        raise ValueError(f"guidance_rescale is {how.rescale!r}; it must lie within 0 and 1")
    network = denoiser(pipe.unet, params) if network is None else network
    guided = guide(network, *both, how.scale, how.rescale, times_of(plan, how.interval), how.guider)
    return sampling.steps(guided, plan, x, draws.key, noise=draws.noise, after=after)


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


def times_of(plan: Plan, interval: Interval) -> tuple[float, float] | None:
    """The lowest and highest t of the rows within an interval of the run, 0 its start and 1 its end.

    Row i of n is within it where start <= i / n < stop. Raises ValueError unless 0 <= start <= stop <= 1.
    """
    if interval is None:
        return None
    if np.shape(interval) != (2,) or not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(f"guidance_interval is {interval!r}; it must be two numbers that rise from 0 to 1")
    start, stop = interval
    t = np.asarray(plan.t)[int(start * len(plan)) : int(stop * len(plan))]
    return (float(t.min()), float(t.max())) if len(t) else (np.inf, -np.inf)
