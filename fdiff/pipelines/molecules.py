"""Molecules from noise, by E(3) equivariant diffusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import keys, sampling
from fdiff.models import EGNNModel
from fdiff.models.egnn import centred
from fdiff.molecules.graphs import SYMBOLS, Molecules
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.draws import Draws, checked_key, image_keys, normal
from fdiff.pipelines.latent import Begun
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, tree_of
from fdiff.pipelines.plans import Planned, make_plan
from fdiff.pipelines.task import Key, Request, Task, option
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count

Energy = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Atoms = int | Sequence[int] | None
Properties = Mapping[str, Any] | None
Known = tuple[jax.Array, jax.Array]  # a scaffold as the network has it, (1, n, d), and (n,) where its atoms are


class MoleculeOutput(NamedTuple):
    """What a pipeline of molecules returns."""

    molecules: Molecules


def draw_molecules(
    egnn: EGNNModel, params: Params, plan: Plan, mask: jax.Array, key: jax.Array, context: jax.Array | None = None,
    *, remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Draw positions and features (b, n, 3 + features) of atoms: a pure function to jit, vmap and differentiate.

    Args:
        egnn: the module; params: {"egnn": its parameters}.
        plan: from a scheduler.
        mask: (b, n), True where there is an atom.
        key: one key, or (b,) keys; molecule i depends on its own key alone.
        context: (b, n, context_features), see `EGNNModel`.
        remat: keep little for a gradient and compute the rest again, see `fdiff.sample`.
    """
    x, draws = from_key(egnn, plan, mask, key)
    network, after = Partial(settled, denoiser(egnn, params, mask, context)), Partial(projected, mask)
    return sampling.sample(network, plan, x, draws.key, after=after, remat=remat)


def from_key(egnn: EGNNModel, plan: Plan, mask: jax.Array, key: jax.Array) -> Begun:
    """Noise for the atoms, its positions free of their mean, and keys for the steps."""
    first, later = image_keys(checked_key(key, len(mask)), len(mask))
    x = normal(first, (mask.shape[1], 3 + egnn.in_features))
    return Begun(plan.start * projected(mask, x), Draws((), later))


def denoiser(egnn: EGNNModel, params: Params, mask: jax.Array, context: jax.Array | None = None) -> sampling.Network:
    """The network (x, t) -> out of these atoms."""
    return Partial(Denoiser(egnn), {"params": tree_of(params, "egnn")}, mask, context)


def settled(network: sampling.Network, x: jax.Array, t: jax.Array) -> jax.Array:
    """The same, but for the features at t = 0, whose noise is said to be 0: atoms are what they are most in x there.

    EDM's networks are not trained to know it: log p(x0 | x_0) of elements looks at x alone (Hoogeboom et al. 2022, B).
    """
    out = network(x, t)
    known = jnp.arange(out.shape[-1]) < 3
    return jnp.where(known | jnp.reshape(t > 0, (-1, 1, 1)), out, 0)


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """The network of any atoms; equal ones, as `functools.partial`s are not, share what was compiled."""

    egnn: EGNNModel

    def __call__(
        self, variables: Any, mask: jax.Array, context: jax.Array | None, x: jax.Array, t: jax.Array
    ) -> jax.Array:
        """What it says of x."""
        apply: Any = self.egnn.apply
        out: jax.Array = apply(variables, x, t, mask, context)
        return out


def projected(mask: jax.Array, x: jax.Array, i: Any = None) -> jax.Array:
    """x with its positions free of their mean and nothing where no atom is; so what noise was added is such, too."""
    return jnp.concatenate([centred(x[..., :3], mask), x[..., 3:] * mask[..., None]], -1)


def _with_scaffold(
    mask: jax.Array, plan: Plan, known: Known, key: jax.Array, x: jax.Array, i: jax.Array
) -> jax.Array:
    """The same, the scaffold's atoms at the noise level that row i reached, after each row with a network call.

        x = alpha_to known + sigma_to noise,  its positions shifted to the middle that the scaffold has in x

    Only how they lie to each other is known, so the middle is left to the network, and that of all atoms stays at 0
    (cf. Lugmayr et al. 2022, eq. 8).
    """
    x = projected(mask, x, i)
    atoms, there = known
    alpha, sigma = jnp.append(plan.alpha[1:], 1.0)[i], jnp.append(plan.sigma[1:], 0.0)[i]
    noisy = alpha * atoms + sigma * sampling.draw(key, i, x.shape)
    scaffold = jnp.broadcast_to(there, mask.shape)
    middle = (x[..., :3] * there[:, None]).sum(-2, keepdims=True) / there.sum()
    kept = jnp.concatenate([centred(noisy[..., :3], scaffold) + middle, noisy[..., 3:]], -1)
    return jnp.where((plan.c_in[i] != 0) & there[:, None], kept, x)


@dataclasses.dataclass(frozen=True)
class Guided:
    """eps + scale sigma alpha^2 grad_x energy(x0(x)), the gradient going through the network.

    x0 so falls by about scale sigma^2 grad energy, sigma^2 being its variance given x where that of the data is 1: an
    energy must not throw it far where x says little of it.
    """

    scheduler: Scheduler
    scales: tuple[float, float, float]
    elements: int

    def __call__(
        self, network: sampling.Network, energy: Energy, scale: jax.Array, mask: jax.Array, x: jax.Array, t: jax.Array
    ) -> jax.Array:
        """What the network says of x, led down the slope."""
        level, last = self.scheduler.level(t), 3 + self.elements

        def told(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = network(x, t)
            x0 = level.x0_of[0] * x + level.x0_of[1] * out
            return energy(x0[..., :3] * self.scales[0], x0[..., 3:last] * self.scales[1], mask).sum(), out

        slope, out = jax.grad(told, has_aux=True)(x)
        return out + scale * level.sigma * level.alpha**2 * projected(mask, slope)


@dataclasses.dataclass(frozen=True)
class Molecular(Request):
    """Molecules from noise alone, or around what is known of them."""

    _: KW_ONLY
    batch_size: int = option(1, "how many molecules", flag="num-images")
    num_atoms: Atoms = option(
        None, "of each molecule, a number or one for each; as often as in the training data if not given"
    )
    scaffold: Molecules | None = option(
        None, "a molecule, as `fdiff.molecules.read` gives it, whose atoms stay where they are while others are drawn"
    )
    resamplings: int = option(1, "how often each step is made, so that a scaffold and what is drawn fit together")
    properties: Properties = option(
        None, "of the molecules, for models that were trained with such: by their names a number, or one for each"
    )
    energy: Energy | None = option(
        None, "(positions (b, n, 3) in angstrom, elements (b, n, k), nearly 0 and 1, mask (b, n)) -> (b,), any "
        "differentiable function, whose low values are sought"
    )
    energy_scale: float = option(1.0, "how strongly", flag=None)
    num_inference_steps: int | None = option(
        None, "steps, at most as many as the model was trained with, and that many if not given", flag="steps"
    )


class Sized(NamedTuple):
    """Where there are atoms, and the scaffold as the network has it."""

    mask: jax.Array
    known: Known | None


class After(NamedTuple):
    """What becomes of x after each row."""

    after: Partial


def sized(pipe: MoleculePipeline, key: Key, torch_seed: Any, batch_size: int, num_atoms: Any, scaffold: Any) -> Sized:
    """Stage: how many atoms each has. Raises ValueError for no key, and for more or fewer atoms than there can be."""
    if key is None or torch_seed is not None:
        raise ValueError("molecules are drawn from a JAX key; pass key=jax.random.key(0), and no torch_seed")
    check_count("batch_size", batch_size)
    most, known, least = len(pipe.sizes) - 1, None, 1
    if scaffold is not None:
        if len(scaffold.numbers) != 1:
            raise ValueError(f"the scaffold is {len(scaffold.numbers)} molecules; give one, such as "
                             "scaffold.take(slice(1))")
        x, there = pipe.encode(scaffold)
        known, least = (x, there[0]), int(there.sum())
    if num_atoms is None:
        counts = np.asarray(pipe.sizes, np.float64) * (np.arange(most + 1) >= least)
        if not counts.sum():
            counts = np.arange(most + 1) == max(least, 1)
        first, _ = image_keys(checked_key(key, batch_size), batch_size)
        logits = jnp.log(jnp.asarray(counts / counts.sum(), jnp.float32))
        drawn = jax.vmap(lambda one: jax.random.categorical(keys.fold_in(one, 1), logits))(first)
        sizes = np.asarray(drawn)
    else:
        sizes = np.asarray(num_atoms)
        sizes = np.broadcast_to(sizes, (batch_size,)) if sizes.ndim == 0 else sizes
        if sizes.shape != (batch_size,) or not np.issubdtype(sizes.dtype, np.integer):
            raise ValueError(f"num_atoms is {num_atoms!r:.60}; give a whole number, or one for each of {batch_size}")
        if sizes.min() < 1 or sizes.max() > most:
            odd = sizes.min() if sizes.min() < 1 else sizes.max()
            raise ValueError(f"num_atoms is {odd}; the model knows molecules of 1 to {most} atoms")
        if sizes.min() < least:
            raise ValueError(f"num_atoms is {sizes.min()} and the scaffold has {least}; ask for at least as many")
    return Sized(jnp.arange(most) < sizes[:, None], known)


def planned(scheduler: Scheduler, num_inference_steps: int | None, plan: Plan | None, resamplings: int) -> Planned:
    """Stage: the table, of all steps of the training if no number is given."""
    steps = getattr(scheduler, "num_train_timesteps", 50) if num_inference_steps is None else num_inference_steps
    if plan is None and resamplings != 1:
        options: Any = scheduler
        plan = options.plan(steps, resamplings=resamplings)
    return Planned(make_plan(scheduler, steps, plan))


def from_noise(pipe: MoleculePipeline, plan: Plan, mask: jax.Array, key: jax.Array) -> Begun:
    """Stage: begin with noise."""
    return from_key(pipe.egnn, plan, mask, key)


def kept(plan: Plan, mask: jax.Array, known: Known | None, draws: Draws) -> After:
    """Stage: x stays free of its mean, and a scaffold what it is."""
    return After(Partial(projected, mask) if known is None else Partial(_with_scaffold, mask, plan, known, draws.key))


def told(
    pipe: MoleculePipeline, params: Params, mask: jax.Array, properties: Properties,
    energy: Energy | None, energy_scale: float,
) -> Network:  # fmt: skip
    """Stage: the network, told of properties, and guided down a slope where asked.

    Raises ValueError for properties that the model was not trained with, and for lack of those that it was.
    """
    network = Partial(settled, denoiser(pipe.egnn, params, mask, pipe.context(properties or {}, mask)))
    if energy is None:
        return Network(network)
    guided = Guided(pipe.scheduler, pipe.scales, len(pipe.elements))
    return Network(Partial(guided, network, sampling.as_partial(energy), jnp.float32(energy_scale), mask))


def molecules(pipe: MoleculePipeline, mask: jax.Array, scaffold: Any) -> Callable[[jax.Array], MoleculeOutput]:
    """Finish: what the sampler carries as molecules, a scaffold where it was given."""
    return lambda x: MoleculeOutput(pipe.decode_molecules(x, mask, scaffold))


drawing_molecules = Task(
    Molecular, (sized, planned, from_noise, kept, told), molecules, "Draw molecules."
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class MoleculePipeline(DiffusionPipeline):
    """3-D molecules by E(3) equivariant diffusion, EDM (Hoogeboom et al. 2022).

    elements: atomic numbers, in the order of the features. sizes: how often there are 0, 1, 2, ... atoms, up to the
    most that the model knows. scales: what positions, elements and atomic numbers were divided by. properties: what the
    network is told of a molecule, with their means and mean absolute deviations.
    """

    egnn: EGNNModel
    scheduler: Scheduler
    elements: tuple[int, ...] = (1, 6, 7, 8, 9)
    sizes: tuple[int, ...] = ()
    scales: tuple[float, float, float] = (1.0, 4.0, 10.0)
    properties: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()

    makes: ClassVar[str] = "molecules"

    __call__, steps = drawing_molecules.methods()

    def encode(self, molecules: Molecules) -> tuple[jax.Array, jax.Array]:
        """Positions free of their mean and features (b, n, 3 + features) of molecules, and their mask (b, n).

        n is the most atoms that the model knows. Raises ValueError for more of them, and for other elements.
        """
        numbers, positions = np.asarray(molecules.numbers), np.asarray(molecules.positions)
        most, largest = len(self.sizes) - 1, int((numbers > 0).sum(1).max())
        if largest > most:
            raise ValueError(f"a molecule has {largest} atoms; the model knows those of up to {most}")
        odd = set(numbers[numbers > 0].tolist()) - set(self.elements)
        if odd:
            raise ValueError(f"the model knows no {SYMBOLS[min(odd)]}; its elements are "
                             f"{', '.join(SYMBOLS[number] for number in self.elements)}")
        order = np.argsort(numbers == 0, axis=1, kind="stable")[:, :most]  # atoms first
        numbers = _to_width(np.take_along_axis(numbers, order, 1), most)
        positions = _to_width(np.take_along_axis(positions, order[..., None], 1), most)
        one_hot = (numbers[..., None] == np.asarray(self.elements)) / self.scales[1]
        features = [one_hot, numbers[..., None] / self.scales[2]][: 1 + (self.egnn.in_features > len(self.elements))]
        mask = jnp.asarray(numbers > 0)
        x = jnp.asarray(np.concatenate([positions / self.scales[0], *features], -1), jnp.float32)
        return projected(mask, x), mask

    def decode_molecules(self, x: jax.Array, mask: jax.Array, scaffold: Molecules | None = None) -> Molecules:
        """Molecules of x (b, n, 3 + features): each atom of the element that it is most, a scaffold where it was."""
        drawn, there = np.asarray(x, np.float64), np.asarray(mask)
        kinds = np.asarray(self.elements)[drawn[..., 3 : 3 + len(self.elements)].argmax(-1)]
        positions = drawn[..., :3] * self.scales[0]
        if scaffold is not None:
            atoms = np.asarray(scaffold.positions)[np.asarray(scaffold.numbers) > 0]
            positions = positions + (atoms.mean(0) - positions[:, : len(atoms)].mean(1))[:, None]
        return Molecules(np.where(there[..., None], positions, 0), np.where(there, kinds, 0))

    def context(self, properties: Mapping[str, Any], mask: jax.Array) -> jax.Array | None:
        """(b, n, properties) what the network is told: each less its mean, over its mean absolute deviation."""
        if set(properties) != set(self.properties):
            raise ValueError(f"properties is {', '.join(properties) or 'none'}, and the model was trained with "
                             f"{', '.join(self.properties) or 'none'}; give a number for each of those")
        if not self.properties:
            return None
        shape = mask.shape[:1]
        columns = [
            (jnp.broadcast_to(jnp.asarray(properties[name], jnp.float32), shape) - mean) / deviation
            for name, mean, deviation in zip(self.properties, self.means, self.deviations, strict=True)
        ]
        return jnp.stack(columns, -1)[:, None] * mask[..., None]


def _to_width(array: np.ndarray, width: int) -> np.ndarray:
    return np.pad(array, [(0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])
