"""Solvers: one textbook formula a file, each a function that returns a `fdiff.plan.Solver`."""

from fdiff.solvers.ancestral_flow import ancestral_flow
from fdiff.solvers.consistency import consistency
from fdiff.solvers.ddim import ddim
from fdiff.solvers.ddpm import ddpm
from fdiff.solvers.deis import deis
from fdiff.solvers.dpm_2 import dpm_2
from fdiff.solvers.dpm_multistep import dpm_multistep
from fdiff.solvers.dpm_sde import dpm_sde
from fdiff.solvers.dpm_singlestep import dpm_singlestep
from fdiff.solvers.euler import euler
from fdiff.solvers.euler_maruyama import euler_maruyama
from fdiff.solvers.full_order import full_order
from fdiff.solvers.heun import heun
from fdiff.solvers.ipndm import ipndm
from fdiff.solvers.karras_ve import karras_ve
from fdiff.solvers.langevin import langevin
from fdiff.solvers.lms import lms
from fdiff.solvers.one_noise import one_noise
from fdiff.solvers.pndm import pndm
from fdiff.solvers.repaint import repaint
from fdiff.solvers.rescaled_score import rescaled_score
from fdiff.solvers.reverse_diffusion import reverse_diffusion
from fdiff.solvers.sa import sa
from fdiff.solvers.tcd import tcd
from fdiff.solvers.unipc import unipc

__all__ = [
    "ancestral_flow",
    "consistency",
    "ddim",
    "ddpm",
    "deis",
    "dpm_2",
    "dpm_multistep",
    "dpm_sde",
    "dpm_singlestep",
    "euler",
    "euler_maruyama",
    "full_order",
    "heun",
    "ipndm",
    "karras_ve",
    "langevin",
    "lms",
    "one_noise",
    "pndm",
    "repaint",
    "rescaled_score",
    "reverse_diffusion",
    "sa",
    "tcd",
    "unipc",
]
