"""How arrays lie on devices: tables of paths, over a mesh of one device or of those of many machines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"  # of the mesh, over which samples are shared out
SMALL = 2**10  # numbers: what has no more is kept whole everywhere

Spec = PartitionSpec | Callable[[tuple[int, ...], Mesh], PartitionSpec]
Table = Sequence[tuple[str, Spec]]


def largest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The longest axis that the devices divide over them all; nothing where there is none, or little to share."""
    count = mesh.shape[AXIS]
    axes = [i for i, length in enumerate(shape) if length % count == 0]
    if not axes or np.prod(shape) <= SMALL:
        return PartitionSpec()
    chosen = max(axes, key=lambda i: shape[i])
    return PartitionSpec(*(AXIS if i == chosen else None for i in range(chosen + 1)))


# What devices share besides the batch: nothing, or all parameters, averages and moments (Rajbhandari et al. 2020).
TABLES: dict[str, Table] = {"data": (("", PartitionSpec()),), "full": (("", largest),)}


def join(place: str) -> None:
    """Become one of the processes of a training, before JAX is asked for anything.

    place: "auto" for what JAX finds in SLURM, Kubernetes, MPI and on TPUs; or the address of the first process, the
        number of this one and how many there are, as in 10.0.0.1:1234,0/2; or nothing, for a process by itself.

    Raises ValueError for another text, or where none is found or it is too late.
    """
    if not place or jax.distributed.is_initialized():
        return
    given: dict[str, Any] = {}
    if place != "auto":
        found = re.fullmatch(r"(\S+:\d+),(\d+)/(\d+)", place)
        if not found:
            raise ValueError(f"distributed is {place!r}; it can be auto, or the address of the first process, the "
                             "number of this one and how many there are, as 10.0.0.1:1234,0/2")
        given = {"coordinator_address": found[1], "process_id": int(found[2]), "num_processes": int(found[3])}
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"distributed is {place!r}, and JAX cannot join such processes: {error}") from None


def mesh(devices: int = 0) -> Mesh:
    """The mesh of the first so many devices, or of all, with one axis, "data".

    Raises ValueError for more devices than there are, or some of several processes' only.
    """
    there = jax.devices()
    count = devices or len(there)
    if count > len(there) or (count < len(there) and jax.process_count() > 1):
        raise ValueError(f"devices is {devices} and there are {len(there)}; choose 0 for all of them")
    return Mesh(np.array(there[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def shardings(tree: Any, table: Table, mesh: Mesh) -> Any:
    """The sharding of each leaf: that of the first pattern found in its path, whose parts are joined by slashes.

        table = [("attn.*/kernel$", PartitionSpec(None, "data")), ("", PartitionSpec())]

    tree: of arrays or shapes. Raises ValueError for a path that no pattern is found in, or a shape that the devices do
    not divide as the table says.
    """
    def one(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for pattern, spec in table if re.search(pattern, name)), None)
        if spec is None:
            raise ValueError(f"no pattern of the table is found in {name}; end the table with one for all, ''")
        sharding = NamedSharding(mesh, spec if isinstance(spec, PartitionSpec) else spec(tuple(leaf.shape), mesh))
        try:
            sharding.shard_shape(tuple(leaf.shape))
        except ValueError as error:
            raise ValueError(f"{name} of shape {tuple(leaf.shape)} does not divide over {mesh.size} devices as "
                             f"{sharding.spec} ({error}); correct the table") from None
        return sharding

    return jax.tree_util.tree_map_with_path(one, tree)


def place(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has, the same in each, laid on the devices."""
    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, shardings)


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """A batch of which every process has its own part, (b / processes, ...), shared out among the devices."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def gathered(tree: Any, mesh: Mesh) -> Any:
    """Within a program: every leaf whole on every device, as a network needs it; its gradient is shared out again."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def to_host(tree: Any, mesh: Mesh) -> Any:
    """All of every leaf as NumPy arrays, in every process; all processes must ask for it."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    whole = tree if jax.process_count() == 1 else jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)
    return jax.device_get(whole)
