"""Programs that hold little beside what they are given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

P = ParamSpec("P")
Out = TypeVar("Out")

HALVES = frozenset(map(jnp.dtype, ("bfloat16", "float16")))
SOON_FREED = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
SINCE = (0, 10)  # of JAX


class Program(Generic[P, Out]):
    """`jax.jit` of a function, which on CPUs widens weights of 16 bits one after the other.

    A CPU computes in float32. XLA there begins whatever can begin, all weights before the first layer, and so holds
    all of them in float32, unless it is told to have few arrays at a time.
    """

    def __init__(self, function: Callable[P, Out], **options: Any) -> None:
        functools.update_wrapper(self, function)
        self.plain: Any = jax.jit(function, **options)
        self.lean: Any = jax.jit(function, compiler_options=SOON_FREED, **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out:
        """What the function gives."""
        made: Out = (self.lean if _is_lean((args, kwargs)) else self.plain)(*args, **kwargs)
        return made

    def _cache_size(self) -> int:
        return int(self.plain._cache_size() + self.lean._cache_size())


def _is_lean(arguments: Any) -> bool:
    if jax.__version_info__ < SINCE or jax.default_backend() != "cpu":
        return False  # before each step's parameters are looked through
    leaves = jax.tree.leaves(arguments)
    if not any(getattr(leaf, "dtype", None) in HALVES for leaf in leaves):
        return False
    # Only a whole program has options, not what is a part of another one or differentiated.
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in (jnp.zeros(()), *leaves))
