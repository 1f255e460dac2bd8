"""The earlier place of `fdiff.cli.generate`, for programs that import it from here."""

from fdiff.cli.generate import generate
from fdiff.cli.pictures import open_picture as _open

__all__ = ["_open", "generate"]
