"""Checkpoints of a training: whole or not there, written while it goes on, the last few of them kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


class Checkpoints:
    """The checkpoints of a folder, kept by Orbax.

    A state is kept as a list of its leaves, since Orbax joins the names on the way to a leaf by dots and so takes
    "a.b" and b within a for one; a checkpoint says what each leaf is called, so that one of another network is told.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        import orbax.checkpoint as ocp

        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Any, facts: Mapping[str, Any]) -> None:
        """Begin to write the state after that step; facts are JSON."""
        import orbax.checkpoint as ocp

        named = {"leaves": _leaves(state), **facts}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.leaves(state)), facts=ocp.args.JsonSave(named)
        )
        self._manager.save(step, args=items)

    def latest(self) -> int | None:
        """The step of the last whole one, None if there is none."""
        found: int | None = self._manager.latest_step()
        return found

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """(state, facts) of the last whole checkpoint, in arrays laid out like those of `like`.

        Raises ValueError where there is none, or it is of another network or optimizer.
        """
        import orbax.checkpoint as ocp

        step = self.latest()
        if step is None:
            raise ValueError(f"{self.folder} holds no whole checkpoint; leave --resume out to begin anew")
        facts = self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
        was, now = facts.pop("leaves"), _leaves(like)
        if was != now:
            odd = next(name for name in {**was, **now} if was.get(name) != now.get(name))
            raise ValueError(f"{self.folder} is of another network or optimizer: {odd} is {was.get(odd, 'absent')} "
                             f"there and {now.get(odd, 'absent')} here; resume with the same options")
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), jax.tree.leaves(like)
        )
        items = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))
        return jax.tree.unflatten(jax.tree.structure(like), items["state"]), facts

    def close(self) -> None:
        """Wait until what was begun is written, and let go of the folder."""
        self._manager.close()


def _leaves(state: Any) -> dict[str, str]:
    """What each leaf is: its way, and its dtype and shape."""
    found = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in found}
