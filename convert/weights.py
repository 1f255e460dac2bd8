"""A checkpoint <-> a tree of Flax parameters, one tensor at a time.

    params = load("unet/diffusion_pytorch_model.safetensors", model.shapes(), dtype="bfloat16")
    save("unet", params, "diffusion_pytorch_model", variant="fp16")

The tree that is to be filled says which tensors there must be, their shapes and (by the names of its leaves)
their layouts; a file that differs from it in any tensor is an error.
"""

import functools
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from convert import files, gguf, json_text, layout, names, packed, pickles, safetensors
from convert.quantized import Quantized, Shelf, Streamed, is_quantized
from convert.tensors import EIGHT_BITS, Tensor, check_floating

# What says where parameters go: one place for all, one for each path ("mid_block.resnets.0.conv1.kernel"),
# or a tree of places. None is the default device.
Place: TypeAlias = "jax.sharding.Sharding | jax.Device | None"
Places: TypeAlias = "Place | Callable[[str], Place] | Mapping[str, Any]"

THREADS = 4  # that read and copy at the same time; each holds one tensor


def load(
    file: str | os.PathLike[str],
    shapes: Mapping[str, Any],
    *,
    dtype: Any = None,
    sharding: Places = None,
    quantize: str | None = None,
    streamed: bool = False,
) -> dict[str, Any]:
    """The parameters in a .safetensors file, in torch's .bin, .pt or .ckpt, or in the files of an index.

    `shapes` is the tree to fill, with jax.ShapeDtypeStruct leaves. Floating point parameters become `dtype`;
    None keeps each as the file has it. For the other arguments and for errors see `fill` and `tensors`.
    """
    return fill(tensors(file), shapes, file=file, dtype=dtype, sharding=sharding, quantize=quantize, streamed=streamed)


def fill(
    found: Mapping[str, Tensor],
    shapes: Mapping[str, Any],
    *,
    file: str | os.PathLike[str],
    dtype: Any = None,
    sharding: Places = None,
    quantize: str | None = None,
    streamed: bool = False,
) -> dict[str, Any]:
    """The tree `shapes` filled with the tensors `found`, read one at a time; `file` is what the errors name.

    A matrix that is quantised in the file becomes a `convert.quantized.Quantized`, which is computed with in `dtype`.
    quantize: "int8", "int4" or "float8" makes such leaves of the matrices that `convert.packed.chosen` says.
    streamed: large matrices of the layers that repeat stay in the file, as `convert.quantized.Streamed`.

    Raises ValueError for a tensor that is missing, left over or of another shape, before any is read.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    paths = [tuple(str(entry.key) for entry in path) for path, _ in leaves]
    wanted = [leaf for _, leaf in leaves]
    sources = match(found, dict(zip(paths, wanted, strict=True)), file)
    places = _places(sharding, shapes, paths)
    target = floating(dtype)

    kinds = [packed.chosen(path, leaf.shape, quantize) for path, leaf in zip(paths, wanted, strict=True)]

    dtypes = [computed(source.dtype, leaf.dtype, target) for source, leaf in zip(sources, wanted, strict=True)]
    shelf, left = Shelf(), {}
    for i in range(len(paths)):
        if streamed and packed.repeats(paths[i], wanted[i].shape):
            source = packed.plain(packed.stored(sources[i], kinds[i]), dtypes[i])
            left[i] = shelf.add(source, True, dtypes[i])

    def put(i: int) -> Any:
        if i in left:
            return left[i]
        source, place, kept = packed.stored(sources[i], kinds[i]), places[i], dtypes[i]
        if packed.stays(source, paths[i]):
            turned = paths[i][-1] == "kernel"
            return source.node(turned, kept, lambda part: _put(part, _of_part(place, turned, part.shape)))
        array = layout.from_torch(paths[i], source.read())
        return _put(layout.copied(array, kept), place)

    # The largest first: while their copies are in memory twice, most parameters are not in memory yet.
    order = sorted(range(len(paths)), key=lambda i: math.prod(sources[i].shape), reverse=True)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        made = dict(zip(order, pool.map(put, order), strict=True))
    return jax.tree.unflatten(treedef, [made[i] for i in range(len(paths))])


def _put(array: np.ndarray, place: Place) -> jax.Array:
    if isinstance(place, jax.sharding.Sharding):
        made = jax.make_array_from_callback(array.shape, place, lambda index: array[index])
    else:
        made = jax.device_put(array, place)
    return made.block_until_ready()


def _of_part(place: Place, turned: bool, shape: tuple[int, ...]) -> Place:
    """Where a part (rows, n) of a quantised matrix goes, as the matrix does, but whole along axes that do not
    divide."""
    if not isinstance(place, jax.sharding.NamedSharding):
        return place
    first, second, *_ = (*place.spec, None, None)
    spec = []
    for size, names_ in zip(shape, (second, first) if turned else (first, second), strict=True):
        axes = () if names_ is None else names_ if isinstance(names_, tuple) else (names_,)
        spec.append(names_ if size % math.prod(place.mesh.shape[axis] for axis in axes) == 0 else None)
    return jax.sharding.NamedSharding(place.mesh, jax.sharding.PartitionSpec(*spec))


def floating(dtype: Any) -> np.dtype | None:
    """The dtype that floating point parameters are to have; None keeps what the file has. ValueError for another."""
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype is {dtype!r}; it must be float32, bfloat16, float16 or another of floating point")
    return found


def computed(stored: np.dtype, wanted: np.dtype, dtype: np.dtype | None) -> np.dtype:
    """In which dtype a parameter is loaded: of floating point ones `dtype`, or if None, the one in the file.

    Numbers of 8 bits, which JAX computes nothing in, become float32, which holds each of them, unless they are wanted.
    """
    if not jnp.issubdtype(stored, jnp.floating):
        return stored
    if dtype is None and stored.name in EIGHT_BITS and np.dtype(wanted).name not in EIGHT_BITS:
        return np.dtype(np.float32)
    return stored if dtype is None else dtype


def match(
    found: Mapping[str, Tensor], wanted: Mapping[layout.Path, Any], file: str | os.PathLike[str]
) -> list[Tensor]:
    """The tensor of each path, whose shape and dtype `wanted` has.

    Raises ValueError unless paths and tensors pair off, with equal shapes, and floating point where that is wanted.
    """
    spelled = {path: names.find(layout.torch_name(path), found) for path in wanted}
    missing = [layout.torch_name(path) for path, name in spelled.items() if name is None]
    used = set(spelled.values())
    left = [name for name in found if name not in used and not names.is_spare(name, used)]
    cure = "check that its config.json is of the same model"
    if missing:
        raise ValueError(f"{file} lacks {_several(missing)}, which the model needs; {cure}.")
    if left:
        raise ValueError(f"{file} holds {_several(left)}, which the model does not have; {cure}.")
    spare = [name for name in found if name not in used]
    if spare:
        logging.getLogger("fdiff").info("%s holds %s, which no parameter needs; passed over", file, _several(spare))
    sources = []
    for path, name in spelled.items():
        assert name is not None
        shape = layout.torch_shape(path, wanted[path].shape)
        if found[name].shape != shape:
            found_shape = found[name].shape
            raise ValueError(f"{name} in {file} has shape {found_shape}, the model needs {shape}; {cure}.")
        if jnp.issubdtype(wanted[path].dtype, jnp.floating):
            check_floating(name, found[name], file)
        sources.append(found[name])
    return sources


def _several(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{items[0]} and {len(items) - 1} more tensors"


def _places(sharding: Places, shapes: Mapping[str, Any], paths: list[layout.Path]) -> list[Place]:
    if callable(sharding):
        return [sharding(".".join(path)) for path in paths]
    if isinstance(sharding, Mapping):
        return jax.tree.leaves(jax.tree.map(lambda _, place: place, shapes, sharding))
    return [sharding] * len(paths)


def tensors(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by the name that it has there, without what torch put around compiled modules.

    None is read yet. The format is known by the content. Raises FileNotFoundError, and ValueError where it is
    damaged, unknown or a pickle that holds more than tensors.
    """
    with files.reading(file):
        found = _tensors(Path(file))
    names.check(found, file)
    bare = names.unwrapped(found)
    if len(bare) < len(found):
        raise ValueError(f"{file} holds tensors twice, of a module that torch wrapped and of the plain one; keep one.")
    return packed.grouped(bare, file)


def _tensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; check its name.")
    files.check_whole(file)
    if file.suffix == ".json":
        return _sharded(file)
    with open(file, "rb") as stream:
        start = stream.read(20)
    if start.startswith(b"version https://git-"):
        raise ValueError(f"{file} is a pointer of Git LFS, not the weights; run `git lfs pull` beside it.")
    if file.suffix == ".safetensors" or start[8:9] == b"{":
        return safetensors.read(file)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return pickles.tensors(file)
    if start.startswith(gguf.MAGIC):
        return gguf.renamed(gguf.read(file), file)
    raise ValueError(f"{file} is neither a safetensors file nor one of torch; convert it to safetensors.")


def shards(index: str | os.PathLike[str]) -> list[str]:
    """The names of the files that the index of a sharded checkpoint lists, all of them in its own folder."""
    return sorted(set(_weight_map(Path(index)).values()))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        with files.reading(index):
            weight_map = json_text.read(index)["weight_map"]
        pairs = {name: os.fspath(shard) for name, shard in weight_map.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{index} is no index of a checkpoint; download or copy it again.") from error
    names.check([*pairs, *pairs.values()], index)
    for shard in pairs.values():
        if not shard or shard != os.path.basename(shard) or "\\" in shard or shard in (".", ".."):
            raise ValueError(f"{index} points to {shard!r}, outside its folder; do not trust it.")
    return pairs


def _sharded(index: Path) -> dict[str, Tensor]:
    weight_map = _weight_map(index)
    found: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        file = index.parent / shard
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there, but {index.name} lists it; download it too.")
        found |= _tensors(file)
    for name, shard in weight_map.items():
        file = index.parent / shard
        if name not in found or found[name].file != file:
            raise ValueError(f"{file} lacks {name}, which {index.name} lists; download both again.")
    return found


def save(
    folder: str | os.PathLike[str],
    params: Mapping[str, Any],
    stem: str = "diffusion_pytorch_model",
    *,
    variant: str | None = None,
    max_shard_size: int | str = "10GB",
) -> None:
    """Write `folder`/`stem`[.`variant`].safetensors: several with an index, where one exceeds max_shard_size.

    Parameters are written in their own dtypes, under torch's names and in torch's layouts, and the files
    appear when they are whole. max_shard_size is in bytes, or a text such as "5GB" (1 GB is 10^9 bytes).
    """
    full = f"{stem}.{variant}" if variant else stem
    parts = list(_parts(arrays(params), _bytes(max_shard_size)))
    with files.staged(folder) as temporary:
        if len(parts) == 1:
            safetensors.write(temporary / f"{full}.safetensors", parts[0])
            return
        weight_map: dict[str, str] = {}
        for i, part in enumerate(parts):
            name = f"{full}-{i + 1:05}-of-{len(parts):05}.safetensors"
            safetensors.write(temporary / name, part)
            weight_map |= dict.fromkeys(part, name)
        total = sum(array.nbytes for part in parts for array in part.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        text = json.dumps(index, indent=2) + "\n"
        (temporary / index_name(stem, variant)).write_text(text, encoding="utf-8")


def index_name(stem: str, variant: str | None = None, extension: str = "safetensors") -> str:
    """What the Hub calls the index of a sharded checkpoint."""
    return f"{stem}.{extension}.index.{variant}.json" if variant else f"{stem}.{extension}.index.json"


def check(params: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """ValueError unless `params` has the paths and the shapes of the tree `shapes`."""
    given, wanted = _leaves(params), _leaves(shapes)
    for name in sorted(given.keys() | wanted.keys()):
        if name not in given:
            raise ValueError(f"the parameters lack {name}, which the model needs; pass all of them.")
        if name not in wanted:
            raise ValueError(f"the parameters hold {name}, which the model does not have; leave it out.")
        shape, needed = (layout.torch_shape(path, leaf.shape) for path, leaf in (given[name], wanted[name]))
        if shape != needed:
            raise ValueError(
                f"{name} of the parameters has shape {shape} in torch's layout, "
                f"the model needs {needed}; pass the parameters of this model."
            )


def _leaves(params: Mapping[str, Any]) -> dict[str, tuple[layout.Path, Any]]:
    """The parameters, quantised ones whole, by torch's names."""
    found: dict[str, tuple[layout.Path, Any]] = {}
    for entries, leaf in jax.tree_util.tree_flatten_with_path(params, is_leaf=is_quantized)[0]:
        path = tuple(str(entry.key) for entry in entries)
        name = layout.torch_name(path)
        if name in found:
            raise ValueError(f"two parameters are called {name} in torch; rename one of them.")
        found[name] = path, leaf
    return found


def arrays(params: Mapping[str, Any]) -> dict[str, safetensors.Array]:
    """The parameters by torch's names and in torch's layouts, each to be made when it is written.

    Of a quantised one that is every part, under the name of the parameter, its kind and the name of the part.
    """
    found: dict[str, safetensors.Array] = {}
    for name, (path, leaf) in _leaves(params).items():
        if isinstance(leaf, Streamed):
            raise ValueError(f"{name} stays in its file; copy that, or load the model without streamed=True.")
        if isinstance(leaf, Quantized):
            for part, array in leaf.parts.items():
                make = functools.partial(np.asarray, array)
                found[f"{name}.{leaf.kind}.{part}"] = safetensors.Array(array.shape, np.dtype(array.dtype), make)
            continue

        def make_turned(path: layout.Path = path, leaf: Any = leaf) -> np.ndarray:
            return layout.to_torch(path, np.asarray(leaf))

        found[name] = safetensors.Array(layout.torch_shape(path, leaf.shape), np.dtype(leaf.dtype), make_turned)
    return found


def _parts(
    arrays: Mapping[str, safetensors.Array], most: int
) -> Iterator[dict[str, safetensors.Array]]:
    """Cut the parameters, in order, into files of at most so many bytes, or of one tensor."""
    part: dict[str, safetensors.Array] = {}
    size = 0
    for name, array in arrays.items():
        if part and size + array.nbytes > most:
            yield part
            part, size = {}, 0
        part[name] = array
        size += array.nbytes
    yield part


def _bytes(size: int | str) -> int:
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    try:
        number = int(float(size[:-2]) * units[size[-2:].upper()]) if isinstance(size, str) else size
    except (KeyError, ValueError, OverflowError):
        number = 0
    if number <= 0:
        raise ValueError(f'max_shard_size is {size!r}; give a number of bytes, or a text such as "5GB".')
    return number
