"""Training: the loss, one step, and averaged parameters. Loops, data and checkpoints stay the caller's."""

from fdiff.training.loss import denoising_loss
from fdiff.training.step import TrainState, init, train_step

__all__ = ["TrainState", "denoising_loss", "init", "train_step"]
