"""Pictures that steer a U-Net: ControlNets and T2I-Adapters, one or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderKL, ControlNetModel, T2IAdapter, UNet2DConditionModel
from fdiff.models.controlnet import add_residuals
from fdiff.models.t2i_adapter import add_features
from fdiff.pipelines import latent
from fdiff.pipelines.checks import numeric
from fdiff.pipelines.denoise import NOTHING, Both, Denoising, Residuals, each, tell
from fdiff.pipelines.inputs import check_number, check_range, pictures, spread
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.plans import count_rows
from fdiff.pipelines.requests import (
    Guided,
    Large,
    LargeMasked,
    LargePicture,
    Latents,
    Masked,
    Picture,
    Pictures,
    Pixels,
    Resized,
    Scale,
    Size,
)
from fdiff.pipelines.task import Request, option
from fdiff.pipelines.text import Texts
from fdiff.plan import Plan, unit_interval
from fdiff.rows import ByRow

Numbers = float | Sequence[float]
Nets = ControlNetModel | tuple[ControlNetModel, ...]
Adapters = T2IAdapter | tuple[T2IAdapter, ...]


class Control(NamedTuple):
    """How strongly each ControlNet acts, and whether: `scale` and `on` (nets,), 1 or 0, the latter at each row."""

    scale: jax.Array
    on: Any  # an array, or a ByRow of such


class Steered(NamedTuple):
    """A condition, and what ControlNets are told besides."""

    condition: Any
    pictures: tuple[jax.Array, ...]  # (b, H, W, c) in [0, 1], one for each ControlNet
    share: jax.Array | None = None  # (b,), how much the ControlNets act on each; all of it if absent


class Featured(NamedTuple):
    """A condition, and the features of T2I-Adapters, one (b, h, w, c) for each level."""

    condition: Any
    features: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Controlled:
    """A network whose ControlNets see what it sees: (network, trees, control, x, t, Steered, residuals) -> out."""

    nets: tuple[ControlNetModel, ...]
    guess_mode: bool = False

    def __call__(
        self, network: guidance.Conditional, params: Sequence[Any], control: Control, x: jax.Array, t: jax.Array,
        steered: Steered, residuals: Residuals = NOTHING,
    ) -> jax.Array:  # fmt: skip
        """What the network says of x."""
        strengths = control.scale * control.on
        told = {**tell(steered.condition), "guess_mode": self.guess_mode}
        found: list[Any] = [
            net.apply({"params": tree}, x, t, controlnet_cond=picture, conditioning_scale=scale, **told)
            for net, tree, picture, scale in zip(self.nets, params, steered.pictures, strengths, strict=True)
        ]
        total = add_residuals(found)
        if steered.share is not None:
            share = steered.share[:, None, None, None]
            total = jax.tree.map(lambda leaf: share.astype(leaf.dtype) * leaf, total)
        residuals = residuals._replace(down=total.down_block_res_samples, mid=total.mid_block_res_sample)
        return network(x, t, steered.condition, residuals)  # type: ignore[call-arg]


def controlled(
    network: guidance.Conditional, params: Params, nets: tuple[ControlNetModel, ...], control: Control | None,
    guess_mode: bool = False,
) -> guidance.Conditional:  # fmt: skip
    """The network with ControlNets, if there are any, whose conditions are `Steered`.

    params: "controlnet", the list of their trees.
    """
    return Partial(Controlled(nets, guess_mode), network, tree_of(params, "controlnet"), control) if nets else network


@dataclasses.dataclass(frozen=True)
class Acting(Request):
    """How much ControlNets act, and when."""

    _: KW_ONLY
    controlnet_conditioning_scale: Numbers = option(1.0, "how strongly each acts, a number for all or one for each")
    control_guidance_start: Numbers = option(0.0, "the part of the run at which each begins to act, 0 to 1")
    control_guidance_end: Numbers = option(1.0, "the part of the run at which each ends, 0 to 1")


@dataclasses.dataclass(frozen=True)
class Controls(Acting):
    """How ControlNets of U-Nets act."""

    _: KW_ONLY
    guess_mode: bool = option(
        False, "let the nets act without a prompt, more from the top to the bottom, on the positive side alone"
    )


def of_control(low: int = 0) -> Any:
    """The option of the pictures for ControlNets, whose numbers go from `low` to 1."""
    return option(
        None,
        "edges, depth, a pose: what the net was trained on, of the size of the picture to draw; PIL, uint8 or float in "
        f"[{low}, 1]; one for all prompts or one for each. For several nets, a list with such for each",
    )


@dataclasses.dataclass(frozen=True)
class ControlledText(Controls, Guided, Resized, Latents):
    """Pictures from text, steered by pictures."""

    image: Pictures = of_control()


@dataclasses.dataclass(frozen=True)
class ControlledPicture(Controls, Picture):
    """Pictures from a picture and text, steered by pictures."""

    control_image: Pictures = of_control()
    _: KW_ONLY
    controlnet_conditioning_scale: Numbers = option(0.8)


@dataclasses.dataclass(frozen=True)
class ControlledMasked(Controls, Masked):
    """A part of a picture painted anew, steered by pictures."""

    control_image: Pictures = of_control()
    _: KW_ONLY
    controlnet_conditioning_scale: Numbers = option(0.5)


@dataclasses.dataclass(frozen=True)
class ControlledLargeText(Large, ControlledText):
    """Pictures from text with SDXL, steered by pictures."""


@dataclasses.dataclass(frozen=True)
class ControlledLargePicture(LargePicture, ControlledPicture):
    """Pictures from a picture and text with SDXL, steered by pictures."""

    _: KW_ONLY
    strength: float = option(0.8)


@dataclasses.dataclass(frozen=True)
class ControlledLargeMasked(LargeMasked, ControlledMasked):
    """A part of a picture painted anew with SDXL, steered by pictures."""

    _: KW_ONLY
    controlnet_conditioning_scale: Numbers = option(1.0)
    guidance_scale: Scale = option(5.0)


class Seen(NamedTuple):
    """Pictures (b, H, W, c) in [0, 1], one batch for each network that looks at them, and what the user calls them."""

    seen: list[np.ndarray]
    called: str


class SeenAndSized(NamedTuple):
    """The same, and the height and width of the latents to draw."""

    seen: list[np.ndarray]
    called: str
    size: tuple[int, int]


def control_seen(controlnet: Nets, control_image: Pictures, pixels: Size, resized: bool) -> Seen:
    """Stage: the pictures for ControlNets, beside that to begin from, resized as it was."""
    size = pixels if resized else (None, None)
    return Seen(looked_at("control_image", control_image, several(controlnet), size), "control_image")


def sized_by_control(
    vae: AutoencoderKL, unet: UNet2DConditionModel, controlnet: Nets, image: Pictures, height: Pixels, width: Pixels
) -> SeenAndSized:
    """Stage: the pictures for ControlNets, whose size is that of the picture to draw."""
    return sized_by(vae, unet, "image", image, several(controlnet), (height, width))


def sized_by_adapter(
    vae: AutoencoderKL, unet: UNet2DConditionModel, adapter: Adapters, image: Pictures, height: Pixels, width: Pixels
) -> SeenAndSized:
    """Stage: the same for T2I-Adapters."""
    return sized_by(vae, unet, "image", image, several(adapter), (height, width))


def sized_by(
    vae: AutoencoderKL, unet: Any, called: str, image: Pictures, modules: tuple[Any, ...],
    size: tuple[Pixels, Pixels],
) -> SeenAndSized:  # fmt: skip
    """The pictures of that name for the modules, resized to what is asked, and the size of the latents to draw."""
    step = max(8, latent.factor_of(vae))
    latent.check_pixels(size[0] or step, size[1] or step, step)
    seen = looked_at(called, image, modules, size, step)
    return SeenAndSized(seen, called, latent.sized(vae, unet, *seen[0].shape[1:3]).size)


def steered(
    controlnet: Nets, params: Params, plan: Plan, x: jax.Array, texts: Texts, denoiser: guidance.Conditional,
    both: Both, seen: list[np.ndarray], called: str, controlnet_conditioning_scale: Numbers,
    control_guidance_start: Numbers, control_guidance_end: Numbers, guess_mode: bool,
) -> Denoising:  # fmt: skip
    """Stage: the U-Net with its ControlNets, and the conditions with their pictures.

    Raises ValueError for another number of settings or trees than of nets, and pictures of another size.
    """
    nets, trees = several(controlnet), trees_of(controlnet, tree_of(params, "controlnet"))
    for net, array in zip(nets, seen, strict=True):
        check_size(called, array, x.shape, 2 ** (len(net.conditioning_embedding_out_channels) - 1))
        check_number(called, array, len(x), texts.prompts)
    guess = guess_mode or nets[0].global_pool_conditions
    acts = control(
        plan, len(nets), controlnet_conditioning_scale, control_guidance_start, control_guidance_end
    )
    ready = tuple(spread(called, array, len(x)) for array in seen)
    network = controlled(denoiser, {"controlnet": trees}, nets, acts, guess)
    return Denoising(network, with_pictures(both, ready, guess))


def with_pictures(both: Both, arrays: tuple[jax.Array, ...], guess_mode: bool = False) -> Both:
    """The conditions with the pictures; with guess_mode they steer the first one alone."""
    condition, negative = both
    if negative is None:
        return each(condition, lambda one: Steered(one, arrays)), None
    shares = (jnp.ones(len(arrays[0])), jnp.zeros(len(arrays[0]))) if guess_mode else (None, None)
    return each(condition, lambda one: Steered(one, arrays, shares[0])), Steered(negative, arrays, shares[1])


def control(plan: Plan, count: int, scale: Numbers = 1.0, start: Numbers = 0.0, end: Numbers = 1.0) -> Control:
    """The strength of `count` ControlNets, and at which rows they act.

    Row i of n has a net that acts from `start` to `end` where start <= i / n and (i + 1) / n <= end.
    """
    scales = _each("controlnet_conditioning_scale", scale, count)
    starts, ends = _each("control_guidance_start", start, count), _each("control_guidance_end", end, count)
    if np.any(starts < 0) or np.any(ends > 1) or np.any(starts >= ends):
        raise ValueError(f"control_guidance_start {start} and _end {end} must rise, from 0 to 1")
    n = count_rows(plan)
    rows = np.arange(n)[:, None]
    on = ((rows / n >= starts) & ((rows + 1) / n <= ends)).astype(np.float32)  # (n, count)
    return Control(jnp.asarray(scales, jnp.float32), on[0] if on.all() else ByRow(on))


@dataclasses.dataclass(frozen=True)
class AdaptedText(Guided, Resized, Latents):
    """Pictures from text, steered by the pictures of T2I-Adapters."""

    image: Pictures = option(
        None,
        "what the adapter was trained on, of the size of the picture to draw; PIL, uint8 or float in [0, 1]; one for "
        "all prompts or one for each. For several adapters, a list with such for each",
    )
    _: KW_ONLY
    adapter_conditioning_scale: Numbers = option(1.0, "how strongly each acts, a number for all or one for each")


@dataclasses.dataclass(frozen=True)
class AdaptedLargeText(Large, AdaptedText):
    """Pictures from text with SDXL, steered by the pictures of T2I-Adapters."""

    _: KW_ONLY
    adapter_conditioning_factor: float = option(1.0, "the part of the run in which they act, from its start, 0 to 1")


def adapted(
    adapter: Adapters, params: Params, x: jax.Array, texts: Texts, denoiser: guidance.Conditional, both: Both,
    seen: list[np.ndarray], called: str, adapter_conditioning_scale: Numbers, plan: Plan,
    adapter_conditioning_factor: float = 1.0,
) -> Denoising:  # fmt: skip
    """Stage: the U-Net with what its T2I-Adapters make of their pictures, once for the run.

    Raises ValueError as `steered` does.
    """
    adapters, trees = several(adapter), trees_of(adapter, tree_of(params, "adapter"))
    weights = _each("adapter_conditioning_scale", adapter_conditioning_scale, len(adapters))
    for module, array in zip(adapters, seen, strict=True):
        check_size(called, array, x.shape, module.downscale_factor)
        check_number(called, array, len(x), texts.prompts)
    found = [_adapt(*each) for each in zip(adapters, trees, seen, strict=True)]
    features = tuple(spread(called, level, len(x)) for level in add_features(found, list(weights)))
    n = count_rows(plan)
    acting = int(n * unit_interval("adapter_conditioning_factor", adapter_conditioning_factor))
    on = None if acting == n else ByRow((np.arange(n) < acting).astype(np.float32))
    condition, negative = (each(side, lambda one: Featured(one, features)) for side in both)
    return Denoising(Partial(_with_features, denoiser, on), (condition, negative))


def _with_features(
    network: guidance.Conditional, on: jax.Array | None, x: jax.Array, t: jax.Array, told: Featured,
    residuals: Residuals = NOTHING,
) -> jax.Array:  # fmt: skip
    """The network with the features, where they are `on`."""
    features = told.features if on is None else tuple((level * on).astype(level.dtype) for level in told.features)
    return network(x, t, told.condition, residuals._replace(features=features))  # type: ignore[call-arg]


@partial(jax.jit, static_argnums=0)
def _adapt(adapter: Any, params: Any, array: jax.Array) -> tuple[jax.Array, ...]:
    features: tuple[jax.Array, ...] = adapter.apply({"params": params}, array)
    return features


def looked_at(
    name: str, image: Pictures, modules: tuple[Any, ...], size: tuple[Pixels, Pixels] = (None, None), multiple: int = 1
) -> list[np.ndarray]:
    """For each of the modules its pictures (b, h, w, c) in [0, 1], see `inputs.pictures`.

    Raises ValueError for another number.
    """
    if len(modules) > 1 and (not isinstance(image, list | tuple) or len(image) != len(modules)):
        raise ValueError(f"{name} must be a list of {len(modules)} pictures or batches, one for each network")
    listed = list(image) if len(modules) > 1 else [image]
    channels = [getattr(module, "conditioning_channels", None) or module.in_channels for module in modules]
    modes = ["L" if number == 1 else "RGB" for number in channels]
    how: dict[str, Any] = {"low": 0.0, "size": size, "multiple": multiple}
    arrays = [pictures(name, one, mode=mode, **how) for one, mode in zip(listed, modes, strict=True)]
    for array, number in zip(arrays, channels, strict=True):
        if array.shape[-1] != number:
            raise ValueError(f"{name} has {array.shape[-1]} channels; it must have {number}")
        check_range(name, array, 0.0)
    return arrays


def check_size(name: str, array: np.ndarray, shape: tuple[int, ...], factor: int) -> None:
    """Raise ValueError unless pictures are `factor` times as large as latents of that shape."""
    wanted = (shape[1] * factor, shape[2] * factor)
    if array.shape[1:3] != wanted:
        found = f"{array.shape[1]} x {array.shape[2]}"
        raise ValueError(f"{name} is {found}; it must be {wanted[0]} x {wanted[1]}, as the picture to draw")


def several(modules: Any) -> tuple[Any, ...]:
    """The modules, one or several, as a tuple."""
    return modules if isinstance(modules, tuple) else (modules,)


def trees_of(modules: Any, trees: Any) -> list[Any]:
    """The tree of each of the modules. Raises ValueError for another number of them."""
    if not isinstance(modules, tuple):
        return [trees]
    if not isinstance(trees, list | tuple) or len(trees) != len(modules):
        raise ValueError(f"there are {len(modules)} networks; pass a list of as many trees of parameters for them")
    return list(trees)


def _each(name: str, value: Numbers, count: int) -> np.ndarray:
    """(count,): one number for all, or one for each."""
    values = np.asarray(value)
    if not numeric(values) or values.shape not in ((), (count,)):
        raise ValueError(f"{name} is {value!r}; it must be a number, or one for each of {count} networks")
    return np.broadcast_to(values.astype(np.float64), (count,))
