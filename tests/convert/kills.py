"""Saves over an existing folder whose process is killed between any two of its changes to the disk.

As a program it prints, as JSON, what a reader finds after each kill and after the next save: python -m
tests.convert.kills PLACE EVERY looks at every EVERY-th change. It forks for each kill, so that JAX is imported once.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from convert import weights
from convert.files import staged
from fdiff import hub
from tests.logs import listening

STEM = "diffusion_pytorch_model"
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")  # what an audit hook is told of
SAVES = [  # what there is, and what is saved over it
    ("shards", "shards"), ("shards", "larger shards"), ("larger shards", "shards"), ("shards", "file"),
    ("file", "shards"), ("file", "file"), ("pipeline", "pipeline"), ("nothing", "shards"), ("nothing", "pipeline"),
    ("larger shards", "larger shards"), ("larger shards", "file"),
]  # fmt: skip


def save(folder: Path, value: float, kind: str) -> None:
    """Weights that are one number throughout, so that those of two saves are told apart."""
    params = {f"layers.{i}": {"kernel": np.full((8, 8), value, np.float32)} for i in range(6)}
    match kind:
        case "shards":
            weights.save(folder, params, STEM, max_shard_size=256)
        case "larger shards":
            weights.save(folder, params, STEM, max_shard_size=512)
        case "file":
            weights.save(folder, params, STEM)
        case "pipeline":
            with staged(folder) as temporary:
                for name in ("unet", "vae"):
                    weights.save(temporary / name, params, STEM, max_shard_size=512)
                hub.write_json(temporary / "model_index.json", {"value": value})


def values(folder: Path, kind: str) -> set[float]:
    """The numbers that a reader finds. Raises ValueError or FileNotFoundError where it refuses, or nothing is there."""
    if kind == "pipeline":
        index = hub.read_json(hub.fetch(hub.Source(folder), "model_index.json"))
        return {index["value"]}.union(*(values(folder / name, "") for name in ("unet", "vae")))
    found = weights.tensors(hub.fetch_weights(hub.Source(folder), STEM))
    assert len(found) == 6
    return {float(number) for tensor in found.values() for number in tensor.read().flat}


def killed(folder: Path, kind: str, number: int) -> bool:
    """Save in a process that is killed before its change of that number. False if it has fewer."""
    child = os.fork()
    if not child:
        left = number

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in CHANGES or written:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        save(folder, 2.0, kind)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def seen(folder: Path, kind: str) -> Any:
    """What a reader finds, or the sentence of its refusal."""
    try:
        return sorted(values(folder, kind))
    except (ValueError, FileNotFoundError) as error:
        return str(error)


def leftovers(place: Path) -> list[str]:
    """Hidden files and folders."""
    return sorted(path.relative_to(place).as_posix() for path in place.rglob(".*"))


def kill(place: Path, before: str, kind: str, number: int) -> dict[str, Any] | None:
    """What is there after a kill, and after the save that comes next; None where the save ended before."""
    place.mkdir()
    folder = place / "model"
    save(folder, 1.0, before)
    if not killed(folder, kind, number):
        return None
    after = {"before": before, "kind": kind, "number": number, "seen": seen(folder, kind), "left": leftovers(place)}
    with listening() as told:
        save(folder, 3.0, kind)
    again = {"again": seen(folder, kind), "told": told, "left again": leftovers(place)}
    shutil.rmtree(place)
    return after | again


def main(place: Path, every: int) -> None:
    """Print a line for each kill."""
    for before, kind in SAVES:
        number = 0
        while (result := kill(place / f"{before} {kind} {number}", before, kind, number)) is not None:
            print(json.dumps(result))
            number += every


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
