"""The one list of scheduler cases: each file here holds CASES for a Hub class, named like its fdiff file."""

import dataclasses
import importlib
import pkgutil
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration to run in diffusers and in fdiff.

    Attributes:
        scheduler: the Hub's class name.
        config: what scheduler_config.json holds.
        steps: num_inference_steps, None where timesteps or sigmas are given.
        plan: options of fdiff's plan.
        set_timesteps: options of diffusers' set_timesteps.
        step: options of diffusers' step.
        channels: 2 where the network also predicts a variance.
        level_in_t: the network is told sigma, scales its input by it, and returns -eps.
        double: run diffusers in float64, where its float32 loses more than the tolerance.
    """

    scheduler: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: int | None = 50
    plan: dict[str, Any] = dataclasses.field(default_factory=dict)
    set_timesteps: dict[str, Any] = dataclasses.field(default_factory=dict)
    step: dict[str, Any] = dataclasses.field(default_factory=dict)
    channels: int = 1
    double: bool = False
    level_in_t: bool = False

    @property
    def id(self) -> str:
        """A name for test reports and reference files."""
        words = [f"{k}={str(v)[:20]}" for d in (self.config, self.plan) for k, v in d.items()]
        return "-".join([self.scheduler, str(self.steps), *words]).replace("/", "_")[:150]


def all_cases() -> list[Case]:
    """Every case of every file in this folder."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__))
    return [case for name in names for case in importlib.import_module(f"{__name__}.{name}").CASES]
