"""Pipelines: one file a task, with the pure function and the host class around it."""

from fdiff.pipelines.class_conditional import DIGITS, ClassConditionalPipeline, class_conditional
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput
from fdiff.pipelines.unconditional import DDIMPipeline, DDPMPipeline, unconditional

__all__ = [
    "DIGITS",
    "ClassConditionalPipeline",
    "DDIMPipeline",
    "DDPMPipeline",
    "DiffusionPipeline",
    "ImageOutput",
    "class_conditional",
    "unconditional",
]
