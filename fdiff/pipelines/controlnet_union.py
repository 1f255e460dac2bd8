"""SDXL steered by pictures of several kinds at once, with a ControlNetUnionModel (xinsir, ControlNet++, 2024)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import ControlNetUnionModel
from fdiff.models.controlnet import add_residuals
from fdiff.pipelines.denoise import NOTHING, Both, Denoising, Residuals, denoising, each, guided, tell
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import from_masked
from fdiff.pipelines.inputs import check_number, pictured, spread
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.plans import planned_in_part
from fdiff.pipelines.requests import LargeMasked, LargePicture, LargeText, Pictures, Pixels, Resized, Scale, Size
from fdiff.pipelines.stable_diffusion import MASKED, READING, STEERED
from fdiff.pipelines.stable_diffusion_xl import StableDiffusionXL, conditions
from fdiff.pipelines.steering import (
    Control,
    Numbers,
    Seen,
    SeenAndSized,
    Steered,
    check_size,
    control,
    looked_at,
    of_control,
    several,
    sized_by,
    trees_of,
)
from fdiff.pipelines.task import Request, Task, option
from fdiff.pipelines.text import Texts
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan

Nets = ControlNetUnionModel | tuple[ControlNetUnionModel, ...]
Modes = int | Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class UnionControls(Request):
    """How the pictures act."""

    _: KW_ONLY
    control_mode: Modes = option(
        None,
        "of which kind each picture is, as the net numbers them: 0 pose, 1 depth, 2 scribble, 3 edges, 4 normals, 5 "
        "segments, and often 6 tile, 7 repaint",
    )
    controlnet_conditioning_scale: Numbers = option(1.0, "how strongly each acts, a number for all or one for each")
    control_guidance_start: Numbers = option(0.0, "the part of the run at which each begins to act, 0 to 1")
    control_guidance_end: Numbers = option(1.0, "the part of the run at which each ends, 0 to 1")


@dataclasses.dataclass(frozen=True)
class UnionText(UnionControls, Resized, LargeText):
    """Pictures from text."""

    control_image: Pictures = of_control()


@dataclasses.dataclass(frozen=True)
class UnionPicture(UnionControls, LargePicture):
    """Pictures from a picture and text."""

    control_image: Pictures = of_control()
    _: KW_ONLY
    strength: float = option(0.8)
    controlnet_conditioning_scale: Numbers = option(0.8)


@dataclasses.dataclass(frozen=True)
class UnionMasked(UnionControls, LargeMasked):
    """A part of a picture painted anew."""

    control_image: Pictures = of_control()
    _: KW_ONLY
    guidance_scale: Scale = option(5.0)


@dataclasses.dataclass(frozen=True)
class UnionControlled:
    """A network steered by nets that each see some of the pictures: `modes` are their kinds, a tuple for each net.

    Call it with both sides of the guidance at once, as `guidance` does: these nets attend along the batch.
    """

    nets: tuple[ControlNetUnionModel, ...]
    modes: tuple[tuple[int, ...], ...]

    def __call__(
        self, network: guidance.Conditional, params: Sequence[Any], acts: Control, x: jax.Array, t: jax.Array,
        steered: Steered, residuals: Residuals = NOTHING,
    ) -> jax.Array:  # fmt: skip
        """What the network says of x."""
        strengths = acts.scale * acts.on
        told, first = tell(steered.condition), 0
        found: list[Any] = []
        for net, tree, modes in zip(self.nets, params, self.modes, strict=True):
            mine = slice(first, first + len(modes))
            first += len(modes)
            kinds = jnp.zeros((len(x), net.num_control_type)).at[:, jnp.asarray(modes)].set(1.0)
            found.append(net.apply(
                {"params": tree}, x, t, controlnet_cond=steered.pictures[mine], control_type=kinds,
                control_type_idx=jnp.asarray(modes), conditioning_scale=strengths[mine],
                from_multi=len(self.nets) > 1, **told,
            ))  # fmt: skip
        total = add_residuals(found)
        residuals = residuals._replace(down=total.down_block_res_samples, mid=total.mid_block_res_sample)
        return network(x, t, steered.condition, residuals)  # type: ignore[call-arg]


def union_sized(
    vae: Any, unet: Any, controlnet: Nets, control_image: Pictures, control_mode: Modes, height: Pixels, width: Pixels
) -> SeenAndSized:
    """Stage: the pictures that steer, whose size is that of the picture to draw."""
    return sized_by(vae, unet, "control_image", control_image, _each(controlnet, control_mode), (height, width))


def union_seen(
    controlnet: Nets, control_image: Pictures, control_mode: Modes, pixels: Size, resized: bool
) -> Seen:
    """Stage: the pictures that steer, beside that to begin from, resized as it was."""
    size = pixels if resized else (None, None)
    return Seen(looked_at("control_image", control_image, _each(controlnet, control_mode), size), "control_image")


def _each(controlnet: Nets, control_mode: Modes) -> tuple[ControlNetUnionModel, ...]:
    """The net that sees each picture. Raises ValueError for kinds that there are not, or another number of them."""
    nets, modes = several(controlnet), _modes(control_mode)
    if len(nets) > 1 and len(modes) != len(nets):
        raise ValueError(f"control_mode has {len(modes)} numbers for {len(nets)} networks; pass one for each")
    most = min(net.num_control_type for net in nets)
    if not modes or not all(isinstance(mode, int | np.integer) and 0 <= mode < most for mode in modes):
        raise ValueError(f"control_mode is {control_mode!r}; it must be the kind of each picture, from 0 to {most - 1}")
    return nets if len(nets) > 1 else nets * len(modes)


def _modes(control_mode: Modes) -> tuple[Any, ...]:
    if control_mode is None:
        return ()
    return tuple(control_mode) if isinstance(control_mode, Sequence) else (control_mode,)


def union_steered(
    controlnet: Nets, params: Params, plan: Plan, x: jax.Array, texts: Texts, denoiser: guidance.Conditional,
    both: Both, seen: list[np.ndarray], called: str, control_mode: Modes, controlnet_conditioning_scale: Numbers,
    control_guidance_start: Numbers, control_guidance_end: Numbers,
) -> Denoising:  # fmt: skip
    """Stage: the U-Net with its nets, and the conditions with their pictures.

    Raises ValueError for another number of settings or trees, and pictures of another size.
    """
    nets, trees, modes = several(controlnet), trees_of(controlnet, tree_of(params, "controlnet")), _modes(control_mode)
    factor = 2 ** (len(nets[0].conditioning_embedding_out_channels) - 1)
    for array in seen:
        check_size(called, array, x.shape, factor)
        check_number(called, array, len(x), texts.prompts)
    acts = control(plan, len(seen), controlnet_conditioning_scale, control_guidance_start, control_guidance_end)
    ready = tuple(spread(called, array, len(x)) for array in seen)
    split = tuple((mode,) for mode in modes) if len(nets) > 1 else (modes,)
    network = Partial(UnionControlled(nets, split), denoiser, trees, acts)
    condition, negative = (each(side, lambda one: Steered(one, ready)) for side in both)
    return Denoising(network, (condition, negative))


drawing = Task(
    UnionText,
    (union_sized, planned_in_part, *READING, from_noise, conditions, denoising, union_steered, guided), pictures,
    STEERED[0],
)  # fmt: skip
redrawing = Task(
    UnionPicture,
    (pictured, union_seen, planned_in_part, *READING, from_picture, conditions, denoising, union_steered, guided),
    pictures, STEERED[1],
)  # fmt: skip
inpainting = Task(
    UnionMasked,
    (*MASKED, union_seen, planned_in_part, *READING, from_masked, conditions, denoising, union_steered, guided),
    pictures, STEERED[2],
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class UnionStableDiffusionXL(StableDiffusionXL):
    """SDXL, and one or several ControlNetUnionModels."""

    siblings: ClassVar[dict[str, str]] = {
        "image": "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        "mask_image": "StableDiffusionXLControlNetUnionInpaintPipeline",
    }

    controlnet: ControlNetUnionModel | tuple[ControlNetUnionModel, ...] = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetUnionPipeline(UnionStableDiffusionXL):
    """Pictures from text with SDXL, steered by pictures of several kinds: control_image and control_mode are lists."""

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetUnionImg2ImgPipeline(UnionStableDiffusionXL):
    """Pictures from a picture and text with SDXL, steered by pictures of several kinds."""

    requires_aesthetics_score: bool = False

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetUnionInpaintPipeline(UnionStableDiffusionXL):
    """A part of a picture painted anew with SDXL, steered by pictures of several kinds."""

    requires_aesthetics_score: bool = False

    __call__, steps = inpainting.methods()
