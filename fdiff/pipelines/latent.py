"""What the pipelines share that denoise in the latent space of an autoencoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance, images, sampling
from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import ControlNetModel, UNet2DConditionModel, edits
from fdiff.models.controlnet import ControlNetOutput, add_residuals
from fdiff.models.layers.embeddings import sinusoidal
from fdiff.models.layers.vae import DiagonalGaussian
from fdiff.models.tiling import sliced
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.pipeline import ImageOutput, Params, finish
from fdiff.plan import Plan
from fdiff.sampling import Network, Steps

Scale = float | jax.Array
Interval = tuple[float, float] | None
Key = jax.Array | None
Pixels = int | None


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
    own = {name: params[name] for name in (("unet", "controlnet") if nets else ("unet",))}
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
    """Whether a scale asks for a second prediction; U-Nets that were told the scale in training need none."""
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
            f"prompt_embeds, that belong to it"
        )


def times_of(plan: Plan, interval: Interval) -> tuple[float, float] | None:
    """The lowest and highest t of the rows within an interval of the run, 0 its start and 1 its end.

    Row i of n is within it where start <= i / n < stop. Raises ValueError unless 0 <= start <= stop <= 1.
    """
    if interval is None:
        return None
    start, stop = interval
    if not 0 <= start <= stop <= 1:
        raise ValueError(f"guidance_interval is {interval}; it must be two numbers that rise from 0 to 1")
    t = np.asarray(plan.t)[int(start * len(plan)) : int(stop * len(plan))]
    return (float(t.min()), float(t.max())) if len(t) else (np.inf, -np.inf)


def factor_of(vae: Any) -> int:
    """How many pixels a latent is wide."""
    channels = getattr(vae, "block_out_channels", None) or vae.decoder_block_out_channels
    return 2 ** (len(channels) - 1)


def latent_size(pipe: Any, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width in latents, those that the U-Net was trained on if not given.

    Raises ValueError unless they are multiples of 8 pixels.
    """
    factor, size = factor_of(pipe.vae), pipe.unet.sample_size
    if size is None and None in (height, width):
        raise ValueError("the config.json of the unet has no sample_size; pass height and width")
    sides = (size, size) if size is None or isinstance(size, int) else size
    pixels = [given or side * factor for given, side in zip((height, width), sides, strict=True)]
    check_pixels(pixels[0], pixels[1], factor)
    return pixels[0] // factor, pixels[1] // factor


def check_pixels(height: int, width: int, factor: int) -> None:
    """Raise ValueError unless both are multiples of 8, or of the pixels of a latent if those are more."""
    step = max(8, factor)
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, int | np.integer) or value < step or value % step:
            near = max(step, round(value / step) * step)
            raise ValueError(f"{name} is {value}; it must be a multiple of {step}, such as {near}")


def first_latents(
    plan: Plan, shape: tuple[int, ...], latents: Any, key: Key, torch_seed: Seed, dtype: Any
) -> tuple[jax.Array, Draws]:
    """Where a run from pure noise starts: the user's `latents` or a draw, (b, h, w, c), and the draws of its steps."""
    draws = draw_as_asked(key, torch_seed, plan, shape, dtype, *([Wanted(shape[1:])] if latents is None else []))
    return plan.start * (draws.arrays[0] if latents is None else checked_latents(latents, shape)), draws


def checked_latents(latents: Any, shape: tuple[int, ...]) -> jax.Array:
    """The user's latents. Raises ValueError where they have another shape."""
    if tuple(np.shape(latents)) != shape:
        raise ValueError(f"latents have shape {tuple(np.shape(latents))}; it must be {shape}: batch, height, width, c")
    return jnp.asarray(latents, jnp.float32)


@partial(jax.jit, static_argnums=0)
def decoded(vae: Any, params: Any, latents: jax.Array) -> jax.Array:
    """Pictures (b, H, W, 3), float32, of latents as a denoiser has them; one at a time, to save memory."""
    pictures = sliced(lambda z: vae.apply({"params": params}, z, method="decode"), vae.unscale(latents))
    return pictures.astype(jnp.float32)


@partial(jax.jit, static_argnums=0)
def encoded(vae: Any, params: Any, pictures: jax.Array, noise: jax.Array | None = None) -> jax.Array:
    """Latents as a denoiser takes them, float32: the most probable ones, or drawn with `noise` (b, h, w, c).

    There may be fewer pictures than noise; each is then drawn as often as that takes.
    """
    latents = sliced(lambda x: vae.apply({"params": params}, x, method="encode"), pictures)
    if noise is not None:
        latents = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(noise) // len(leaf), axis=0), latents)
    if isinstance(latents, DiagonalGaussian):
        latents = latents.mean if noise is None else latents.mean + latents.std * noise
    return vae.scale(latents.astype(jnp.float32))


def decode(pipe: Any, params: Params, latents: jax.Array) -> jax.Array:
    """Pictures (b, H, W, 3) in [-1, 1], or nearly so, of latents: a preview of x0, or the end of a run."""
    return decoded(pipe.vae, params["vae"], latents)


def check_output_type(output_type: str) -> None:
    """Raise ValueError unless it is one of those of `fdiff.images` or latent."""
    if output_type != "latent":
        images.check_output_type(output_type)


def output(pipe: Any, params: Params, run: Steps, output_type: str, progress: bool) -> ImageOutput:
    """Run to the end and make pictures.

    output_type: pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1]; latent, undecoded. progress: show a bar.
    Where the pipeline has a safety checker, what it finds unsafe comes out black.
    """
    latents = finish(run, progress=progress)
    if output_type == "latent":
        return ImageOutput(latents)
    pictures, flags = pipe.decode(params, latents), None
    if getattr(pipe, "safety_checker", None) is not None:
        pixels = (pipe.feature_extractor or CLIPImageProcessor())(np.asarray(pictures))
        flags = _flagged(pipe.safety_checker, params["safety_checker"], pixels)
        pictures = jnp.where(flags[:, None, None, None], -1.0, pictures)
    return ImageOutput(images.to_output(pictures, output_type), None if flags is None else np.asarray(flags))


@partial(jax.jit, static_argnums=0)
def _flagged(checker: Any, params: Any, pixels: Any) -> jax.Array:
    flags: jax.Array = checker.apply({"params": params}, pixels)
    return flags
