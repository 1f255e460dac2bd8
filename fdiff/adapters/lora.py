"""LoRA (Hu et al. 2022), LoHa, LoKr and differences: changes of a model's weights, from the files that people share.

    style = lora.load("pixel-art-xl.safetensors", params)
    merged, originals = lora.merge(params, (style, 0.8))            # several: (one, 0.8), (another, 0.5)
    params = lora.unmerge(merged, originals)                        # to the last bit

    edits = lora.collection(params, (style, 0.8))                   # or while the network runs, nothing merged
    eps = unet.apply({"params": params["unet"], "lora": edits["unet"]}, latents, t, tokens)

`params` holds the trees of a pipeline's models under their names: {"unet": ..., "text_encoder": ...}. A scale
is a number, which may be traced, or one for each part of the model: {"unet": 0.8, "unet.mid_block": 0.5,
"text_encoder": 0}; of the names that a layer's path begins with, the longest counts, and a layer without any has
scale 1. An adapter alone, without a scale, has scale 1.
"""

import functools
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convert import layout
from convert import lora as convert_lora
from convert.lora import Adapter
from convert.methods import Change as Added
from convert.methods import Factors, Hadamard, Kronecker, Part
from convert.quantized import Quantized, Streamed, is_quantized
from fdiff import hub
from fdiff.adapters import files
from fdiff.stacked import check_unstacked, holds_stacked, unstack_blocks

Params = Mapping[str, Any]
Number = float | jax.Array
Scale = Number | Mapping[str, Number]
Scaled = Adapter | tuple[Adapter, Scale]


class Change(NamedTuple):
    """A parameter before a merge and after it."""

    before: jax.Array
    after: jax.Array


Originals = dict[str, dict[str, Change]]  # component -> parameter -> what it was and became

NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "pytorch_lora_weights.bin")


def load(
    source: str | Path,
    params: Params,
    *,
    weight_name: str | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Adapter:
    """Read an adapter of any of the dialects in `convert.lora` for a model with these parameters, or their shapes.

    `source` is a file, a folder or a Hub id, `weight_name` the file in it where it has a name of its own; for
    the other arguments see `fdiff.hub`. Raises ValueError for a tensor that fits no layer, which is how one
    for another base model is told, and for methods that are not read, each by its name.
    """
    place = hub.Source(source, subfolder, revision, cache_dir, token, local_files_only, force_download)
    shapes = {
        component: {name: layout.torch_shape(where, leaf.shape) for name, (where, leaf) in parameters(tree).items()}
        for component, tree in params.items()
    }
    return convert_lora.read(files.find(place, weight_name, NAMES), shapes)


def save(folder: str | os.PathLike[str], adapter: Adapter) -> None:
    """Write pytorch_lora_weights.safetensors in the dialect of peft, which `load` and diffusers read.

    Raises ValueError for what is no LoRA, for a DoRA that normalizes inputs or is of some layers only, and OSError.
    """
    with hub.staged(folder) as temporary:
        convert_lora.write(temporary / NAMES[0], adapter)


def merge(params: Params, *adapters: Scaled) -> tuple[dict[str, Any], Originals]:
    """(params with the adapters in their weights, what `unmerge` takes them back with).

    W + sum of scale * change, which for a LoRA is alpha / rank * up @ down (`convert.methods` has the others),
    computed in float32; what is not changed is shared. Of quantised weights those that change become int8, which is off
    by 1 / 254 of the largest number of a row at most: `collection` leaves them as they are. `params` stays as it is.
    It can be traced, the scales too. Raises ValueError for a scale whose name no layer has or that is no number, and
    for an adapter that does not fit.
    """
    merged, originals = dict(params), Originals()
    for component, changes in _by_parameter(adapters).items():
        check_unstacked(params.get(component), "merging an adapter")
        known = parameters(params.get(component, {}))
        for name, added in changes.items():
            where, leaf = _find(known, component, name, added)
            change = Change(leaf, _add(leaf, added, where[-1] == "kernel"))
            originals.setdefault(component, {})[name] = change
            merged[component] = _replaced(merged[component], where, change.after)
    return merged, originals


def unmerge(params: Params, originals: Originals) -> dict[str, Any]:
    """The parameters with the kernels that `merge` replaced, equal to the last bit to those before it.

    Raises ValueError where a kernel is not what that merge made, as after another merge, which is to be taken
    back first.
    """
    restored = dict(params)
    for component, changes in originals.items():
        known = parameters(params.get(component, {}))
        for name, (before, after) in changes.items():
            where, leaf = known.get(name, ((), None))
            if leaf is not after and not _equal(leaf, after):
                raise ValueError(
                    f"{component}.{name} is not what this merge made of it; take back what was merged since then, "
                    "the last first, and pass the parameters that `merge` gave."
                )
            restored[component] = _replaced(restored[component], where, before)
    return restored


def _equal(leaf: Any, after: Any) -> bool:
    """Whether a parameter, or None, is a copy of the other."""
    if is_quantized(leaf) or is_quantized(after):
        both, trees = zip(*(jax.tree.flatten(one) for one in (leaf, after)), strict=True)
        return trees[0] == trees[1] and all(_equal(*pair) for pair in zip(*both, strict=True))
    if leaf is None or leaf.dtype != after.dtype or after.is_deleted():
        return False
    return bool(jnp.array_equal(leaf, after, equal_nan=True))


def collection(params: Params, *adapters: Scaled) -> dict[str, Any]:
    """For each model, the collection "lora" that makes its layers add the adapters while it runs.

    A pytree: pass it to the compiled program as an argument, and another scale compiles nothing. Several LoRAs
    become one of the sum of their ranks; what is of another method, or of a bias or a norm, becomes one difference,
    as large as the parameter. Raises ValueError as `merge` does, and for DoRA.
    """
    edits: dict[str, Any] = {}
    for component, changes in _by_parameter(adapters).items():
        tree = params.get(component, {})
        known = parameters(jax.eval_shape(unstack_blocks, tree) if holds_stacked(tree) else tree)
        for name, added in changes.items():
            where, leaf = _find(known, component, name, added)
            if any(one.dora_scale is not None for one, _ in added):
                raise ValueError(f"{component}.{name} has a DoRA, which cannot run unmerged; merge it.")
            low = [(one, scale) for one, scale in added if isinstance(one, Factors) and where[-1] == "kernel"]
            whole = [(one, scale) for one, scale in added if all(one is not other for other, _ in low)]
            parts: dict[str, Any] = _low_rank(where, low) if low else {}
            if whole:
                zero = jnp.zeros(leaf.shape, jnp.float32)
                parts[where[-1]] = _add(zero, whole, where[-1] == "kernel").astype(leaf.dtype)
            for part, array in parts.items():
                edits[component] = _replaced(edits.get(component, {}), (*where[:-1], part), array)
    return edits


def _low_rank(where: layout.Path, added: list[tuple[Factors, Number]]) -> dict[str, Any]:
    """The sum of LoRAs as one, in the layout of the kernel."""
    down = np.concatenate([np.asarray(one.down, np.float32) for one, _ in added])
    ups = [one.up * jnp.float32(scale * one.alpha / one.rank) for one, scale in added]
    return {"down": layout.from_torch(where, down), "up": jnp.moveaxis(jnp.concatenate(ups, axis=1), (0, 1), (-1, -2))}


def parameters(tree: Params) -> dict[str, tuple[layout.Path, Any]]:
    """Every parameter of a model, where it is, and itself, under its torch name without ".weight"."""
    found = {}
    models = tree if isinstance(tree, Mapping) else {}  # no file says which of a list of ControlNets it is for
    for entries, leaf in jax.tree_util.tree_flatten_with_path(models, is_leaf=is_quantized)[0]:
        path = tuple(str(entry.key) for entry in entries)
        found[layout.torch_name(path).removesuffix(".weight")] = (path, leaf)
    return found


def layers(tree: Params) -> dict[str, tuple[layout.Path, Any]]:
    """Every layer of a model that has a kernel, under its torch name: where the kernel is, and the kernel."""
    return {name: (path, leaf) for name, (path, leaf) in parameters(tree).items() if path[-1] == "kernel"}


def _by_parameter(adapters: tuple[Scaled, ...]) -> dict[str, dict[str, list[tuple[Added, Number]]]]:
    """component -> parameter -> what each adapter that changes it adds, and how strongly."""
    found: dict[str, dict[str, list[tuple[Added, Number]]]] = {}
    for given in adapters:
        adapter, scale = given if isinstance(given, tuple) and len(given) == 2 else (given, 1.0)
        if not isinstance(adapter, Mapping):
            kind = type(adapter).__name__
            raise ValueError(f"a {kind} is no adapter; pass what `load` gives, or a pair of that and its scale.")
        names = [f"{component}.{layer}" for component, changes in adapter.items() for layer in changes]
        if not names:
            raise ValueError("an adapter changes no layer; leave it out.")
        strengths = dict(zip(names, _strengths(names, scale), strict=True))
        for component, changes in adapter.items():
            for layer, one in changes.items():
                entry = found.setdefault(component, {}).setdefault(layer, [])
                entry.append((one, strengths[f"{component}.{layer}"]))
    return found


def _strengths(names: list[str], scale: Scale) -> Iterator[Number]:
    """The scale of each layer."""
    table = scale if isinstance(scale, Mapping) else {"": scale}

    def within(name: str, part: str) -> bool:
        return not part or name == part or name.startswith(f"{part}.")

    for part, number in table.items():
        if not _is_number(number):
            raise ValueError(f"a scale is {number!r}; give a number, or a mapping from parts of the model to numbers.")
        if not any(within(name, part) for name in names):
            raise ValueError(f"a scale is given for {part!r}, and the adapter changes no layer there; leave it out.")
    for name in names:
        parts = [part for part in table if within(name, part)]
        number = table[max(parts, key=len)] if parts else 1.0
        yield number if isinstance(number, jax.core.Tracer) else float(number)


def _is_number(scale: Any) -> bool:
    if isinstance(scale, jax.core.Tracer):
        return scale.ndim == 0
    try:
        return math.isfinite(scale)
    except (TypeError, OverflowError):
        return False


def _find(
    known: Mapping[str, tuple[layout.Path, Any]], component: str, name: str, added: list[tuple[Added, Number]]
) -> tuple[layout.Path, Any]:
    """Where a parameter is, and itself. ValueError where there is none, or one of another shape."""
    cure = "load the adapter for this model"
    if name not in known:
        raise ValueError(f"the model has no {component}.{name}, which the adapter changes; {cure}.")
    where, leaf = known[name]
    shape = layout.torch_shape(where, leaf.shape)
    for one, _ in added:
        if one.shape != shape:
            raise ValueError(f"{component}.{name} has shape {shape}, and the adapter needs {one.shape}; {cure}.")
    return where, leaf


@functools.partial(jax.jit, static_argnums=2)
def _add(leaf: Any, added: list[tuple[Added, Any]], kernel: bool) -> Any:
    """A parameter and all changes of it, in float32 and cast back, or int8 where it is quantised.

    A `kernel` is turned to torch's layout and back.
    """
    if isinstance(leaf, Streamed):
        leaf = leaf.fetched()
    if isinstance(leaf, Quantized):
        return leaf.changed(_add(leaf.widened(), added, kernel))
    weight = (jnp.moveaxis(leaf, (-1, -2), (0, 1)) if kernel else leaf).astype(jnp.float32)
    result = weight
    for one, scale in added:
        change = scale * _product(one)
        if one.dora_scale is not None:
            axes = tuple(axis for axis, size in enumerate(one.dora_scale.shape) if size == 1)
            total = weight + change
            norm = jnp.sqrt(jnp.sum(jnp.square(total), axes, keepdims=True))
            change = one.dora_scale.astype(jnp.float32) / norm * total - weight
        result += change
    return (jnp.moveaxis(result, (0, 1), (-1, -2)) if kernel else result).astype(leaf.dtype)


def _product(one: Added) -> jax.Array:
    """What a change adds at scale 1, in torch's layout and float32."""
    if isinstance(one, Factors):
        return one.alpha / one.rank * _multiplied(one.up, one.down)
    if isinstance(one, Hadamard):
        return one.alpha / one.rank * _multiplied(one.up, one.down) * _multiplied(one.up_2, one.down_2)
    if isinstance(one, Kronecker):
        second = _multiplied(*one.second) if isinstance(one.second, tuple) else jnp.asarray(one.second, jnp.float32)
        product = jnp.einsum("ab,cd...->acbd...", jnp.asarray(one.first, jnp.float32), second)
        return one.scale * product.reshape(one.shape)
    if isinstance(one, Part):
        return jnp.take(_product(one.of), one.rows, axis=0)
    return one.scale * jnp.asarray(one.difference, jnp.float32)


def _multiplied(up: Any, down: Any) -> jax.Array:
    """(out, rank, 1...) and (rank, in, ...) -> (out, in, ...)."""
    high, wide = (jnp.asarray(x, jnp.float32).reshape(x.shape[0], -1) for x in (up, down))
    product = jnp.dot(high, wide, precision=jax.lax.Precision.HIGHEST)
    return product.reshape(up.shape[0], *down.shape[1:])


def _replaced(tree: Params, path: layout.Path, leaf: Any) -> dict[str, Any]:
    """The tree with another leaf at that path; all else is shared."""
    name, *rest = path
    return {**tree, name: _replaced(tree.get(name, {}), tuple(rest), leaf) if rest else leaf}
