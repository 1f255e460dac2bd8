"""Low-rank changes (LoRA, Hu et al. 2022) of the layers of a text-to-image model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from convert import layout
from convert.lora import Adapter
from convert.methods import Factors
from fdiff import keys
from fdiff.adapters import lora as adapters
from fdiff.models.edits import put
from fdiff.pipelines.task import option
from fdiff.training.data import Source
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.tasks import latents
from fdiff.training.tasks.latents import Base, TextSettings
from fdiff.training.tasks.material import ENCODED, Material, drawing, material


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraSettings(TextSettings):
    """Of low-rank changes."""

    learning_rate: float = option(1e-4)
    rank: int = setting(4, "of the change of each layer", least=1)
    alpha: float | None = option(None, "a change counts alpha / rank; rank if not given")
    layers: str = option(
        "to_q,to_k,to_v,to_out.0", "of the U-Net that are changed: ends of their names, with commas; all: every one"
    )
    text_layers: str = option(
        "", "the same of the text encoders, such as q_proj,k_proj,v_proj,out_proj; none if not given"
    )

    @property
    def scale(self) -> float:
        """By how much a change counts, alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def recipe(settings: LoraSettings, source: Source, folder: Path) -> Recipe:
    """Changes of a U-Net, and of the text encoders if asked, saved alone and in the model."""
    base = latents.load(settings.model)
    trees = changes(base, settings)
    found = material(base, settings, source, folder / ENCODED, trains_text=bool(settings.text_layers))
    return low_rank(base, settings, found, trees)


def changes(base: Base, settings: LoraSettings) -> dict[str, Any]:
    """What is trained, as it begins: a collection "lora" for each model that is changed."""
    key = jax.random.key(settings.seed)
    trees = {"unet": begin(base.params["unet"], "unet", settings.layers, settings.rank, key)}
    if settings.text_layers:
        for i, name in enumerate(base.encoders, 1):
            trees[name] = begin(base.params[name], name, settings.text_layers, settings.rank, keys.fold_in(key, i))
    return trees


def low_rank(base: Base, settings: LoraSettings, found: Material, trees: dict[str, Any]) -> Recipe:
    """The recipe that trains these changes of the base on that material, and nothing else.

    They are added while the network runs, x W + x down up alpha / rank, so that no gradient of a W is computed.
    """
    def loss(needs: Any, params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return latents.loss(base.pipe, settings, {**needs, "lora": scaled(params, settings.scale)}, batch, key)

    def adapter(params: Any) -> Adapter:
        return factors(params, settings.scale * settings.rank)

    needs = latents.frozen(settings, found.needs | {"unet": base.params["unet"]})
    return Recipe(
        trees, Partial(loss, needs), found.prepare, found.collate,
        lambda params: (base.pipe, adapters.merge(base.params, adapter(params))[0]), drawing(found),
        found.source, lambda folder, params: adapters.save(folder, adapter(params)), shapes=found.shapes,
    )  # fmt: skip


def begin(tree: Any, model: str, names: str, rank: int, key: jax.Array) -> dict[str, Any]:
    """A collection "lora" for the layers whose names end so: down from N(0, 1 / rank^2), up zero, so it adds nothing.

    Raises ValueError for a name that is the end of no layer's.
    """
    known = adapters.layers(tree)
    chosen: set[str] = set()
    for ending in [name.strip() for name in names.split(",") if name.strip()]:
        matching = {layer for layer in known if ending == "all" or f".{layer}".endswith(f".{ending}")}
        if not matching:
            ends = sorted({layer.rpartition(".")[2] for layer in known} - {str(i) for i in range(100)})
            raise ValueError(f"the {model} has no layer whose name ends in {ending!r}; choose such as "
                             f"{', '.join(ends[:8])}")
        chosen |= matching
    found: dict[str, Any] = {}
    for i, layer in enumerate(sorted(chosen)):
        where, kernel = known[layer]
        down = keys.normal(keys.fold_in(key, i), (*kernel.shape[:-1], rank)) / rank
        up = jnp.zeros((*(1,) * (kernel.ndim - 2), rank, kernel.shape[-1]))
        put(found, where[:-1], {"down": down, "up": up})
    return found


def scaled(params: Any, scale: float) -> Any:
    """The collections with `up` multiplied by alpha / rank."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: scale * leaf if path[-1].key == "up" else leaf, params)


def factors(params: Any, alpha: float) -> Adapter:
    """The collections as an adapter, in torch's layout."""
    found: Adapter = {}
    for model, tree in params.items():
        for layer, (where, down) in adapters.parameters(tree).items():
            if where[-1] != "down":
                continue
            up = tree
            for name in (*where[:-1], "up"):
                up = up[name]
            both = [layout.to_torch(("kernel",), np.asarray(leaf, np.float32)) for leaf in (down, up)]
            found.setdefault(model, {})[layer.removesuffix(".down")] = Factors(both[0], both[1], alpha)
    return found


lora = Task(LoraSettings, recipe, "Small changes of a text-to-image model, on pictures with captions.")
