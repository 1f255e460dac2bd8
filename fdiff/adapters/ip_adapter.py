"""IP-Adapter (Ye et al. 2023): a picture as a prompt, beside the text.

    adapter = ip_adapter.load("h94/IP-Adapter", params["unet"])
    seen, unseen = ip_adapter.features(adapter, encoder, encoder_params, pixels)     # with CLIP's vision tower
    edits = ip_adapter.collection(adapter, jnp.concatenate([unseen, seen]), scale=0.6)
    eps = unet.apply({"params": params["unet"], "attention": edits}, latents, t, tokens)

The edits hold keys and values, computed once for a run. For scales by layer or place, see
`fdiff.models.edits.image_prompt`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from convert import ip_adapter as convert_ip_adapter
from convert import layout, weights
from convert.tensors import Tensor
from fdiff import hub
from fdiff.adapters import files
from fdiff.adapters.lora import layers
from fdiff.models import CLIPVisionModelWithProjection, edits
from fdiff.models.layers.image_projection import HEAD, ImageProjection, Resampler

NAMES = ("ip-adapter_sd15.safetensors", "ip-adapter_sd15.bin", "ip-adapter_sdxl.safetensors")

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
) -> IPAdapter:
    """Read IP-Adapter or IP-Adapter plus for a U-Net with these parameters, or their shapes.

    `source` is a file, a folder or a Hub id such as "h94/IP-Adapter"; `weight_name` the file in its subfolder,
    such as "ip-adapter-plus_sd15.safetensors"; `dtype` that of the parameters, None as in the file. For the
    other arguments see `fdiff.hub`. Raises ValueError for an adapter for another base model, or of another kind.
    """
    place = hub.Source(source, subfolder, revision, cache_dir, token, local_files_only)
    path = files.find(place, weight_name, NAMES)
    known = layers(unet_params)
    sizes = {name: layout.torch_shape(where, leaf.shape) for name, (where, leaf) in known.items()}
    found = convert_ip_adapter.read(path, sizes)
    projection, example = _projection(found.image_proj, path)
    shapes: Any = jax.eval_shape(lambda x: projection.init(jax.random.key(0), x)["params"], example)
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
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if "latents" in shapes and "layers.0.0.to_kv.weight" in shapes:
        resampler = Resampler(
            tokens=shapes["latents"][1],
            width=shapes["proj_out.weight"][0],
            hidden=shapes["latents"][2],
            depth=len([name for name in shapes if name.endswith(".0.to_kv.weight")]),
            heads=shapes["layers.0.0.to_q.weight"][0] // HEAD,
            inner=shapes["layers.0.1.1.weight"][0],
        )
        return resampler, jax.ShapeDtypeStruct((1, 1, shapes["proj_in.weight"][1]), jnp.float32)
    if "proj.weight" in shapes and "norm.weight" in shapes:
        (features, size), (width,) = shapes["proj.weight"], shapes["norm.weight"]
        return ImageProjection(features // width, width), jax.ShapeDtypeStruct((1, size), jnp.float32)
    raise ValueError(f"{file} is of a kind of IP-Adapter that fdiff does not have; it has the base one and plus.")


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
    """The collection "attention" that makes a U-Net see the pictures whose `features` are `images` (b, ...)."""
    tokens: Any = adapter.projection.apply({"params": adapter.params["image_proj"]}, images)
    return edits.image_prompt(adapter.params["ip_adapter"], tokens, scale)
