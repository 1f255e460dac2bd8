"""How much memory a model needs, told before its weights are loaded.

    bytes = parameters x bytes of one + the larger of what the network's widest layers and the decoder's hold

See `activations` for the second part. On a CPU, XLA's temporary buffers for the U-Net and the decoder of Stable
Diffusion 1.5, and for ones of 32 and 64 channels, at 256 x 256 and 512 x 512 pixels, are 83 to 97 % of it.
An accelerator whose attention keeps all scores needs more.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from convert import layout, packed, quantized
from fdiff import lean
from fdiff.manifest import Manifest, Part
from fdiff.pipelines.pipeline import OPT_IN


class Estimate(NamedTuple):
    """Bytes: of the parameters, and of what the network and the decoder hold at a time while they run."""

    parameters: int
    activations: int

    @property
    def total(self) -> int:
        """Both."""
        return self.parameters + self.activations


# What a network holds at a time, in numbers for each place of its input, channel of its first level and sample;
# measured as XLA's temporary buffers.
TRANSFORMER, CONVOLUTIONS = 30, 15
DECODER = 5  # the same for each pixel and channel that enters the last level of an autoencoder
COPIES = 0.05  # of the network's parameters, which are copied in another layout while it runs
COMPUTED = 4  # bytes of a number while it is computed with: CPUs know float32 alone (see `fdiff.lean`)
CONFIGS = ("vae", "vqvae", "movq")


def estimate(
    parts: Sequence[Part], *, dtype: str, size: tuple[int | None, int | None] = (None, None), count: int = 1,
    guided: bool = True, quantize: str | None = None, in_turn: bool = False,
    streamed: bool = False,
) -> Estimate:  # fmt: skip
    """What drawing `count` pictures at a time of that height and width, in pixels, needs.

    size: what the model was trained on if not given. guided: whether the network is asked twice for each picture.
    quantize, in_turn, streamed: see `DiffusionPipeline.from_pretrained`.
    """
    models = {part.name: part for part in parts if part.module is not None and part.name not in OPT_IN}
    each = jnp.dtype(dtype).itemsize
    stored = {name: _stored(part, each, quantize, streamed) for name, part in models.items()}
    decoders = sum(stored[name].nbytes for name in stored if name in CONFIGS)
    others = [stored[name].nbytes for name in stored if name not in CONFIGS]
    parameters = decoders + (max(others, default=0) if in_turn else sum(others))
    widened = each < COMPUTED and jax.default_backend() == "cpu" and jax.__version_info__ < lean.SINCE
    copied = COMPUTED if widened else COPIES * each
    held = activations({name: part.module for name, part in models.items()}, size, count, guided)
    return Estimate(parameters, held + int(max((one.wide for one in stored.values()), default=0) * copied))


class Stored(NamedTuple):
    """Bytes of parameters, and how many of them are not quantised."""

    nbytes: int
    wide: int


def _stored(part: Part, each: int, quantize: str | None, streamed: bool) -> Stored:
    """What the parameters of a model take, by the headers of the weights where they are here: that is quicker."""
    changes = (quantize or streamed) and part.name.startswith(packed.QUANTIZED)
    sizes: list[tuple[Any, tuple[int, ...]]]
    if part.tensors is None or changes:
        leaves = jax.tree_util.tree_flatten_with_path(part.module.shapes())[0]
        found = {tuple(str(entry.key) for entry in entries): leaf.shape for entries, leaf in leaves}
        kinds = {path: packed.chosen(path, shape, quantize if changes else None) for path, shape in found.items()
                 if not (streamed and changes and packed.repeats(path, shape))}  # fmt: skip
        shapes = {path: layout.torch_shape(path, found[path]) for path in kinds}
        sizes = [(kind and quantized.sizes(kind, shapes[path]), shapes[path]) for path, kind in kinds.items()]
    else:
        sizes = [(getattr(tensor, "sizes", None), tensor.shape) for tensor in part.tensors.values()]
    wide = sum(math.prod(shape) for parts, shape in sizes if not parts)
    quantised = [size for parts, _ in sizes if parts for size in parts.values()]
    return Stored(wide * each + sum(math.prod(one.shape) * one.dtype.itemsize for one in quantised), wide)


def activations(
    modules: dict[str, Any], size: tuple[int | None, int | None], count: int, guided: bool
) -> int:
    """Bytes of what is held while the network runs, or the decoder, whichever is more.

    network: 4 x samples x height x width of its input x channels of its first level x 30, or 15 where it has no text
    decoder: 4 x pictures x height x width in pixels x channels that enter its last level x 5
    """
    network, decoder = modules.get("unet"), next((modules[name] for name in CONFIGS if name in modules), None)
    shape = pixels(modules, size)
    if network is None or shape is None:
        return 0
    places, factor = shape[0] * shape[1], _factor(decoder)
    text = getattr(network, "cross_attention_dim", None) is not None
    samples = count * (2 if guided and (text or getattr(network, "num_class_embeds", None)) else 1)
    each = TRANSFORMER if text else CONVOLUTIONS
    held = samples * places // factor**2 * network.block_out_channels[0] * each
    if decoder is not None:
        held = max(held, count * places * decoder.block_out_channels[:2][-1] * DECODER)
    return int(COMPUTED * held)


def pixels(modules: dict[str, Any], size: tuple[int | None, int | None] = (None, None)) -> tuple[int, int] | None:
    """The height and width of a picture, None where they are not known."""
    network, decoder = modules.get("unet"), next((modules[name] for name in CONFIGS if name in modules), None)
    if network is None or not getattr(network, "block_out_channels", None):
        return None
    trained = getattr(network, "sample_size", None)
    both = trained if isinstance(trained, tuple) else (trained, trained)
    found = [given or (own and own * _factor(decoder)) for given, own in zip(size, both, strict=True)]
    return (int(found[0]), int(found[1])) if all(found) else None


def _factor(decoder: Any) -> int:
    """Pixels for each place of the latents."""
    return 1 if decoder is None else 2 ** (len(decoder.block_out_channels) - 1)


def told(manifest: Manifest) -> list[str]:
    """What a pipeline needs to draw one picture, in a line; of a transformer's what is known, that of the parameters.

    None where it has neither network.
    """
    modules = {part.name: part.module for part in manifest.parts if part.module is not None}
    shape, dtypes = pixels(modules), ("float32", "bfloat16")
    if shape is None and "transformer" not in modules:
        return []
    found = [estimate(manifest.parts, dtype=dtype) for dtype in dtypes]
    each = [gigabytes(one.parameters if shape is None else one.total) for one in found]
    what = "for the parameters alone" if shape is None else f"to draw one picture of {shape[1]} x {shape[0]}"
    return [f"memory: about {' and '.join(f'{n} in {dtype}' for n, dtype in zip(each, dtypes, strict=True))}, {what}"]


def gigabytes(count: int) -> str:
    """Such as 4.1 GB, or 12 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count // 1_000_000, 1)} MB"


def available() -> int | None:
    """Bytes that can still be had: of the accelerator that JAX computes on, or else of the machine, and of the part of
    it that a control group leaves this process. None where the system does not say.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return min((number for number in (_of_machine(), _of_group()) if number is not None), default=None)


def _of_machine(file: Path = Path("/proc/meminfo")) -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", file.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    except OSError:  # not Linux: what there is, used or not
        names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
        known = getattr(os, "sysconf_names", {})
        return os.sysconf(names[0]) * os.sysconf(names[1]) if all(name in known for name in names) else None


def _of_group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a control group (version 2) leaves; files that it has read do not count, since they can be dropped."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text())
        files = re.search(r"^file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
        return int(limit) - used + (int(files[1]) if files else 0)
    except (OSError, ValueError):
        return None
