"""Solvers: one textbook formula a file, each a function that returns a `fdiff.plan.Solver`."""

from fdiff.solvers.consistency import consistency
from fdiff.solvers.ddim import ddim
from fdiff.solvers.ddpm import ddpm
from fdiff.solvers.dpm_2 import dpm_2
from fdiff.solvers.dpm_multistep import dpm_multistep
from fdiff.solvers.dpm_sde import dpm_sde
from fdiff.solvers.euler import euler
from fdiff.solvers.heun import heun
from fdiff.solvers.ipndm import ipndm
from fdiff.solvers.lms import lms
from fdiff.solvers.pndm import pndm
from fdiff.solvers.tcd import tcd
from fdiff.solvers.unipc import unipc

__all__ = [
    "consistency",
    "ddim",
    "ddpm",
    "dpm_2",
    "dpm_multistep",
    "dpm_sde",
    "euler",
    "heun",
    "ipndm",
    "lms",
    "pndm",
    "tcd",
    "unipc",
]
