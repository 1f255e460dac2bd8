"""EDMDPMSolverMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.edm import EDMScheduler, edm_orders, lay_edm
from fdiff.schedulers.fields import SolverOrder, Thresholding
from fdiff.schedulers.options import choose, clipping, length


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMDPMSolverMultistepScheduler(SolverOrder, Thresholding, EDMScheduler):
    """DPM-Solver++ multistep (Lu et al. 2022b, algorithm 2) for EDM's preconditioned networks.

    Order solver_order, 1 to 3 (but see DPMSolverMultistepScheduler about 3), one network call a step; stochastic with
    algorithm_type sde-dpmsolver++. The fields are the Hub's. The network is told log(sigma) / 4. With solver_type
    heun and final_sigmas_type sigma_min the last step of diffusers is not a number; here it changes nothing, as it
    starts where it ends.
    """

    algorithm_type: str = "dpmsolver++"
    euler_at_final: bool = False

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (image to image), with a warm-up of its own.
        """
        algorithm = choose("algorithm_type", self.algorithm_type, ("dpmsolver++", "sde-dpmsolver++"), ("deis",))
        kind = choose("solver_type", self.solver_type, ("midpoint", "heun"), ("logrho", "bh1", "bh2"))
        if self.solver_order not in (1, 2, 3):
            raise ValueError(f"solver_order is {self.solver_order}; it can be 1, 2 or 3")
        steps = lay_edm(self, num_inference_steps, sigmas, strength)
        orders = edm_orders(self, num_inference_steps or length(sigmas) - 1, steps)
        solver = solvers.dpm_multistep(
            orders, stochastic=algorithm == "sde-dpmsolver++", heun=kind == "heun",
            as_diffusers=algorithm == "dpmsolver++",
        )
        return self._rows(solver, steps, clipping(self)).drawing(algorithm == "sde-dpmsolver++")
