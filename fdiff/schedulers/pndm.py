"""PNDMScheduler."""

from __future__ import annotations

import dataclasses

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Plan
from fdiff.schedulers.fields import Spacing
from fdiff.schedulers.options import first_step
from fdiff.schedulers.timesteps import TimestepScheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class PNDMScheduler(Spacing, TimestepScheduler):
    """PNDM (Liu et al. 2022, algorithm 2), order 2, deterministic, one network call a step after its warm-up.

    The fields are the Hub's. The warm-up repeats one step (skip_prk_steps, PLMS: n + 1 network calls) or takes
    three Runge-Kutta steps of four calls (n + 9 calls, at least 4 steps). `set_alpha_to_one` ends at a clean x,
    otherwise at the level of timestep 0. With v_prediction velocities are combined, as in diffusers, which lowers
    the order to 1. A run of strength below 1 warms up anew; diffusers goes on with a state that it does not have.
    """

    skip_prk_steps: bool = False
    set_alpha_to_one: bool = False
    timestep_spacing: str = "leading"

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its last part (image to image)."""
        n, most = spacing.check_steps(num_inference_steps), self.num_train_timesteps
        t = np.round(spacing.timesteps(self.timestep_spacing, most, n, offset=self.steps_offset))
        t, stride = t[first_step(n, strength):], most // n
        alpha2 = self._signal()
        alpha2 = np.append(alpha2, 1.0 if self.set_alpha_to_one else alpha2[0])

        def level(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            at = alpha2[np.where(t < 0, -1, t).astype(int)]
            return np.sqrt(at), np.sqrt(1 - at)

        told, t_to = repeated_step(t, stride) if self.skip_prk_steps else runge_kutta_steps(t, stride)
        prk, velocity = not self.skip_prk_steps, self.prediction_type == "v_prediction"
        again = t[1] + stride if len(t) > 1 else t[0]  # diffusers restarts here, which is t[0] if strides are equal
        restart = None if prk or again == t[0] else level(again)
        solver = solvers.pndm(prk=prk, restart=restart, velocity=velocity)
        return self._tabulate(solver, Grid(told, *level(told), *level(t_to)))


def repeated_step(t: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """What PLMS tells the network in each row, and where the row goes: the first step is taken twice."""
    told = np.concatenate([t[:2], t[1:]])
    t_to = told - stride
    if len(t) > 1:
        t_to[1] = told[1]
    return told, t_to


def runge_kutta_steps(t: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for three Runge-Kutta steps of four rows, and single steps after them.

    Raises ValueError for fewer than four timesteps.
    """
    if len(t) < 4:
        raise ValueError(f"{len(t)} steps are fewer than the 4 that PNDM's Runge-Kutta warm-up needs; "
                         "ask for more or set skip_prk_steps")
    half = stride // 2
    told = [[t[k], t[k + 1] + half, t[k + 1] + half, t[k + 1]] for k in range(3)]
    t_to = [[t[k] - half, t[k + 1] + half, t[k + 1], t[k + 1]] for k in range(3)]
    return np.concatenate([*told, t[3:]]), np.concatenate([*t_to, t[3:] - stride])
