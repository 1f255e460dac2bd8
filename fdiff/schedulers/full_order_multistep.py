"""FullOrderMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np

from fdiff import hub, registry, solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.exploding import Steps, train_sigmas
from fdiff.schedulers.fields import Bounds, DynamicShift
from fdiff.schedulers.flow import FlowScheduler
from fdiff.schedulers.options import first_step, given_timesteps, one_of
from fdiff.schedulers.preserving import PreservingScheduler, tabulate_steps
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullOrderMultistepScheduler(DynamicShift, PreservingScheduler):
    """Adams' methods along flow time, s = sigma / (alpha + sigma), deterministic, one network call a step.

    Order solver_order + 1, also of the last step (`solvers.full_order`). Its levels are chosen for their number
    (`spacing.full_order_levels`); the network is told timesteps with their fraction, and nothing is rounded. For betas
    and for flows, of any prediction_type; made from a flow's scheduler, its levels are that flow's, shifted as far. No
    Hub class is this.
    """

    solver_order: Annotated[int, Bounds(1, 5)] = 4
    rescale_betas_zero_snr: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | str | Path | Scheduler, **options: Any) -> Self:
        """As every scheduler's; a flow's gives its shift too. Raises ValueError for a flow that runs backwards."""
        if isinstance(config, Scheduler):
            config = config._spelt_out() | {"_class_name": type(config).__name__}
        elif isinstance(config, str | Path):
            config = hub.read_json(Path(config))
        if isinstance(config, Mapping) and _of_flow(config):
            if config.get("invert_sigmas"):
                raise ValueError("invert_sigmas turns the time of this flow around (Mochi), which "
                                 "FullOrderMultistepScheduler does not; keep the scheduler of this checkpoint")
            flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
            options = flow | {"flow_shift": config.get("shift", 1.0)} | options
        return super().from_config(config, **options)

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, fractions included, in place of their number.
            mu: the resolution's shift of a flow, where use_dynamic_shifting is on.
            strength: below 1, only that last part of the run (image to image), with a warm-up of its own.
        """
        if self.use_dynamic_shifting != (mu is not None):
            raise ValueError("mu goes with use_dynamic_shifting: give both or neither")
        given = one_of(num_inference_steps=num_inference_steps, timesteps=timesteps)
        laid = None if given == "num_inference_steps" else given_timesteps(timesteps, self.num_train_timesteps + 1)
        steps = (self._flow if self.use_flow_sigmas else self._noise)(num_inference_steps, laid, mu)
        start = first_step(len(steps.t), strength)
        return tabulate_steps(self, solvers.full_order(self.solver_order), steps, start)

    def _flow(self, n: int | None, t: np.ndarray | None, mu: float | None) -> Steps:
        """The steps along a flow, shifted unless the timesteps are given."""
        total = self.num_train_timesteps
        if t is None:
            shift = self.flow_shift if mu is None else spacing.shift_of(mu, self.time_shift_type)
            s = spacing.shift_flow(spacing.full_order_levels(1.0, 1 / total, spacing.check_steps(n)), shift)
        else:
            s = t / total
        return Steps(s * total, s, np.append(s[1:], 0.0))

    def _noise(self, n: int | None, t: np.ndarray | None, mu: float | None) -> Steps:
        """The steps by sigma / alpha, from that of the last timestep of training to none."""
        train = train_sigmas(self)
        if t is None:
            high, low = train[[-1, 0]] / (1 + train[[-1, 0]])
            s = spacing.full_order_levels(high, low, spacing.check_steps(n))
            ratio = s / (1 - s)
            t = spacing.interpolate_timesteps(ratio, train)
        else:
            ratio = np.exp(np.interp(t, np.arange(len(train)), np.log(train)))
        return Steps(t, ratio, np.append(ratio[1:], 0.0))


def _of_flow(config: Mapping[str, Any]) -> bool:
    """Whether it is the config of a flow's own scheduler."""
    found = registry.lookup(config.get("_class_name"), Scheduler)
    return found is not None and issubclass(found, FlowScheduler)
