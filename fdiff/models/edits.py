"""Changes to a network for one run, as collections beside its parameters.

An edit is a tree with a network's module paths and, below some of them, numbers that a layer looks up:

    edits = identity_attention(params, "mid_block.*attn1", jnp.array([False, True]))
    eps = unet.apply({"params": params, "attention": edits}, latents, t, tokens)

The layers are chosen by a regular expression, which is searched for in the path of each, its parts joined by
dots: "down_blocks.2.attentions.0.transformer_blocks.0.attn1". Edits are pytrees: they are arguments of a
compiled program like the parameters, and another value compiles nothing. `merge` puts several together.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Tree = Mapping[str, Any]


def identity_attention(params: Tree, layers: str, samples: jax.Array) -> dict[str, Any]:
    """Perturbed attention (Ahn et al. 2024): in self-attention `layers`, everything attends to itself alone.

    `samples` (b,) are booleans: which of the batch this is done to.
    """
    return edit(params, layers, "to_v", {"identity": jnp.asarray(samples, bool)})


def skip_blocks(params: Tree, layers: str, samples: jax.Array) -> dict[str, Any]:
    """Leave transformer blocks out, for those of the batch where `samples` (b,) is true."""
    return edit(params, layers, "attn1", {"skip": jnp.asarray(samples, bool)})


def freeu(s1: float | jax.Array, s2: float | jax.Array, b1: float | jax.Array, b2: float | jax.Array) -> dict[str, Any]:
    """FreeU (Si et al. 2023): the first two up blocks of a U-Net see more of what comes from below.

    b1 and b2 multiply half of the channels from below, s1 and s2 the low frequencies of what comes from the side; 1 is
    no change. The authors use s1 0.9, s2 0.2, b1 1.5, b2 1.6 for SD 1.5 and b1 1.3, b2 1.4 for SDXL.
    """
    levels = jnp.asarray((b1, b2), jnp.float32), jnp.asarray((s1, s2), jnp.float32)
    return {f"up_blocks.{i}": {"freeu": (levels[0][i], levels[1][i])} for i in range(2)}


def image_prompt(
    adapter: Tree, tokens: jax.Array, scale: jax.Array | float | Mapping[str, Any] = 1.0
) -> dict[str, Any]:
    """IP-Adapter (Ye et al. 2023): cross-attention to the tokens (b, m, d) of an image as well.

    `adapter` holds to_k_ip and to_v_ip, {"kernel": (d, heads * c)}, below the path of each layer. The keys
    and values that all layers will look at are computed here, once for a run. `scale` is a number, or an
    array that broadcasts to (b, h * w, heads, c), for masks, or a mapping from regular expressions to either:
    the first that is found in a layer's path counts, and a layer without one is left alone.
    """
    edits: dict[str, Any] = {}
    for path, module in modules(adapter):
        strength = scale_of(scale, ".".join(path))
        if "to_k_ip" in module and strength is not None:
            kernels = module["to_k_ip"]["kernel"], module["to_v_ip"]["kernel"]
            keys, values = (jnp.dot(tokens.astype(kernel.dtype), kernel) for kernel in kernels)
            put(edits, path, {"images": ((keys, values, jnp.asarray(strength, keys.dtype)),)})
    return edits


def scale_of(scale: Any, path: str) -> Any:
    """The scale of the layer with this path, or None."""
    if not isinstance(scale, Mapping):
        return scale
    return next((value for pattern, value in scale.items() if re.search(pattern, path)), None)


def merge(*edits: Tree) -> dict[str, Any]:
    """Several edits in one: image prompts add up, and of other entries for one layer the last counts."""
    result: dict[str, Any] = {}
    for tree in edits:
        for name, value in tree.items():
            if name == "images":
                result[name] = (*result.get(name, ()), *value)
            elif isinstance(value, Mapping):
                result[name] = merge(result.get(name, {}), value)
            else:
                result[name] = value
    return result


def modules(params: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """Every module of a parameter tree, with its path."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield (*path, name), value
            yield from modules(value, (*path, name))


def edit(params: Tree, layers: str, part: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The same entry for every module that has this part and whose path matches."""
    tree: dict[str, Any] = {}
    for path, module in modules(params):
        if part in module and re.search(layers, ".".join(path)):
            put(tree, path, entry)
    if not tree:
        raise ValueError(f"No layer with {part} has a path like {layers!r}; choose others.")
    return tree


def put(tree: dict[str, Any], path: tuple[str, ...], entry: dict[str, Any]) -> None:
    """Write the entry at the path."""
    for name in path:
        tree = tree.setdefault(name, {})
    tree.update(entry)
