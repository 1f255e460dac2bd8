"""One file for each Hub model class, named like it; layers/ holds the blocks that they share."""

from fdiff.models.model import Model
from fdiff.models.unet_2d import UNet2DModel

__all__ = ["Model", "UNet2DModel"]
