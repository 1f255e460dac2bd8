"""3-D molecules like those of the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdiff import molecules
from fdiff.models import EGNNModel
from fdiff.pipelines import MoleculePipeline
from fdiff.pipelines.molecules import denoiser
from fdiff.pipelines.task import option
from fdiff.schedulers import PolynomialScheduler
from fdiff.training.data import Source
from fdiff.training.molecule_data import MoleculeFile, encoded_molecules
from fdiff.training.molecules import molecule_loss
from fdiff.training.recipe import Recipe, Settings, Task, setting

SHEET_STEPS = 50  # in which the molecules of a sheet are drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoleculeSettings(Settings):
    """Of E(3) equivariant networks."""

    features: int = setting(64, "of each atom and each message", least=1)
    layers: int = setting(4, "of the network", least=1)
    timesteps: int = setting(500, "noise levels, and so the most steps of a drawing", least=2)
    properties: str = option("", "what the network is told of each molecule, such as alpha,gap: names in the data")
    learning_rate: float = option(5e-4)
    weight_decay: float = option(1e-6)


def recipe(settings: MoleculeSettings, source: Source, _: Path) -> Recipe:
    """A network that draws molecules like those of the source.

    Raises ValueError for data that holds no molecules, and properties that it does not have.
    """
    if not isinstance(source, MoleculeFile):
        raise ValueError("the data holds no molecules; give a .xyz, a .sdf, or an .npz of positions and atomic_numbers")
    pipe = _pipeline(settings, source.molecules)
    x, mask = pipe.encode(source.molecules)
    context = pipe.context({name: source.molecules.properties[name] for name in pipe.properties}, mask)
    told = np.zeros((*mask.shape, 0), np.float32) if context is None else np.asarray(context)
    data = encoded_molecules(source.file, np.asarray(x), np.asarray(mask), told, settings.batch_size)

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        known = batch["context"] if pipe.properties else None
        network = denoiser(pipe.egnn, {"egnn": params}, batch["mask"], known)
        return molecule_loss(network, pipe.scheduler, batch["x"], batch["mask"], key)

    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        means = dict(zip(pipe.properties, pipe.means, strict=True))
        steps = min(SHEET_STEPS, settings.timesteps)
        return molecules.draw(pipe(
            params, batch_size=count, key=key, num_inference_steps=steps, properties=means, progress=False
        ).molecules)

    return Recipe(
        pipe.egnn.init_params(jax.random.key(settings.seed)), loss, lambda sample, random: dict(sample),
        lambda arrays: arrays, lambda params: (pipe, {"egnn": params}), draw, source=data,
    )  # fmt: skip


def _pipeline(settings: MoleculeSettings, found: molecules.Molecules) -> MoleculePipeline:
    """A pipeline for molecules of the elements and sizes of these, told of these properties."""
    names = tuple(name for name in settings.properties.split(",") if name)
    for name in names:
        if name not in found.properties:
            raise ValueError(f"properties has {name!r}; the data has {', '.join(found.properties) or 'none'}")
    values = [np.asarray(found.properties[name], np.float64) for name in names]
    means = tuple(float(each.mean()) for each in values)
    elements = tuple(int(number) for number in np.unique(found.numbers) if number)
    return MoleculePipeline(
        EGNNModel(in_features=len(elements) + 1, context_features=len(names), hidden_features=settings.features,
                  num_layers=settings.layers),
        PolynomialScheduler(num_train_timesteps=settings.timesteps), elements,
        tuple(np.bincount(found.sizes).tolist()), properties=names, means=means,
        deviations=tuple(float(np.abs(each - mean).mean()) or 1.0 for each, mean in zip(values, means, strict=True)),
    )  # fmt: skip


molecule = Task(MoleculeSettings, recipe, "3-D molecules like those of a .xyz, .sdf or .npz file.")
