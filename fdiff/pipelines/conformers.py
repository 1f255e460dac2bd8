"""Positions for the atoms of a molecule whose bonds are known: conformers, by GeoDiff."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import sampling
from fdiff.models import MoleculeGNN
from fdiff.models.egnn import centred
from fdiff.models.molecule_gnn import KINDS
from fdiff.molecules.bonded import Graph, edge_kinds, graph
from fdiff.molecules.graphs import Molecules
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.draws import Draws, checked_key, image_keys, normal
from fdiff.pipelines.latent import Begun
from fdiff.pipelines.molecules import After, MoleculeOutput
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, tree_of
from fdiff.pipelines.plans import Planned, make_plan
from fdiff.pipelines.task import Key, Request, Task, needed, option
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count

Bonded = str | Path | Graph


def draw_conformers(
    model: MoleculeGNN, params: Params, scheduler: Scheduler, plan: Plan, atoms: Atoms, key: jax.Array,
    batch_size: int = 1, *, w_global: float = 1.0, global_start_sigma: float = 0.5, remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Draw positions (b, n, 3) in angstrom: a pure function to jit, vmap and differentiate.

        x at first = sigma / alpha noise,  and a step of the plan at a time, its mean taken away after each

    Args:
        model: the module; params: {"model": its parameters}.
        scheduler: whose levels say the noise at t; plan: of a scheduler.
        atoms: from `atoms_of`.
        key: one key, or (b,) keys; conformer i depends on its own key alone.
        batch_size: b.
        w_global, global_start_sigma: see `MoleculeGNN`.
        remat: keep little for a gradient and compute the rest again, see `fdiff.sample`.
    """
    x, draws = from_key(plan, atoms, key, batch_size)
    network = denoiser(model, params, scheduler, atoms, w_global, global_start_sigma)
    return sampling.sample(network, plan, x, draws.key, after=Partial(_centred, atoms.numbers), remat=remat)


class Atoms(NamedTuple):
    """What the network is told: numbers (1, n), atomic numbers; edges (1, n, n), kinds of local edges."""

    numbers: jax.Array
    edges: jax.Array


class Told(NamedTuple):
    """A graph, and what the network is told of it."""

    bonded: Graph
    atoms: Atoms


def atoms_of(model: MoleculeGNN, bonded: Graph) -> Atoms:
    """What the network is told of a graph. Raises ValueError for elements that it has no row for."""
    if bonded.numbers.max() >= KINDS:
        raise ValueError(f"the molecule has an atom of number {bonded.numbers.max()}; the model knows those up to "
                         f"{KINDS - 1}")
    edges = edge_kinds(bonded.bonds, model.edge_order)
    return Atoms(jnp.asarray(bonded.numbers[None], jnp.int32), jnp.asarray(edges[None], jnp.int32))


def from_key(plan: Plan, atoms: Atoms, key: jax.Array, batch_size: int) -> Begun:
    """Noise for the atoms, as strong over the signal as the first row has it, and keys for the steps."""
    first, later = image_keys(checked_key(key, batch_size), batch_size)
    return Begun(plan.sigma[0] / plan.alpha[0] * normal(first, (atoms.numbers.shape[1], 3)), Draws((), later))


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """The network of any graph, told how strong the noise is; equal ones share what was compiled."""

    model: MoleculeGNN
    scheduler: Scheduler

    def __call__(
        self, variables: Any, atoms: Atoms, w_global: jax.Array, start: jax.Array, x: jax.Array, t: jax.Array
    ) -> jax.Array:
        """What it says of x."""
        level = self.scheduler.level(t)
        told = (jnp.broadcast_to(each, (len(x), *each.shape[1:])) for each in atoms)
        apply: Any = self.model.apply
        out: jax.Array = apply(variables, x, t, *told, level.sigma / level.alpha, w_global, start)
        return out


def denoiser(
    model: MoleculeGNN, params: Params, scheduler: Scheduler, atoms: Atoms, w_global: float, global_start_sigma: float
) -> sampling.Network:
    """The network (x, t) -> noise of this graph."""
    variables = {"params": tree_of(params, "model")}
    return Partial(Denoiser(model, scheduler), variables, atoms, jnp.float32(w_global), jnp.float32(global_start_sigma))


def _centred(numbers: jax.Array, x: jax.Array, i: Any) -> jax.Array:
    return centred(x, jnp.broadcast_to(numbers > 0, x.shape[:2]))


@dataclasses.dataclass(frozen=True)
class Conformers(Request):
    """Conformers of one molecule."""

    molecule: Bonded = needed(
        "whose conformers are wanted: a SMILES such as CCO, an .sdf file of one molecule, or a `fdiff.molecules.Graph`"
    )
    _: KW_ONLY
    batch_size: int = option(1, "how many conformers", flag="num-images")
    num_inference_steps: int | None = option(
        None, "steps, as many as the scheduler has timesteps if not given", flag="steps"
    )
    w_global: float = option(1.0, "how much atoms count that no local edge joins")
    global_start_sigma: float = option(0.5, "the noise below which atoms count that no local edge joins")


def read(model: MoleculeGNN, molecule: Bonded) -> Told:
    """Stage: the graph, for errors see `fdiff.molecules.graph`."""
    bonded = graph(molecule)
    return Told(bonded, atoms_of(model, bonded))


def planned(scheduler: Scheduler, num_inference_steps: int | None, plan: Plan | None) -> Planned:
    """Stage: the table, of all timesteps of the scheduler if no number is given."""
    all_of_them = getattr(scheduler, "num_train_timesteps", 50)
    return Planned(make_plan(scheduler, all_of_them if num_inference_steps is None else num_inference_steps, plan))


def from_noise(plan: Plan, atoms: Atoms, key: Key, torch_seed: Any, batch_size: int) -> Begun:
    """Stage: begin with noise. Raises ValueError for no key."""
    if key is None or torch_seed is not None:
        raise ValueError("conformers are drawn from a JAX key; pass key=jax.random.key(0), and no torch_seed")
    check_count("batch_size", batch_size)
    return from_key(plan, atoms, key, batch_size)


def told(
    model: MoleculeGNN, params: Params, scheduler: Scheduler, atoms: Atoms, w_global: float, global_start_sigma: float
) -> Network:
    """Stage: the network, told of the graph."""
    return Network(denoiser(model, params, scheduler, atoms, w_global, global_start_sigma))


def free(atoms: Atoms) -> After:
    """Stage: x stays free of its mean."""
    return After(Partial(_centred, atoms.numbers))


def conformers(bonded: Graph) -> Callable[[jax.Array], MoleculeOutput]:
    """Finish: the positions with the atoms and bonds of the graph."""

    def finish(x: jax.Array) -> MoleculeOutput:
        numbers, charges, orders = (
            np.repeat(each[None], len(x), 0) for each in (bonded.numbers, bonded.charges, bonded.orders)
        )
        return MoleculeOutput(Molecules(np.asarray(x, np.float64), numbers, charges, bonds=orders))

    return finish


drawing_conformers = Task(
    Conformers, (read, planned, from_noise, told, free), conformers, "Draw conformers of a molecule."
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ConformerPipeline(DiffusionPipeline):
    """Conformers of a molecule whose bonds are known, GeoDiff (Xu et al. 2022).

    As in diffusers' example, the scheduler steps through the positions that the network sees, from noise of the
    deviation sigma / alpha of the first timestep on. AnnealedLangevinScheduler is what the paper's own code runs.
    """

    model: MoleculeGNN
    scheduler: Scheduler

    makes: ClassVar[str] = "molecules"

    __call__, steps = drawing_conformers.methods()
