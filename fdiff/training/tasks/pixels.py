"""What trainings of U-Nets in pixels have in common."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from fdiff import schedulers
from fdiff.models import UNet2DModel
from fdiff.pipelines.task import option
from fdiff.schedulers import Scheduler
from fdiff.training.data import Source
from fdiff.training.loader import Prepare
from fdiff.training.loss import Weight, min_snr, p2
from fdiff.training.recipe import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelSettings(Settings):
    """Of U-Nets in pixels."""

    channels: str = option("", "of each level of the U-Net, such as 32,64; what suits the size if not given")
    layers: int = setting(1, "residual blocks of each level", least=1)
    dropout: float = setting(0.0, "share of the features that are dropped", least=0, below=1)
    gray: bool | None = option(None, "one channel in place of three; as the first picture is if not given")
    prediction: str = setting("epsilon", "what the network predicts: epsilon, v_prediction, sample or flow",
                              choices=("epsilon", "v_prediction", "sample", "flow"))
    schedule: str = setting("scaled_linear", "how noise grows: scaled_linear, linear or squaredcos_cap_v2; not of flow",
                            choices=("scaled_linear", "linear", "squaredcos_cap_v2"))
    buckets: str = option("", "shapes of pictures, to the nearest of which each is brought, and a batch has one of: a "
                          "number of them, of the area of the size, or heights and widths as 64x64,48x80")
    weight: str = setting("", "of the loss: min-snr or p2; 1 if not given", choices=("", "min-snr", "p2"))


def prepared(settings: PixelSettings, source: Source) -> Prepare:
    """How pictures are prepared; the size and the colours are the first picture's where nothing is said."""
    array = np.asarray(source[0]["image"])
    gray = array.ndim == 2 or array.shape[-1] == 1 if settings.gray is None else settings.gray
    size = (settings.size,) * 2 if settings.size else array.shape[:2]
    return Prepare((int(size[0]), int(size[1])), 1 if gray else 3, settings.fit, flip=settings.flip,
                   exact=settings.size is None)


def unet(settings: PixelSettings, prepare: Prepare, **options: Any) -> UNet2DModel:
    """A U-Net for pictures of that size. Raises ValueError for a size that its levels do not halve."""
    assert prepare.size is not None
    side = min(prepare.size)
    channels = _numbers(settings.channels) or _suiting(side)
    if any(length % 2 ** (len(channels) - 1) for length in prepare.size):
        raise ValueError(f"size {prepare.size[0]}x{prepare.size[1]} cannot be halved {len(channels) - 1} times; "
                         f"choose a multiple of {2 ** (len(channels) - 1)}")
    attends = [side // 2**level <= 16 and level > 0 for level in range(len(channels))]
    return UNet2DModel(
        sample_size=prepare.size[0] if prepare.size[0] == prepare.size[1] else prepare.size,
        in_channels=prepare.channels, out_channels=prepare.channels, block_out_channels=channels,
        layers_per_block=settings.layers, dropout=settings.dropout, norm_num_groups=math.gcd(8, *channels),
        attention_head_dim=math.gcd(16, *channels),
        down_block_types=tuple("AttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        up_block_types=tuple("AttnUpBlock2D" if one else "UpBlock2D" for one in attends[::-1]),
        **options,
    )  # fmt: skip


def scheduler(settings: PixelSettings) -> Scheduler:
    """The levels to train at and to draw with."""
    if settings.prediction == "flow":
        return schedulers.FlowMatchEulerDiscreteScheduler()
    ends: Any = {"beta_start": 0.00085, "beta_end": 0.012} if settings.schedule == "scaled_linear" else {}
    return schedulers.DDIMScheduler(
        beta_schedule=settings.schedule, timestep_spacing="trailing", clip_sample=False,
        prediction_type=settings.prediction, **ends,
    )  # fmt: skip


def weight(name: str) -> Weight | None:
    """The weight of the loss of that name. Raises ValueError for one that there is not."""
    known = {"": None, "min-snr": min_snr(), "p2": p2()}
    if name not in known:
        raise ValueError(f"weight is {name!r}; it can be min-snr or p2")
    return known[name]


def pixels(images: Any) -> Any:
    """Bytes (b, h, w, c) to [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",") if word)
    except ValueError:
        raise ValueError(f"channels is {text!r}; it must be whole numbers with commas, such as 32,64") from None


def _suiting(side: int) -> tuple[int, ...]:
    return (32, 64) if side < 16 else (32, 64, 64) if side <= 32 else (64, 128, 128, 256)
