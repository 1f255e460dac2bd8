"""What a benchmark is, and the numbers and weights that cases draw."""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Run = Callable[[], Any]


class Setting(NamedTuple):
    """What a side is told: whether to be small, to try that all of it runs, and a folder that the sides share."""

    small: bool
    folder: Path


class Ready(NamedTuple):
    """A side with its weights in memory.

    `begin` compiles or converts, and gives what is run: that returns an array, to be compared with the other sides',
    or, where it has a clock of its own, a float, which are its seconds.
    """

    begin: Callable[[], Run]
    count: Callable[[], float] | None = None  # of the operations of a run


@dataclass(frozen=True)
class Case:
    """A name, what is run, and the sides that take turns, each in a process of its own."""

    name: str
    about: str
    sides: Mapping[str, Callable[[Setting], Ready]]
    wanted: float | None = None  # at most this share of torch's time
    gigabytes: float = 1.0  # of a side, about; where not all fit beside each other, one is started after the other
    rounds: int | None = None  # where a round is long
    before: Callable[[Setting], None] | None = None  # makes what is in the folder, once


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random weights of torch's shape, which depend on the name alone: in size like those of a new torch layer."""
    x = np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32)
    x -= 0.5
    x *= 2 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.2
    if len(shape) < 2 and not name.endswith("bias"):
        x += 1
    return x / len(x) if name.endswith(".kernel") else x  # a mean of neighbours, where samples are made fewer


def plain(name: str) -> str:
    """The name of a parameter without what one library puts before all of them and the other does not."""
    return name.removeprefix("text_model.").removeprefix("model.")


def parameters(model: Any) -> Any:
    """The parameters of a module of fdiff, drawn."""
    import jax

    from convert import layout

    def one(entries: Any, leaf: Any) -> jax.Array:
        path = tuple(entry.key for entry in entries)
        weights = drawn(plain(layout.torch_name(path)), layout.torch_shape(path, leaf.shape))
        return jax.device_put(layout.copied(layout.from_torch(path, weights), np.float32))

    return jax.tree_util.tree_map_with_path(one, model.shapes())


def fill(module: Any) -> Any:
    """A module of torch with the same weights."""
    import torch

    seen = set()  # tables that two layers share are drawn once, by their first name
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                tensor.copy_(torch.from_numpy(drawn(plain(name), tuple(tensor.shape))))
    return module.eval()


def normal(*shape: int) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def resident(entry: str) -> int:
    """VmRSS or VmHWM (its peak) of this process in bytes; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(entry))
