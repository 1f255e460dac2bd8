"""Training: losses, one step, and averaged parameters."""

from fdiff.training.averages import Snapshot, post_hoc, power, warmed
from fdiff.training.loss import denoising_loss, logit_normal, min_snr, p2, stratified, uniform, withhold
from fdiff.training.step import TrainState, init, train_step

__all__ = [
    "Snapshot",
    "TrainState",
    "denoising_loss",
    "init",
    "logit_normal",
    "min_snr",
    "p2",
    "post_hoc",
    "power",
    "stratified",
    "train_step",
    "uniform",
    "warmed",
    "withhold",
]
