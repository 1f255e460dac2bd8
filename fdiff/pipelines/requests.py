"""What pipelines that draw from text can be asked, each option once: requests that their tasks inherit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax

from fdiff.adapters.ip_adapter import IPAdapter
from fdiff.guidance import Guider
from fdiff.pipelines.task import Request, option

Prompt = str | Sequence[str] | None
Scale = float | jax.Array
Interval = tuple[float, float] | None
Pixels = int | None
Size = tuple[int, int]
RESIZED = (
    "resize the picture to so many pixels, a multiple of {0}; without it PIL images are resized to the multiple of {0} "
    "below their size, and arrays must have such a size"
)
READ_AT_MOST = "how many tokens of a prompt are read, those that its template adds among them"
Pictures = Any  # a PIL image, an array (h, w, c) or (b, h, w, c), or a list of one kind
References = Any  # the same, or a list of several sizes; unlike Pictures, none will do


@dataclasses.dataclass(frozen=True)
class Texted(Request):
    """A text, and how closely to keep to it."""

    prompt: Prompt = option(None, "what to draw, a text or several", flag=None)  # the command line has a place for it
    _: KW_ONLY
    guidance_scale: Scale = option(
        7.5, "how closely to keep to the prompt, a number or one for each picture; at most 1 is none, and costs half"
    )
    num_inference_steps: int = option(50, "network calls", flag="steps")
    num_images_per_prompt: int = option(1, "pictures of each prompt, side by side", flag="num-images")
    prompt_embeds: Any = option(None, "from `encode_prompt`, in place of a prompt")


@dataclasses.dataclass(frozen=True)
class Told(Texted):
    """The same of a U-Net, and how it looks at the text."""

    _: KW_ONLY
    attention: Any = option(
        None,
        "a pair of collections that change the U-Net's attention, for the prompts and for the negative ones: what "
        "`fdiff.adapters.ip_adapter.collection` makes of a picture, and of none",
    )
    clip_skip: int = option(0, "how many of the text encoder's last layers to leave out, of the prompt's")
    weighted: bool = option(
        False,
        "read what people write into prompts: weights as (a cat:1.3), BREAK between chunks, [from:to:when] and [a|b], "
        "which change in the course of the run, and AND between prompts that add up; see `fdiff.prompt_syntax`",
    )
    chunked: bool = option(False, "read prompts of more than 75 tokens in chunks of them, so that nothing is cut off")
    freeu: tuple[float, float, float, float] | None = option(
        None, "(s1, s2, b1, b2) of FreeU (Si et al. 2023), such as (0.9, 0.2, 1.5, 1.6) for SD 1.5"
    )
    token_merging: float | None = option(
        None, "the share of its tokens, up to 0.75, that the U-Net merges where it attends to itself at its largest "
              "level (Bolya & Hoffman 2023), such as 0.5; faster for large pictures"
    )
    ip_adapter: IPAdapter | None = option(None, "from `fdiff.adapters.ip_adapter.load`, to see a picture as a prompt")
    ip_adapter_image: Pictures = option(
        None, "that picture: PIL, uint8 or float in [-1, 1], one for all prompts or one for each", flag=None
    )
    ip_adapter_scale: Any = option(1.0, "how strongly it acts, see `fdiff.models.edits.image_prompt`")


@dataclasses.dataclass(frozen=True)
class Negated(Request):
    """What to move away from."""

    _: KW_ONLY
    negative_prompt: Prompt = option(None, "what not to draw, one for all or one for each")
    negative_prompt_embeds: Any = option(None, "from `encode_prompt`, in place of a negative prompt")


@dataclasses.dataclass(frozen=True)
class Prompted(Told, Negated):
    """A text, and what to move away from."""


@dataclasses.dataclass(frozen=True)
class Guided(Prompted):
    """The same, and how to guide."""

    _: KW_ONLY
    guidance_rescale: Scale = option(0.0, "0 to 1, against overexposure (Lin et al. 2023)")
    guidance_interval: Interval = option(
        None, "guide only in this part of the run, (0, 1) being all (Kynkaanniemi et al. 2024)"
    )
    guider: Guider | None = option(
        None, "in place of classifier-free guidance another function of `fdiff.guidance`, its options bound"
    )


@dataclasses.dataclass(frozen=True)
class Sized(Request):
    """How large."""

    _: KW_ONLY
    height: Pixels = option(None, "in pixels, a multiple of 8; what the model was trained on if not given")
    width: Pixels = option(None, "in pixels, a multiple of 8; what the model was trained on if not given")


@dataclasses.dataclass(frozen=True)
class Resized(Request):
    """How large a picture that is given is to be."""

    _: KW_ONLY
    height: Pixels = option(None, RESIZED.format(8))
    width: Pixels = option(None, RESIZED.format(8))


@dataclasses.dataclass(frozen=True)
class Patched(Request):
    """How large a picture is to be that is drawn in patches of latents."""

    _: KW_ONLY
    height: Pixels = option(None, "in pixels, a multiple of 16; 1024 if not given")
    width: Pixels = option(None, "in pixels, a multiple of 16; 1024 if not given")


@dataclasses.dataclass(frozen=True)
class RepatchedPicture(Request):
    """How large a picture that is given is to be, where it is redrawn in patches of latents."""

    _: KW_ONLY
    height: Pixels = option(None, RESIZED.format(16))
    width: Pixels = option(None, RESIZED.format(16))


@dataclasses.dataclass(frozen=True)
class Latents(Request):
    """What to begin from in place of a draw."""

    _: KW_ONLY
    latents: Any = option(None, "(b, h, w, c) standard normal, in place of a draw")


@dataclasses.dataclass(frozen=True)
class Text(Guided, Sized, Latents):
    """Pictures from text."""


@dataclasses.dataclass(frozen=True)
class Redrawn(Request):
    """A picture to begin from."""

    image: Pictures = option(
        None,
        "what to begin from: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each. An array "
        "with the autoencoder's latent channels is taken as latents",
    )
    _: KW_ONLY
    strength: float = option(0.8, "0 to 1, how much of it to redraw; so much of num_inference_steps is run")


@dataclasses.dataclass(frozen=True)
class Repainted(Redrawn):
    """A picture, and which part of it is to be another one."""

    mask_image: Pictures = option(
        None,
        "of the picture's size, PIL, uint8 or float in [0, 1], one channel; white, at least 0.5, is painted anew",
        flag="mask",
    )
    _: KW_ONLY
    strength: float = option(
        1.0, "0 to 1; at 1 nothing of the painted part is kept, and the run begins with noise alone"
    )


@dataclasses.dataclass(frozen=True)
class Cropping(Request):
    """How much of a picture around the part that is painted is looked at."""

    _: KW_ONLY
    padding_mask_crop: int | None = option(
        None,
        "paint only the part around the mask, and so many pixels around it, at full size, and put it into the picture, "
        "which comes out with its own size; the pictures must be PIL's",
    )


@dataclasses.dataclass(frozen=True)
class Picture(Redrawn, Guided, Resized):
    """Pictures from a picture and text."""


@dataclasses.dataclass(frozen=True)
class Masked(Repainted, Cropping, Picture, Latents):
    """A part of a picture painted anew."""


class MicroConditions(NamedTuple):
    """What SDXL is told of a picture (Podell et al. 2023, section 2.2): sizes are (height, width) in pixels.

    original_size, target_size: that of the picture to draw if not given; crops_coords_top_left: where it was cut out
    of a larger one. The negative prompt goes with the same ones, unless it is given its own. The refiner is told how
    beautiful the picture is, in place of the target size.
    """

    original_size: Size | None = None
    crops_coords_top_left: Size = (0, 0)
    target_size: Size | None = None
    negative_original_size: Size | None = None
    negative_crops_coords_top_left: Size | None = None
    negative_target_size: Size | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5


@dataclasses.dataclass(frozen=True)
class Large(Prompted):
    """What SDXL can be asked besides."""

    _: KW_ONLY
    prompt_2: Prompt = option(None, "what the second text encoder reads in place of the prompt")
    negative_prompt: Prompt = option(
        None,
        "what not to draw, one for all or one for each; without one the model moves away from zeros, where the "
        "checkpoint says so (force_zeros_for_empty_prompt)",
    )
    negative_prompt_2: Prompt = option(None, "what the second text encoder reads in place of the negative prompt")
    guidance_scale: Scale = option(5.0)
    prompt_embeds: Any = option(None, "a pair (embeddings, pooled) from `encode_prompt`, in place of a prompt")
    negative_prompt_embeds: Any = option(None, "the same, in place of a negative prompt")
    micro_conditions: MicroConditions | None = option(None, "what the model is told of the picture's size")
    denoising_end: float | None = option(
        None,
        "stop when this share of the noise is gone; give the latents (output_type='latent') to a refiner with "
        "denoising_start of the same share",
    )


@dataclasses.dataclass(frozen=True)
class LargeText(Large, Text):
    """Pictures from text, with SDXL."""


@dataclasses.dataclass(frozen=True)
class LargePicture(Large, Picture):
    """Pictures from a picture and text, with SDXL and its refiner."""

    _: KW_ONLY
    strength: float = option(0.3)
    denoising_start: float | None = option(
        None,
        "the share of the noise that is gone from the latents given as `image`, which then take no noise; it replaces "
        "strength",
    )


@dataclasses.dataclass(frozen=True)
class LargeMasked(LargePicture, Masked):
    """A part of a picture painted anew, with SDXL."""

    _: KW_ONLY
    strength: float = option(0.9999)
    guidance_scale: Scale = option(7.5)
