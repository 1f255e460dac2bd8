"""All that `fdiff` offers by name: `fdiff.sample` is what `sample` is here."""

from fdiff import adapters, guidance, models, pipelines, prompts, schedulers, solvers, tokenizers, torch_random
from fdiff.caching import DeepCache, FirstBlockCache, TaylorSeer, cached
from fdiff.catalogue import list_models, list_pipelines, list_schedulers
from fdiff.likelihood import log_likelihood, slerp
from fdiff.models import *  # noqa: F403
from fdiff.pipelines import *  # noqa: F403
from fdiff.plan import Grid, Memory, Plan, Solver, tabulate
from fdiff.plan_files import load_plan, save_plan
from fdiff.registry import register
from fdiff.rows import ByRow, at_row
from fdiff.sampling import State, init, predict, sample, step, steps
from fdiff.schedulers import *  # noqa: F403
from fdiff.stacked import stack_blocks, unstack_blocks
from fdiff.tokenizers import *  # noqa: F403

__all__ = [
    "ByRow",
    "DeepCache",
    "FirstBlockCache",
    "Grid",
    "Memory",
    "Plan",
    "Solver",
    "State",
    "TaylorSeer",
    "adapters",
    "at_row",
    "cached",
    "guidance",
    "init",
    "list_models",
    "list_pipelines",
    "list_schedulers",
    "load_plan",
    "log_likelihood",
    "models",
    "pipelines",
    "predict",
    "prompts",
    "register",
    "sample",
    "save_plan",
    "schedulers",
    "slerp",
    "solvers",
    "stack_blocks",
    "step",
    "steps",
    "tabulate",
    "tokenizers",
    "torch_random",
    "unstack_blocks",
]
__all__ += models.__all__
__all__ += pipelines.__all__
__all__ += schedulers.__all__
__all__ += tokenizers.__all__
