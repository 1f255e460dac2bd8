"""DPMSolverMultistepInverseScheduler."""

from __future__ import annotations

import dataclasses

import numpy as np

from fdiff import spacing
from fdiff.plan import Plan
from fdiff.schedulers.dpmsolver_multistep import ALGORITHMS, multistep_solver
from fdiff.schedulers.exploding import Steps, train_sigmas
from fdiff.schedulers.fields import LogSnrEnds, SolverOrder, Spacing
from fdiff.schedulers.options import choose, first_step
from fdiff.schedulers.preserving import LogSnrScheduler, even_flow, layout, look_up, lowered, spaced


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverMultistepInverseScheduler(SolverOrder, LogSnrEnds, Spacing, LogSnrScheduler):
    """DPM-Solver(++) multistep (Lu et al. 2022b, algorithm 2) from an image to its noise.

    Order 1 to 3 (see DPMSolverMultistepScheduler), deterministic, one network call a step. The fields are the
    Hub's. As in diffusers a run leaves out every step whose timestep another has, so that karras sigmas end below
    the most noise. Flow sigmas rise, too; in diffusers they fall, which is no inversion. The sde- algorithms
    cannot be inverted.
    """

    algorithm_type: str = "dpmsolver++"
    euler_at_final: bool = False

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its first part, the least noise."""
        if choose("algorithm_type", self.algorithm_type, ALGORITHMS, ("deis",)).startswith("sde"):
            raise ValueError(f"algorithm_type {self.algorithm_type} draws noise and cannot be inverted; "
                             f"set it to {self.algorithm_type.removeprefix('sde-')}")
        n = spacing.check_steps(num_inference_steps)
        named, train = layout(self), train_sigmas(self)
        if named == "flow":
            levels = spacing.shift_flow(even_flow(len(train), n), self.flow_shift)[::-1]
            t, end = levels * len(train), levels[-1]
        elif named:
            levels, t = look_up(self, named, n, rising=True)
            t, end = np.round(t) if named == "karras" else t, levels[-1]
        else:
            t = spaced(self, n, rising=True)
            levels = np.interp(t, np.arange(len(train)), train)
            end = train[np.sum(-np.log(train) >= self.lambda_min_clipped) - 1]
        _, kept = np.unique(t, return_index=True)
        m = len(kept)
        steps = Steps(np.trunc(t[kept]), levels[:m], np.append(levels[1:], end)[:m])
        orders = lowered(self.solver_order, m, self.lower_order_final, self.euler_at_final)
        stop = m - first_step(m, strength)
        return self._rows(multistep_solver(self, orders), steps, stop=stop)
