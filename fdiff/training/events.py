"""What TensorBoard shows of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Events:
    """Event files in a folder, in which a training that is resumed after `done` steps goes on."""

    def __init__(self, folder: Path, done: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError('tensorboard needs tensorboardX; install it with pip install "fdiff-jax[train]"') from None

        self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def numbers(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics after a step."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, sheet: Any) -> None:
        """A sheet of samples, PIL's."""
        self._writer.add_image("samples", np.asarray(sheet.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
