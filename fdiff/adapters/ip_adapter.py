"""IP-Adapter (Ye et al. 2023): a picture as a prompt, beside the text.

    adapter = ip_adapter.load("h94/IP-Adapter", params["unet"])
    seen, unseen = ip_adapter.features(adapter, encoder, encoder_params, pixels)     # with CLIP's vision tower
    edits = ip_adapter.collection(adapter, jnp.concatenate([unseen, seen]), scale=0.6)
    eps = unet.apply({"params": params["unet"], "attention": edits}, latents, t, tokens)

The edits hold keys and values, computed once for a run. For scales by layer or place, see
`fdiff.models.edits.image_prompt`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from convert import ip_adapter as convert_ip_adapter
from convert import layout, weights
from convert.safetensors import Array
from convert.tensors import Tensor
from fdiff import hub
from fdiff.adapters import files
from fdiff.adapters.lora import layers
from fdiff.models import CLIPVisionModelWithProjection, edits
from fdiff.models.layers.image_projection import HEAD, ImageProjection, Resampler

NAMES = ("ip-adapter_sd15.safetensors", "ip-adapter_sd15.bin", "ip-adapter_sdxl.safetensors")
CURE = "download or copy it again"


class IPAdapter(NamedTuple):
    """An adapter: how pictures become tokens, and the parameters, {"image_proj": ..., "ip_adapter": ...}."""

    projection: ImageProjection | Resampler
    params: dict[str, Any]


def load(
    source: str | Path,
    unet_params: Mapping[str, Any],
    *,
    weight_name: str | None = None,
    subfolder: str | None = "models",
    dtype: Any = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> IPAdapter:
    """Read IP-Adapter or IP-Adapter plus for a U-Net with these parameters, or their shapes.

    `source` is a file, a folder or a Hub id such as "h94/IP-Adapter"; `weight_name` the file in its subfolder,
    such as "ip-adapter-plus_sd15.safetensors"; `dtype` that of the parameters, None as in the file. For the
    other arguments see `fdiff.hub`. Raises ValueError for an adapter for another base model, or of another kind.
    """
    place = hub.Source(source, subfolder, revision, cache_dir, token, local_files_only, force_download)
    path = files.find(place, weight_name, NAMES)
    known = layers(unet_params)
    sizes = {name: layout.torch_shape(where, leaf.shape) for name, (where, leaf) in known.items()}
    found = convert_ip_adapter.read(path, sizes)
    projection, example = _projection(found.image_proj, path)
    shapes: Any = jax.eval_shape(lambda x: projection.init(jax.random.key(0), x)["params"], example)
    _check(found, projection.width, weights.arrays(shapes), path)
    image_proj = weights.fill(found.image_proj, shapes, file=path, dtype=dtype)
    tree: dict[str, Any] = {}
    for layer, tensors in found.layers.items():
        where, _ = known[f"{layer}.to_k"]
        wanted = {name: {"kernel": jax.ShapeDtypeStruct(x.shape[::-1], jnp.float32)} for name, x in tensors.items()}
        kernels = {f"{name}.weight": x for name, x in tensors.items()}
        edits.put(tree, where[:-2], weights.fill(kernels, wanted, file=path, dtype=dtype))
    return IPAdapter(projection, {"image_proj": image_proj, "ip_adapter": tree})


def _projection(tensors: Mapping[str, Tensor], file: Path) -> tuple[ImageProjection | Resampler, jax.ShapeDtypeStruct]:
    """The module that has these tensors, and an input of it."""

    def size(name: str, axis: int) -> int:
        """How long an axis is of the tensor of that name."""
        shape = tensors[name].shape if name in tensors else ()
        if len(shape) <= axis or not shape[axis]:
            raise ValueError(f"{file} lacks image_proj.{name}, or has it in another shape; {CURE}.")
        return shape[axis]

    if "latents" in tensors and "layers.0.0.to_kv.weight" in tensors:
        resampler = Resampler(
            tokens=size("latents", 1),
            width=size("proj_out.weight", 0),
            hidden=size("latents", 2),
            depth=len([name for name in tensors if name.endswith(".0.to_kv.weight")]),
            heads=max(size("layers.0.0.to_q.weight", 0) // HEAD, 1),
            inner=size("layers.0.1.1.weight", 0),
        )
        return resampler, jax.ShapeDtypeStruct((1, 1, size("proj_in.weight", 1)), jnp.float32)
    if "proj.weight" in tensors and "norm.weight" in tensors:
        width = size("norm.weight", 0)
        projection = ImageProjection(max(size("proj.weight", 0) // width, 1), width)
        return projection, jax.ShapeDtypeStruct((1, size("proj.weight", 1)), jnp.float32)
    raise ValueError(f"{file} is of a kind of IP-Adapter that fdiff does not have; it has the base one and plus.")


def _check(found: convert_ip_adapter.Parts, width: int, wanted: Mapping[str, Array], file: Path) -> None:
    """ValueError unless the projection has these tensors, and makes tokens as wide as the layers take."""
    for name in sorted(wanted.keys() | found.image_proj.keys()):
        if name not in found.image_proj:
            raise ValueError(f"{file} lacks image_proj.{name}; {CURE}.")
        if name not in wanted:
            raise ValueError(f"{file} holds image_proj.{name}, which this kind of adapter does not have; {CURE}.")
        given, needed = found.image_proj[name].shape, wanted[name].shape
        if given != needed:
            raise ValueError(f"image_proj.{name} in {file} has shape {given}, not {needed}; {CURE}.")
    for layer, tensors in found.layers.items():
        taken = tensors["to_k_ip"].shape[1]
        if taken != width:
            raise ValueError(f"{file} makes tokens of {width} numbers, and its {layer} takes {taken}; {CURE}.")


def features(
    adapter: IPAdapter, encoder: CLIPVisionModelWithProjection, params: Mapping[str, Any], pixels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the adapter takes of pictures (b, h, w, 3), prepared for CLIP: (of them, of no picture).

    The base adapter takes CLIP's embedding (b, d), and zeros for none; plus takes what enters CLIP's last
    layer (b, n, d), and for none that of a picture of zeros.
    """
    if isinstance(adapter.projection, ImageProjection):
        embeds: jax.Array = encoder.apply({"params": params}, pixels).image_embeds  # type: ignore[union-attr]
        return embeds, jnp.zeros_like(embeds)
    both = jnp.concatenate([pixels, jnp.zeros_like(pixels)])
    states: jax.Array = encoder.apply({"params": params}, both).hidden_states[-2]  # type: ignore[union-attr]
    seen, unseen = jnp.split(states, 2)
    return seen, unseen


def collection(
    adapter: IPAdapter, images: jax.Array, scale: jax.Array | float | Mapping[str, Any] = 1.0
) -> dict[str, Any]:
    """The collection "attention" that makes a U-Net see the pictures whose `features` are `images` (b, ...).

    An axis more, (b, n, ...), is n pictures for each of the batch, seen at once. For `scale` see
    `fdiff.models.edits.image_prompt`. Raises ValueError for features of another encoder, and for a scale whose
    pattern no layer has.
    """
    base = isinstance(adapter.projection, ImageProjection)
    size = adapter.params["image_proj"]["proj" if base else "proj_in"]["kernel"].shape[0]
    single = 2 if base else 3
    if images.ndim not in (single, single + 1) or images.shape[-1] != size:
        axes = f"(b, {size})" if base else f"(b, n, {size})"
        raise ValueError(f"images have shape {images.shape}, not {axes}; pass the features that this adapter takes.")
    if isinstance(scale, Mapping):
        paths = [".".join(path) for path, module in edits.modules(adapter.params["ip_adapter"]) if "to_k_ip" in module]
        for pattern in scale:
            try:
                found = any(re.search(pattern, path) for path in paths)
            except re.error as error:
                raise ValueError(f"the scale's {pattern!r} is no regular expression ({error}); correct it.") from error
            if not found:
                raise ValueError(f"a scale is given for {pattern!r}, and the adapter has no layer there; leave it out.")
    each = images.reshape(-1, *images.shape[1 - single :])
    tokens: Any = adapter.projection.apply({"params": adapter.params["image_proj"]}, each)
    return edits.image_prompt(
        adapter.params["ip_adapter"], tokens.reshape(images.shape[0], -1, tokens.shape[-1]), scale
    )
