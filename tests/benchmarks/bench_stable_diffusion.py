"""Time of SD 1.5's U-Net and VAE decoder: fdiff and diffusers on torch, in turn in one process, float32 on the CPU.

    python tests/benchmarks/bench_stable_diffusion.py [--case unet32 unet64 vae512 vae256] [--repeat 3]

Full size (860 and 84 million parameters; needs 8 GB of memory), random weights, the same for both. `unet32` and
`unet64` are a step of a batch of two latents of that size, `vae512` and `vae256` the pictures of one. Prints the
median of each, the ratio, what tracing and compiling take, and how far the results are apart, over the largest value.
"""

import argparse
import statistics
import time
from typing import Any

import diffusers
import jax
import numpy as np
import torch
from clock import seconds

import fdiff
from convert import layout

UNET = {"cross_attention_dim": 768, "sample_size": 64}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
# name: (class, config, method, shapes of the inputs)
CASES: dict[str, tuple[str, dict[str, Any], str, list[tuple[int, ...]]]] = {
    "unet32": ("UNet2DConditionModel", UNET, "__call__", [(2, 32, 32, 4), (), (2, 77, 768)]),
    "unet64": ("UNet2DConditionModel", UNET, "__call__", [(2, 64, 64, 4), (), (2, 77, 768)]),
    "vae256": ("AutoencoderKL", VAE, "decode", [(1, 32, 32, 4)]),
    "vae512": ("AutoencoderKL", VAE, "decode", [(1, 64, 64, 4)]),
}


def build(cls: str, config: dict[str, Any]) -> tuple[Any, dict[str, Any], torch.nn.Module]:
    """The same weights twice."""
    torch.manual_seed(0)
    theirs = getattr(diffusers, cls)(**config).eval()
    model, state = getattr(fdiff, cls).from_config(config), theirs.state_dict()

    def read(path: Any, _: Any) -> jax.Array:
        names = tuple(entry.key for entry in path)
        return jax.device_put(layout.from_torch(names, state[layout.torch_name(names)].numpy()))

    return model, jax.tree_util.tree_map_with_path(read, model.shapes()), theirs


def to_torch(x: np.ndarray) -> torch.Tensor:
    """The same numbers, pictures with their channels first."""
    tensor = torch.from_numpy(x)
    return tensor.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else tensor


def compare(name: str, model: Any, params: dict[str, Any], theirs: torch.nn.Module, repeat: int) -> None:
    """Run both in turn and print a line."""
    _, _, method, shapes = CASES[name]
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float32) if shape else np.array(500) for shape in shapes]
    tensors = [to_torch(np.asarray(array)) for array in arrays]
    torch_method = theirs if method == "__call__" else getattr(theirs, method)

    function = jax.jit(lambda params, *arrays: model.apply({"params": params}, *arrays, method=method))
    start = time.perf_counter()
    lowered = function.lower(params, *arrays)
    tracing = time.perf_counter() - start
    compiled = lowered.compile()
    compiling = time.perf_counter() - start - tracing
    with torch.no_grad():
        expected = torch_method(*tensors).sample.permute(0, 2, 3, 1).numpy()
        apart = np.abs(np.asarray(compiled(params, *arrays)) - expected).max() / np.abs(expected).max()
        pairs = [
            (
                seconds(lambda: compiled(params, *arrays).block_until_ready()),
                seconds(lambda: torch_method(*tensors)),
            )
            for _ in range(repeat)
        ]
    ours, torchs = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"{name}: fdiff {ours:.2f} s, diffusers {torchs:.2f} s, ratio {ours / torchs:.2f}; traced in {tracing:.1f} s "
        f"and compiled in {compiling:.1f} s; {apart:.0e} apart",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    for cls in ("UNet2DConditionModel", "AutoencoderKL"):
        names = [name for name in options.case if CASES[name][0] == cls]
        if names:
            models = build(cls, CASES[names[0]][1])
            for name in names:
                compare(name, *models, options.repeat)
            del models


if __name__ == "__main__":
    main()
