"""IP-Adapter files: `image_proj.*`, and `ip_adapter.N.to_k_ip.weight` for each cross-attention, numbered."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from convert import adapters, unet_order
from convert.tensors import Tensor

NAMES = ("to_k_ip", "to_v_ip")
CURE = "choose the adapter for this base model"


class Parts(NamedTuple):
    """The tensors of an adapter."""

    image_proj: dict[str, Tensor]
    layers: dict[str, dict[str, Tensor]]  # path of a cross-attention -> to_k_ip and to_v_ip


def read(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> Parts:
    """The parts of a .safetensors or .bin file, for a U-Net with layers of these names and shapes in torch.

    Raises ValueError for another file, and for one whose layers are not as many as the U-Net's, or as wide.
    """
    found = _tensors(file)
    image_proj = {
        name.removeprefix("image_proj."): tensor for name, tensor in found.items() if name.startswith("image_proj.")
    }
    rest = {name.removeprefix("ip_adapter."): tensor for name, tensor in found.items() if "ip_adapter." in name}
    if not image_proj or len(image_proj) + len(rest) != len(found):
        raise ValueError(f"{file} is no IP-Adapter; it lacks image_proj and ip_adapter, or holds more.")
    # attn1 and attn2 take turns, and only the second have weights: 1, 3, 5, ...
    paths = [f"{block}.attn2" for block in unet_order.transformer_blocks(shapes)]
    numbers = {2 * i + 1: path for i, path in enumerate(paths)}
    layers: dict[str, dict[str, Tensor]] = {path: {} for path in paths}
    for name, tensor in rest.items():
        number, _, leaf = name.partition(".")
        leaf = leaf.removesuffix(".weight")
        path = numbers.get(int(number) if number.isdigit() else -1)
        if path is None or leaf not in NAMES:
            raise ValueError(f"{file} holds ip_adapter.{name}, which the U-Net has no layer for; {CURE}.")
        wanted = shapes[f"{path}.to_k"]
        if tensor.shape != wanted:
            raise ValueError(f"ip_adapter.{name} in {file} has shape {tensor.shape}, not {wanted}; {CURE}.")
        layers[path][leaf] = tensor
    for i, path in numbers.items():
        if len(layers[path]) < len(NAMES):
            raise ValueError(f"{file} has no ip_adapter.{i} for {path} of the U-Net; {CURE}.")
    return Parts(image_proj, layers)


def _tensors(file: Path) -> dict[str, Tensor]:
    """By flat names: a .bin has two dicts in a dict."""
    data: Any = adapters.read(file)
    found = {}
    for part, value in data.items() if isinstance(data, dict) else ():
        for name, tensor in value.items() if isinstance(value, dict) else (("", value),):
            if isinstance(tensor, Tensor):
                found[f"{part}.{name}" if name else part] = tensor
    return found
