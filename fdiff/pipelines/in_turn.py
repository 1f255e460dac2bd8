"""Parameters of which one model is in memory at a time."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import jax


def give_back() -> None:
    """Free what nobody holds, and have the C library give it to the system, where it can be told so.

    Programs run while Python goes on, and hold the parameters of a model that was dropped until they end; JAX frees
    these when Python collects what nobody holds. The C library keeps holes between what is not free.
    """
    jax.block_until_ready(jax.live_arrays())
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


class InTurn(Mapping[str, Any]):
    """The parameters of a pipeline by the names of its models, each read when it is asked for, and then alone kept.

    A text encoder is dropped when the network is asked for. The network stays while its run lasts, and the decoder,
    which is small, comes beside it. It is made of functions that read, and of trees, such as those of a LoRA, which
    stay.
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self._sources = dict(sources)
        self._last: tuple[str, Any] = ("", None)

    def __getitem__(self, name: str) -> Any:
        found = self._sources[name]
        reads = found if isinstance(found, list) else [found]  # several ControlNets are a list
        if not all(callable(one) for one in reads):
            return found
        if self._last[0] != name:
            self._last = ("", None)  # before the next one is read
            give_back()
            trees = [one() for one in reads]
            self._last = (name, trees if isinstance(found, list) else trees[0])
        return self._last[1]

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def beside(self, trees: Mapping[str, Any]) -> InTurn:
        """The same with further trees, such as a LoRA's."""
        return InTurn({**self._sources, **trees})
