"""Time and memory of `from_pretrained`: fdiff and diffusers in turn, each run in a process of its own.

    python tests/benchmarks/bench_load.py [FOLDER] [--class UNet2DModel] [--dtype float32] [--repeat 5]

Without a folder, a checkpoint of ddpm-cat-256's shape with random weights (455 MB) is written and read; a folder may
also hold a whole pipeline, with its class, such as StableDiffusionPipeline. The file is in the system's cache, so that
the disk is not measured. `peak` is the most that the process held over what it held before the load, as a multiple of
the file's size. diffusers maps the file and reads nothing until the weights are used: `and read once` adds a sum over
all of them, for both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CAT = {
    "attention_head_dim": None,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-06,
    "sample_size": 256,
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def child(library: str, kind: str, folder: str, dtype: str) -> None:
    """Load once and print its seconds, its CPU seconds, the seconds to load and read, and the bytes at the peak."""
    if library == "fdiff":
        import jax

        import fdiff

        model, options = getattr(fdiff, kind), {"dtype": dtype}
        jax.device_put(0.0)
        jax.eval_shape(lambda: jax.random.normal(jax.random.key(0), (2,)))
    else:
        import diffusers
        import torch
        import transformers

        model, options = getattr(diffusers, kind), {"torch_dtype": getattr(torch, dtype)}
        model.load_config(folder)  # diffusers and transformers import a model when it is first used
        _ = transformers.CLIPTextModel, diffusers.UNet2DConditionModel, diffusers.AutoencoderKL

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start, cpu_start = time.perf_counter(), time.process_time()
    loaded = model.from_pretrained(folder, **options)
    loading, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    peak = status("VmHWM") - before
    if library == "fdiff":
        for leaf in jax.tree.leaves(loaded[1]):
            leaf.__array__().sum()
    else:
        parts = [loaded, *getattr(loaded, "components", {}).values()]
        for module in [part for part in parts if isinstance(part, torch.nn.Module)]:
            for parameter in module.parameters():
                parameter.detach().numpy().sum()
    print(json.dumps([loading, cpu, time.perf_counter() - start, peak]))


def main() -> None:
    """Write a checkpoint if none is given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--class", dest="kind", default="UNet2DModel")
    parser.add_argument("--dtype", default="float32", help="what to load the weights as")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder
        if folder is None:
            import jax
            import numpy as np

            import fdiff

            folder = f"{temporary}/cat"
            model = fdiff.UNet2DModel.from_config(CAT)
            rng = np.random.default_rng(0)
            params = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), model.shapes())
            model.save_pretrained(folder, params)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
        found: dict[str, list[list[float]]] = {"fdiff": [], "diffusers": []}
        for _ in range(arguments.repeat):
            for library, runs in found.items():
                command = [sys.executable, __file__, "child", library, arguments.kind, folder, arguments.dtype]
                environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{size / 1e6:.0f} MB, medians of {arguments.repeat}")
    print(f"{'':10} {'load':>9} {'of CPU':>9} {'and read once':>14} {'peak / size':>12}")
    for library, runs in found.items():
        load, cpu, read, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{library:10} {load:7.2f} s {cpu:7.2f} s {read:12.2f} s {peak / size:12.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        main()
