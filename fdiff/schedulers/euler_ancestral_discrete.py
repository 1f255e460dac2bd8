"""EulerAncestralDiscreteScheduler."""

from __future__ import annotations

import dataclasses

from fdiff import solvers
from fdiff.plan import Plan, Solver
from fdiff.schedulers.exploding import ExplodingScheduler, Steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerAncestralDiscreteScheduler(ExplodingScheduler):
    """Euler's method with ancestral noise (k-diffusion; DDIM's eta = 1, Song et al. 2021, eq. 16).

    Order 1 (weak), one network call a step; stochastic. The fields are the Hub's.
    """

    rescale_betas_zero_snr: bool = False

    def _solve(self, steps: Steps) -> tuple[Solver, Steps]:
        return solvers.ddim(eta=1.0), steps

    def _table(self, solver: Solver, steps: Steps) -> Plan:
        return super()._table(solver, steps).drawing()
