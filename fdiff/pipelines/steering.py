"""Pictures that steer a U-Net: ControlNets and T2I-Adapters, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.models.t2i_adapter import add_features
from fdiff.pipelines.checks import numeric
from fdiff.pipelines.denoise import Condition, Control, denoiser
from fdiff.pipelines.inputs import Picture, check_number, check_range, pictures, spread
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.plan import Plan

Numbers = float | Sequence[float]
Both = tuple[Condition, Condition | None]


class Steer(NamedTuple):
    """How a user asks ControlNets to act: see `StableDiffusionControlNetPipeline.steps`."""

    image: Picture
    scale: Numbers = 1.0
    start: Numbers = 0.0
    end: Numbers = 1.0
    guess_mode: bool = False
    name: str = "image"  # what the pipeline calls the picture


def steer(
    pipe: Any, params: Params, plan: Plan, both: Both, how: Steer, shape: tuple[int, ...], prompts: int
) -> tuple[guidance.Conditional, Both]:
    """The U-Net with its ControlNets, and the conditions with their pictures; shape: of the latents.

    Raises ValueError for another number of pictures or settings than of nets, and pictures of another size.
    """
    nets, trees = _several(pipe.controlnet, tree_of(params, "controlnet"))
    arrays = control_pictures(how.name, how.image, nets)
    for net, array in zip(nets, arrays, strict=True):
        factor = 2 ** (len(net.conditioning_embedding_out_channels) - 1)
        check_size(how.name, array, shape, factor)
        check_number(how.name, array, shape[0], prompts)
    guess = how.guess_mode or nets[0].global_pool_conditions
    own = {**params, "controlnet": trees}
    network = denoiser(pipe.unet, own, nets, control(plan, len(nets), how), guess)
    ready = tuple(spread(how.name, array, shape[0]) for array in arrays)
    return network, with_pictures(both, ready, guess)


def picture_size(modules: Any, image: Picture) -> tuple[int, int]:
    """Height and width in pixels of the pictures for ControlNets or adapters, which are those of the one to draw."""
    array = control_pictures("image", image, _several(modules, None)[0])[0]
    return array.shape[1], array.shape[2]


def with_pictures(both: Both, arrays: tuple[jax.Array, ...], guess_mode: bool = False) -> Both:
    """The conditions with the pictures; with guess_mode they steer the first one alone."""
    condition, negative = both
    if negative is None:
        return condition._replace(pictures=arrays), None
    weights = (jnp.ones(len(arrays[0])), jnp.zeros(len(arrays[0]))) if guess_mode else (None, None)
    return (
        condition._replace(pictures=arrays, steered=weights[0]),
        negative._replace(pictures=arrays, steered=weights[1]),
    )


def control(plan: Plan, count: int, how: Steer) -> Control:
    """The strength of `count` ControlNets, and while which t they act.

    Row i of n has a net that acts from `start` to `end` where start <= i / n and (i + 1) / n <= end.
    """
    names = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
    scale, start, end = (_each(name, value, count) for name, value in zip(names, how[1:4], strict=True))
    if np.any(start < 0) or np.any(end > 1) or np.any(start >= end):
        raise ValueError(f"control_guidance_start {how.start} and _end {how.end} must rise, from 0 to 1")
    n, t = len(plan), np.asarray(plan.t)
    rows = np.arange(n)[:, None]
    acts = (rows / n >= start) & ((rows + 1) / n <= end)  # (n, count)
    low = np.where(acts, t[:, None], np.inf).min(0)
    high = np.where(acts, t[:, None], -np.inf).max(0)
    return Control(*(jnp.asarray(value, jnp.float32) for value in (scale, low, high)))


def features(
    pipe: Any, params: Params, image: Picture, scale: Numbers, shape: tuple[int, ...], prompts: int
) -> tuple[Any, ...]:
    """What the T2I-Adapters add to the U-Net, (b, h, w, c) for each level, shape being that of the latents.

    Raises ValueError as `steer` does.
    """
    adapters, trees = _several(pipe.adapter, tree_of(params, "adapter"))
    arrays = control_pictures("image", image, adapters)
    weights = _each("adapter_conditioning_scale", scale, len(adapters))
    for adapter, array in zip(adapters, arrays, strict=True):
        check_size("image", array, shape, adapter.downscale_factor)
        check_number("image", array, shape[0], prompts)
    found = [_adapt(*each) for each in zip(adapters, trees, arrays, strict=True)]
    return tuple(spread("image", level, shape[0]) for level in add_features(found, list(weights)))


@partial(jax.jit, static_argnums=0)
def _adapt(adapter: Any, params: Any, array: jax.Array) -> tuple[jax.Array, ...]:
    features: tuple[jax.Array, ...] = adapter.apply({"params": params}, array)
    return features


def control_pictures(name: str, image: Picture, modules: tuple[Any, ...]) -> list[np.ndarray]:
    """For each of the modules its pictures (b, h, w, c) in [0, 1]. Raises ValueError for another number."""
    if len(modules) > 1 and (not isinstance(image, list | tuple) or len(image) != len(modules)):
        raise ValueError(f"{name} must be a list of {len(modules)} pictures or batches, one for each network")
    listed = list(image) if len(modules) > 1 else [image]
    channels = [getattr(module, "conditioning_channels", None) or module.in_channels for module in modules]
    modes = ["L" if number == 1 else "RGB" for number in channels]
    arrays = [pictures(name, one, low=0.0, mode=mode) for one, mode in zip(listed, modes, strict=True)]
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


def _several(modules: Any, trees: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """The modules and their trees, one or several. Raises ValueError for another number of trees."""
    if not isinstance(modules, tuple):
        return (modules,), [trees]
    if trees is not None and (not isinstance(trees, list | tuple) or len(trees) != len(modules)):
        raise ValueError(f"there are {len(modules)} networks; pass a list of as many trees of parameters for them")
    return modules, list(trees or ())


def _each(name: str, value: Numbers, count: int) -> np.ndarray:
    """(count,): one number for all, or one for each."""
    values = np.asarray(value)
    if not numeric(values) or values.shape not in ((), (count,)):
        raise ValueError(f"{name} is {value!r}; it must be a number, or one for each of {count} networks")
    return np.broadcast_to(values.astype(np.float64), (count,))
