"""FLUX.1 steered by pictures: edges, depth, poses, as its ControlNets know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderKL, FluxControlNetModel, FluxTransformer2DModel
from fdiff.models.layers.patches import packed
from fdiff.models.transformer_flux import share
from fdiff.pipelines import inputs
from fdiff.pipelines.denoise import Both, guided
from fdiff.pipelines.draws import Seed, Wanted, draw_before
from fdiff.pipelines.flow import PATCH, T, from_masked, pictured, places_of, planned
from fdiff.pipelines.flow_control import Steering, acting, control_seen, latents_seen, sized_by_control
from fdiff.pipelines.flux import Asked, Flux, FluxCondition, read
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import masked
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Latents, Pictures, Redrawn, Repainted, RepatchedPicture, Scale, Size
from fdiff.pipelines.steering import Acting, Control, Numbers, of_control, several
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import Counts
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan

Nets = FluxControlNetModel | tuple[FluxControlNetModel, ...]
Modes = int | Sequence[int | None] | None


@dataclasses.dataclass(frozen=True)
class Steered(Asked, Acting):
    """What FLUX.1 can be asked besides, where pictures steer it."""

    _: KW_ONLY
    guidance_scale: Scale = option(7.0)
    control_mode: Modes = option(
        None, "the number of the kind that the picture for a union of ControlNets is of; for several nets, a list"
    )


@dataclasses.dataclass(frozen=True)
class SteeredText(Steered, RepatchedPicture, Latents):
    """Pictures from text, steered by pictures."""

    control_image: Pictures = of_control(-1)


@dataclasses.dataclass(frozen=True)
class SteeredPicture(Redrawn, Steered, RepatchedPicture):
    """Pictures from a picture and text, steered by pictures."""

    control_image: Pictures = of_control(-1)
    _: KW_ONLY
    strength: float = option(0.6)


@dataclasses.dataclass(frozen=True)
class SteeredMasked(Repainted, Steered, RepatchedPicture, Latents):
    """A part of a picture painted anew, steered by pictures."""

    control_image: Pictures = of_control(-1)
    _: KW_ONLY
    strength: float = option(0.6)


class SteeredCondition(NamedTuple):
    """What the network is told, and what its ControlNets are: the prompt, whatever the network is told."""

    condition: FluxCondition
    prompt: FluxCondition  # with the guidance
    pictures: tuple[jax.Array, ...]  # for each net squares of latents (b, n, c), or pictures (b, H, W, 3)
    modes: tuple[jax.Array | None, ...]  # for each net (b,)


@dataclasses.dataclass(frozen=True)
class FluxControlled:
    """The transformer with ControlNets: (denoiser, trees, control, x, t, condition) -> out."""

    transformer: FluxTransformer2DModel
    nets: tuple[FluxControlNetModel, ...]

    def __call__(
        self, denoiser: Any, trees: Sequence[Any], control: Control, x: jax.Array, t: jax.Array, told: SteeredCondition
    ) -> jax.Array:
        """What points from the picture to noise."""
        patches, prompt = packed(x, PATCH), told.prompt
        places = places_of(0, (x.shape[1] // PATCH, x.shape[2] // PATCH))
        words = np.zeros((prompt.text.shape[1], 3), np.float32)
        counts = self.transformer.num_layers, self.transformer.num_single_layers
        sums: tuple[list[Any], list[Any]] = ([0.0] * counts[0], [0.0] * counts[1])
        strengths = control.scale * control.on
        for net, tree, picture, mode, strength in zip(
            self.nets, trees, told.pictures, told.modes, strengths, strict=True
        ):
            guided = prompt.guidance if net.guidance_embeds else None
            said: Any = net.apply(
                {"params": tree}, patches, picture, prompt.text, prompt.pooled, t / T, places, words, guided, mode,
                strength,
            )  # fmt: skip
            for total, samples in zip(sums, said, strict=True):
                for i in range(len(total)):
                    total[i] = total[i] + self.spread(net, samples, i, len(total))
        joint, single = ([one for one in total if not isinstance(one, float)] for total in sums)
        out: jax.Array = denoiser(x, t, told.condition, joint, single)
        return out

    def spread(self, net: FluxControlNetModel, samples: Sequence[jax.Array], block: int, blocks: int) -> Any:
        """What is added behind a block: of nets that see the picture itself each in turn, else each in a stretch."""
        if sees_itself(net) and samples:
            return samples[block % len(samples)]
        return share(samples, block, blocks)


class Told(NamedTuple):
    """How closely networks are told to keep to the prompt."""

    told_scale: Scale


def told(guidance_scale: Scale) -> Told:
    """Stage: what is told, since the network is guided by another scale, if at all."""
    return Told(guidance_scale)


class Shown(NamedTuple):
    """What each net sees, squares of latents (b, n, c) or pictures (b, H, W, 3); the seed of what is drawn after it."""

    shown: tuple[jax.Array, ...]
    torch_seed: Seed


def shown(
    vae: AutoencoderKL, controlnet: Nets, params: Params, plan: Plan, size: Size, seen: list[np.ndarray],
    texts: Counts, key: Key, torch_seed: Seed,
) -> Shown:  # fmt: skip
    """Stage: the latents of the pictures for ControlNets, for those that do not see the picture itself.

    Raises ValueError for another number of pictures than of prompts or of what is drawn.
    """
    nets, count, prompts = several(controlnet), texts.batch_size, texts.prompts
    shape = (count, *size, vae.latent_channels)
    wanted = [Wanted(shape[1:], 0 if sees_itself(net) or inputs.holds_latents(vae, array) else None)
              for net, array in zip(nets, seen, strict=True)]  # fmt: skip
    drawn, seed = draw_before(key, torch_seed, plan, shape, texts.dtype, *wanted)
    found = []
    for net, array, noise in zip(nets, seen, drawn, strict=True):
        if sees_itself(net):
            inputs.check_seen(vae, array, "ControlNet")
            inputs.check_number("control_image", array, count, prompts)
            found.append(inputs.spread("control_image", array, count))
        else:
            found.append(packed(latents_seen(vae, params, array, noise, count, prompts), PATCH))
    return Shown(tuple(found), seed)


def steered(
    transformer: FluxTransformer2DModel, controlnet: Nets, params: Params, plan: Plan, shown: tuple[jax.Array, ...],
    texts: Counts, denoiser: guidance.Conditional, both: Both, controlnet_conditioning_scale: Numbers,
    control_guidance_start: Numbers, control_guidance_end: Numbers, control_mode: Modes, told_scale: Scale,
) -> Steering:  # fmt: skip
    """Stage: the ControlNets.

    Raises ValueError for another number of settings or trees than of nets, nets of another model, and kinds that a net
    does not know.
    """
    nets, trees, acts = acting(
        transformer, controlnet, params, plan, controlnet_conditioning_scale, control_guidance_start,
        control_guidance_end,
    )  # fmt: skip
    count = texts.batch_size
    modes = modes_of(nets, control_mode, count)
    prompt = both[0]._replace(guidance=jnp.broadcast_to(jnp.asarray(told_scale, jnp.float32), (count,)))
    positive, negative = (None if side is None else SteeredCondition(side, prompt, shown, modes) for side in both)
    return Steering(Partial(FluxControlled(transformer, nets), denoiser, trees, acts), (positive, negative))


def sees_itself(net: FluxControlNetModel) -> bool:
    """Whether a net sees the picture, and not its latents."""
    return net.conditioning_embedding_channels is not None


def modes_of(nets: tuple[FluxControlNetModel, ...], control_mode: Modes, count: int) -> tuple[jax.Array | None, ...]:
    """The number of each net's kind, (b,), None for a net that knows one only. Raises ValueError for no such number."""
    modes = list(control_mode) if isinstance(control_mode, list | tuple) else [control_mode] * len(nets)
    if len(modes) != len(nets) or (control_mode is not None and all(net.num_mode is None for net in nets)):
        raise ValueError(f"control_mode is {control_mode!r}; it is for unions of ControlNets, a number or one for each "
                         f"of {len(nets)} nets")
    found: list[jax.Array | None] = []
    for net, mode in zip(nets, modes, strict=True):
        if net.num_mode is None:
            found.append(None)
            continue
        if not isinstance(mode, int | np.integer) or not 0 <= mode < net.num_mode:
            raise ValueError(f"control_mode is {mode!r}; this union of ControlNets needs one from 0 to "
                             f"{net.num_mode - 1}")
        found.append(jnp.full(count, mode, jnp.int32))
    return tuple(found)


READING = told, read, shown
drawing = Task(
    SteeredText, (sized_by_control, planned, *READING, from_noise, steered, guided), pictures,
    "Draw pictures from text with FLUX.1, steered by pictures.",
)  # fmt: skip
redrawing = Task(
    SteeredPicture, (pictured, control_seen, planned, *READING, from_picture, steered, guided), pictures,
    "Redraw a picture as a text says (SDEdit, Meng et al. 2022), steered by pictures.",
)  # fmt: skip
inpainting = Task(
    SteeredMasked, (pictured, masked, control_seen, planned, *READING, from_masked, steered, guided), pictures,
    "Paint a part of a picture anew, steered by pictures.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SteeredFlux(Flux):
    """FLUX.1 and ControlNets.

        net = FluxControlNetModel.from_pretrained("InstantX/FLUX.1-dev-Controlnet-Canny", dtype="bfloat16")
        pipe, params = FluxControlNetPipeline.from_pretrained(base, controlnet=net, dtype="bfloat16")

    Several come as a list, controlnet=[net, another]. A union is told the kind of its picture, control_mode=0.
    """

    siblings: ClassVar[dict[str, str]] = {
        "image": "FluxControlNetImg2ImgPipeline", "mask_image": "FluxControlNetInpaintPipeline"
    }  # fmt: skip

    controlnet: FluxControlNetModel | tuple[FluxControlNetModel, ...] = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class FluxControlNetPipeline(SteeredFlux):
    """Pictures from text with FLUX.1, steered by one or several ControlNets (Zhang et al. 2023).

        net = FluxControlNetModel.from_pretrained("InstantX/FLUX.1-dev-Controlnet-Canny", dtype="bfloat16")
        pipe, params = FluxControlNetPipeline.from_pretrained(base, controlnet=net, dtype="bfloat16")

    Several come as a list, controlnet=[net, another]. A union is told the kind of its picture, control_mode=0.
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class FluxControlNetImg2ImgPipeline(SteeredFlux):
    """Pictures from a picture and text with FLUX.1, steered by one or several ControlNets."""

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class FluxControlNetInpaintPipeline(SteeredFlux):
    """A part of a picture painted anew with FLUX.1, steered by one or several ControlNets."""

    __call__, steps = inpainting.methods()
