"""Schedulers: one frozen dataclass for each Hub class, from scheduler_config.json to a plan."""

from fdiff import registry
from fdiff.schedulers.annealed_langevin import AnnealedLangevinScheduler
from fdiff.schedulers.cm_stochastic_iterative import CMStochasticIterativeScheduler
from fdiff.schedulers.cogvideox_ddim import CogVideoXDDIMScheduler
from fdiff.schedulers.cogvideox_dpm import CogVideoXDPMScheduler
from fdiff.schedulers.consistency_decoder import ConsistencyDecoderScheduler
from fdiff.schedulers.cosine_dpmsolver_multistep import CosineDPMSolverMultistepScheduler
from fdiff.schedulers.ddim import DDIMScheduler
from fdiff.schedulers.ddim_inverse import DDIMInverseScheduler
from fdiff.schedulers.ddpm import DDPMScheduler
from fdiff.schedulers.ddpm_wuerstchen import DDPMWuerstchenScheduler
from fdiff.schedulers.deis_multistep import DEISMultistepScheduler
from fdiff.schedulers.dpmsolver_multistep import DPMSolverMultistepScheduler
from fdiff.schedulers.dpmsolver_multistep_inverse import DPMSolverMultistepInverseScheduler
from fdiff.schedulers.dpmsolver_sde import DPMSolverSDEScheduler
from fdiff.schedulers.dpmsolver_singlestep import DPMSolverSinglestepScheduler
from fdiff.schedulers.edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from fdiff.schedulers.edm_euler import EDMEulerScheduler
from fdiff.schedulers.euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from fdiff.schedulers.euler_discrete import EulerDiscreteScheduler
from fdiff.schedulers.flow_map_euler_discrete import FlowMapEulerDiscreteScheduler
from fdiff.schedulers.flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from fdiff.schedulers.flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from fdiff.schedulers.flow_match_lcm import FlowMatchLCMScheduler
from fdiff.schedulers.full_order_multistep import FullOrderMultistepScheduler
from fdiff.schedulers.helios import HeliosScheduler
from fdiff.schedulers.helios_dmd import HeliosDMDScheduler
from fdiff.schedulers.heun_discrete import HeunDiscreteScheduler
from fdiff.schedulers.ipndm import IPNDMScheduler
from fdiff.schedulers.karras_ve import KarrasVeScheduler
from fdiff.schedulers.kdpm2_ancestral_discrete import KDPM2AncestralDiscreteScheduler
from fdiff.schedulers.kdpm2_discrete import KDPM2DiscreteScheduler
from fdiff.schedulers.lcm import LCMScheduler
from fdiff.schedulers.level import Level
from fdiff.schedulers.lms_discrete import LMSDiscreteScheduler
from fdiff.schedulers.ltx_euler_ancestral_rf import LTXEulerAncestralRFScheduler
from fdiff.schedulers.minimax_h3 import MiniMaxH3Scheduler
from fdiff.schedulers.piflow import PiflowScheduler
from fdiff.schedulers.pndm import PNDMScheduler
from fdiff.schedulers.polynomial import PolynomialScheduler
from fdiff.schedulers.repaint import RePaintScheduler, keep_known
from fdiff.schedulers.rfd4_proteina import RFD4ProteinaScheduler
from fdiff.schedulers.sasolver import SASolverScheduler
from fdiff.schedulers.scheduler import Scheduler, StepOutput, find_scheduler, named_scheduler
from fdiff.schedulers.scm import SCMScheduler
from fdiff.schedulers.score_sde_ve import ScoreSdeVeScheduler
from fdiff.schedulers.score_sde_vp import ScoreSdeVpScheduler
from fdiff.schedulers.tcd import TCDScheduler
from fdiff.schedulers.unclip import UnCLIPScheduler
from fdiff.schedulers.unipc_multistep import UniPCMultistepScheduler

DDIMParallelScheduler, DDPMParallelScheduler = DDIMScheduler, DDPMScheduler

__all__ = [
    "AnnealedLangevinScheduler",
    "CMStochasticIterativeScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "ConsistencyDecoderScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DDPMWuerstchenScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "FullOrderMultistepScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "HeunDiscreteScheduler",
    "IPNDMScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KarrasVeScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "LTXEulerAncestralRFScheduler",
    "Level",
    "MiniMaxH3Scheduler",
    "PNDMScheduler",
    "PiflowScheduler",
    "PolynomialScheduler",
    "RFD4ProteinaScheduler",
    "RePaintScheduler",
    "SASolverScheduler",
    "SCMScheduler",
    "Scheduler",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "StepOutput",
    "TCDScheduler",
    "UnCLIPScheduler",
    "UniPCMultistepScheduler",
    "find_scheduler",
    "keep_known",
    "named_scheduler",
]

registry.register_all({name: globals()[name] for name in __all__}, Scheduler)
