"""Schedulers: one frozen dataclass for each Hub class, from scheduler_config.json to a plan."""

from fdiff.schedulers.ddim import DDIMScheduler
from fdiff.schedulers.scheduler import Scheduler, StepOutput

__all__ = ["DDIMScheduler", "Scheduler", "StepOutput"]
