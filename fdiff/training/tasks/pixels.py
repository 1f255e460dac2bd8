"""What trainings of U-Nets and DiTs have in common, in pixels and in latents."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import schedulers
from fdiff.models import DiTTransformer2DModel, UNet2DModel
from fdiff.pipelines.task import option
from fdiff.pipelines.unconditional import PictureNetwork
from fdiff.schedulers import Scheduler
from fdiff.training.data import Source
from fdiff.training.loader import Prepare
from fdiff.training.loss import Weight, min_snr, p2
from fdiff.training.order import shapes_of
from fdiff.training.recipe import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """Of networks that denoise pictures or latents."""

    network: str = setting("unet", "unet, or dit: a transformer over patches", choices=("unet", "dit"))
    channels: str = option(
        "", "of each level of the U-Net, such as 32,64, or of a DiT's patches, such as 192; what suits if not given"
    )
    layers: int | None = setting(
        None, "residual blocks of each level of a U-Net, 1 if not given; or blocks of a DiT, 6 if not given", least=1
    )
    patch: int | None = setting(None, "side of the squares that are a DiT's patches; 2 if not given", least=1)
    dropout: float = setting(0.0, "share of the features that are dropped", least=0, below=1)
    prediction: str = setting("epsilon", "what the network predicts: epsilon, v_prediction, sample or flow",
                              choices=("epsilon", "v_prediction", "sample", "flow"))
    schedule: str = setting("scaled_linear", "how noise grows: scaled_linear, linear or squaredcos_cap_v2; not of flow",
                            choices=("scaled_linear", "linear", "squaredcos_cap_v2"))
    weight: str = setting("", "of the loss: min-snr or p2; 1 if not given", choices=("", "min-snr", "p2"))
    pairs: str = setting(
        "", "optimal: each sample of a batch gets the noise that is nearest to it as a whole, for straighter flows",
        choices=("", "optimal"),
    )
    buckets: str = option("", "shapes of pictures, to the nearest of which each is brought, and a batch has one of: a "
                          "number of them, of the area of the size, or heights and widths as 64x64,48x80")

    def __post_init__(self) -> None:
        """Raise ValueError for what does not fit together."""
        super().__post_init__()
        if self.patch is not None and self.network != "dit":
            raise ValueError(f"patch is {self.patch}, and a U-Net has no patches; add --network dit or leave it out")
        if self.pairs and self.prediction != "flow":
            raise ValueError(f"pairs is {self.pairs} and prediction is {self.prediction}; add --prediction flow")
        if self.buckets and (self.network == "dit" or self.pairs):
            raise ValueError(f"buckets is {self.buckets}, and a DiT and optimal pairs take one shape; give --size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelSettings(NetworkSettings):
    """Of networks in pixels."""

    gray: bool | None = option(None, "one channel in place of three; as the first picture is if not given")


Shape = tuple[int, int, int]  # height, width and channels of what a network denoises


def prepared(settings: Settings, source: Source, gray: bool | None = None) -> Prepare:
    """How pictures are prepared; the size and the colours are the first picture's where nothing is said."""
    array = np.asarray(source[0]["image"])
    gray = array.ndim == 2 or array.shape[-1] == 1 if gray is None else gray
    size = (settings.size,) * 2 if settings.size else array.shape[:2]
    return Prepare((int(size[0]), int(size[1])), 1 if gray else 3, settings.fit, flip=settings.flip,
                   exact=settings.size is None)


def shape_of(prepare: Prepare) -> Shape:
    """The shape of prepared pictures."""
    assert prepare.size is not None
    return (*prepare.size, prepare.channels)


def network(settings: NetworkSettings, shape: Shape, classes: int = 0) -> PictureNetwork:
    """A network for samples of that shape, told one of so many classes or, as the last, none. Raises as those below."""
    if settings.network == "dit":
        return dit(settings, shape, classes)
    return unet(settings, shape, **({"num_class_embeds": classes + 1} if classes else {}))


def init_params(model: PictureNetwork, seed: int) -> dict[str, Any]:
    """Fresh parameters, those of a DiT as it is to begin: all blocks do nothing (adaLN-Zero, Peebles & Xie 2023)."""
    def begun(path: Any, leaf: jax.Array) -> jax.Array:
        names = "/".join(entry.key for entry in path)
        if re.search(r"norm1/linear|proj_out_[12]", names):
            return jnp.zeros_like(leaf)
        return 0.02 * leaf if "embedding_table" in names else leaf

    params = model.init_params(jax.random.key(seed))
    return jax.tree_util.tree_map_with_path(begun, params) if isinstance(model, DiTTransformer2DModel) else params


def dit(settings: NetworkSettings, shape: Shape, classes: int) -> DiTTransformer2DModel:
    """A DiT for samples of that shape. Raises ValueError for one that is no square or has no whole patches."""
    channels, patch = numbers("channels", settings.channels) or (192,), settings.patch or 2
    if len(channels) > 1:
        raise ValueError(f"channels is {settings.channels!r}; a DiT takes one number, such as 192")
    if shape[0] != shape[1]:
        raise ValueError(f"size {shape[0]}x{shape[1]} is no square, which a DiT needs; give --size")
    if shape[0] % patch:
        raise ValueError(f"size {shape[0]}x{shape[1]} has no whole patches of {patch}x{patch}; choose another --patch")
    head = math.gcd(channels[0], 32)
    return DiTTransformer2DModel(
        num_attention_heads=channels[0] // head, attention_head_dim=head, in_channels=shape[2], out_channels=shape[2],
        sample_size=shape[0], num_layers=settings.layers or 6, patch_size=patch, dropout=settings.dropout,
        num_embeds_ada_norm=max(classes, 1),
    )  # fmt: skip


def unet(settings: NetworkSettings, shape: Shape, **options: Any) -> UNet2DModel:
    """A U-Net for samples of that shape. Raises ValueError for a size that its levels do not halve."""
    size, side = shape[:2], min(shape[:2])
    channels = numbers("channels", settings.channels) or _suiting(side)
    if any(length % 2 ** (len(channels) - 1) for length in size):
        raise ValueError(f"size {size[0]}x{size[1]} cannot be halved {len(channels) - 1} times; "
                         f"choose a multiple of {2 ** (len(channels) - 1)}")
    attends = [side // 2**level <= 16 and level > 0 for level in range(len(channels))]
    return UNet2DModel(
        sample_size=size[0] if size[0] == size[1] else size, in_channels=shape[2], out_channels=shape[2],
        block_out_channels=channels, layers_per_block=settings.layers or 1, dropout=settings.dropout,
        norm_num_groups=math.gcd(8, *channels),
        attention_head_dim=math.gcd(16, *channels),
        down_block_types=tuple("AttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        up_block_types=tuple("AttnUpBlock2D" if one else "UpBlock2D" for one in attends[::-1]),
        **options,
    )  # fmt: skip


def buckets(settings: NetworkSettings, model: PictureNetwork, factor: int = 1) -> tuple[tuple[int, int], ...]:
    """The shapes that pictures are brought to, if there are several; `factor`: pixels along a latent.

    Raises ValueError for one that the levels of the network do not halve.
    """
    halved = 2 ** (len(model.block_out_channels) - 1) if isinstance(model, UNet2DModel) else 1
    return shapes_of(settings.buckets, settings.size, factor * halved)


def scheduler(settings: NetworkSettings) -> Scheduler:
    """The levels to train at and to draw with."""
    if settings.prediction == "flow":
        return schedulers.FlowMatchEulerDiscreteScheduler()
    ends: Any = {"beta_start": 0.00085, "beta_end": 0.012} if settings.schedule == "scaled_linear" else {}
    return schedulers.DDIMScheduler(
        beta_schedule=settings.schedule, timestep_spacing="trailing", clip_sample=False,
        prediction_type=settings.prediction, **ends,
    )  # fmt: skip


def weight(name: str) -> Weight | None:
    """The weight of the loss of that name, one of the choices of the settings."""
    return {"": None, "min-snr": min_snr(), "p2": p2()}[name]


def numbers(name: str, text: str) -> tuple[int, ...]:
    """The numbers of a setting of that name. Raises ValueError for anything else."""
    try:
        return tuple(int(word) for word in text.split(",") if word)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; it must be whole numbers with commas, such as 32,64") from None


def _suiting(side: int) -> tuple[int, ...]:
    return (32, 64) if side < 16 else (32, 64, 64) if side <= 32 else (64, 128, 128, 256)
