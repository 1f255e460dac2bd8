"""ControlNetXSAdapter: the narrow network of ControlNet-XS, without its U-Net."""

import math
import re
from typing import Annotated, Any, NoReturn, Self

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from fdiff.models.controlnet_xs import BETWEEN, DOWN, UNetControlNetXSModel, origin
from fdiff.models.fields import Channels, Count, Depth, OneOf, Pixels, Widths, between, some
from fdiff.models.model import Model
from fdiff.models.unet_2d_condition import UNet2DConditionModel


class ControlNetXSAdapter(Model):
    """The narrow network that steers a U-Net by a picture; it runs as a part of a UNetControlNetXSModel."""

    conditioning_channels: Channels = 3
    conditioning_channel_order: Annotated[str, OneOf(("rgb", "bgr"))] = "rgb"
    conditioning_embedding_out_channels: Annotated[tuple[Count, ...], some(5)] = (16, 32, 96, 256)
    time_embedding_mix: Annotated[float, between(0, 1)] = 1.0
    learn_time_embedding: bool = False
    num_attention_heads: Count | tuple[Count, ...] = 4
    block_out_channels: Widths = (4, 8, 16, 16)
    base_block_out_channels: Widths = (320, 640, 1280, 1280)
    cross_attention_dim: Count | tuple[Count, ...] = 1024
    down_block_types: tuple[str, ...] = DOWN
    sample_size: Pixels | None = 96
    transformer_layers_per_block: Depth | tuple[Depth | tuple[Depth, ...], ...] = 1
    upcast_attention: bool = True
    max_norm_num_groups: Count = 32
    use_linear_projection: bool = True

    def check_options(self) -> None:
        """Refuse what the joint network would refuse."""
        self.joint().check_options()

    def __call__(self) -> NoReturn:
        raise ValueError(
            "A ControlNetXSAdapter does not run by itself; join it with its U-Net by UNetControlNetXSModel.from_unet."
        )

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Parameters through which nothing reaches the U-Net yet."""
        joint = self.joint()
        drawn = flatten_dict(joint.init(rngs, *joint.example_inputs())["params"], sep="/")
        own = {}
        for path, leaf in drawn.items():
            owner, name = origin(path)
            if owner == "adapter":
                own[name] = jnp.zeros_like(leaf) if re.search(BETWEEN, path) else leaf
        return {"params": unflatten_dict(own, sep="/")}

    def example_inputs(self) -> tuple[Any, ...]:
        """None: it does not run by itself."""
        return ()

    def control_options(self) -> dict[str, Any]:
        """The options of the joint network that are the adapter's."""
        names = (
            "conditioning_channels",
            "conditioning_embedding_out_channels",
            "conditioning_channel_order",
            "learn_time_embedding",
            "block_out_channels",
            "num_attention_heads",
            "max_norm_num_groups",
        )
        own = {f"ctrl_{name}": getattr(self, name) for name in names}
        return {**own, "time_embedding_mix": self.time_embedding_mix}

    def joint(self) -> UNetControlNetXSModel:
        """A network with such an adapter, beside a U-Net of which only the shapes between the two are right."""
        shared = ("cross_attention_dim", "transformer_layers_per_block", "use_linear_projection", "down_block_types")
        return UNetControlNetXSModel(
            **{name: getattr(self, name) for name in shared},
            up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(self.down_block_types)),
            block_out_channels=self.base_block_out_channels,
            norm_num_groups=math.gcd(*self.base_block_out_channels),
            num_attention_heads=1,
            **self.control_options(),
            parent=None,  # a network of its own, where Linen takes one that is made in a method for a part
        )

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        key: jax.Array,
        *,
        block_out_channels: tuple[int, ...],
        num_attention_heads: int | tuple[int, ...] | None = None,
        learn_time_embedding: bool = False,
        time_embedding_mix: float = 1.0,
        conditioning_channels: int = 3,
        conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256),
    ) -> tuple[Self, dict[str, Any]]:
        """An adapter for a U-Net to be trained, which does not change anything yet, and its parameters.

        block_out_channels: one number a level, a fraction of the U-Net's; num_attention_heads: the U-Net's if None.
        """
        adapter = cls(
            conditioning_channels=conditioning_channels,
            conditioning_embedding_out_channels=conditioning_embedding_out_channels,
            time_embedding_mix=time_embedding_mix,
            learn_time_embedding=learn_time_embedding,
            num_attention_heads=unet.attention_head_dim if num_attention_heads is None else num_attention_heads,
            block_out_channels=block_out_channels,
            base_block_out_channels=unet.block_out_channels,
            cross_attention_dim=unet.cross_attention_dim,
            down_block_types=unet.down_block_types,
            sample_size=unet.sample_size if isinstance(unet.sample_size, int) else None,
            transformer_layers_per_block=unet.transformer_layers_per_block,
            upcast_attention=bool(unet.upcast_attention),
            max_norm_num_groups=unet.norm_num_groups or 32,
            use_linear_projection=unet.use_linear_projection,
        )
        return adapter, adapter.init_params(key)
