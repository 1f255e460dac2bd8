"""Memory and time of FLUX.2 klein 4B, whole, with random weights in int8 or int4, and what diffusers needs of memory.

    python tests/benchmarks/bench_klein.py --configs ../shared/data/hub_configs [--quantize int8 int4] [--pixels 512]

A folder of the Hub's layout is written at true shapes, from the configs of black-forest-labs/FLUX.2-klein-4B and the
tokenizer of Tongyi-MAI/Z-Image-Turbo, which is the same: 8 GB of disk in int8. A process of its own then loads it with
one model in memory at a time and draws a picture in `--steps` steps. Printed are the most that it held, the seconds of
each part, and beside them what diffusers holds of the same shapes in bfloat16: by its own classes without memory, where
they are installed, or else by fdiff's shapes. `--layers` makes the models shallower, for a first look.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KLEIN, QWEN = "black-forest-labs/FLUX.2-klein-4B", "Tongyi-MAI/Z-Image-Turbo/tokenizer"
PROMPT = "a red cat on a mat, in the light of the evening"


class Random:
    """Numbers that are drawn when they are written."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, low: float, high: float) -> None:
        self.shape, self.dtype, self.low, self.high = shape, dtype, low, high

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        rng = np.random.default_rng(math.prod(self.shape))
        if np.issubdtype(self.dtype, np.integer):
            return rng.integers(int(self.low), int(self.high), self.shape, self.dtype)
        return (self.low + (self.high - self.low) * rng.random(self.shape, np.float32)).astype(self.dtype)


def tree(model: Any, kind: str | None) -> Any:
    """Random parameters of the model, quantised as fdiff does it: in size like those that a new layer is given."""
    import jax
    import ml_dtypes
    import numpy as np

    from convert import layout, packed, quantized

    def one(entries: Any, leaf: Any) -> Any:
        path = tuple(entry.key for entry in entries)
        how = packed.chosen(path, leaf.shape, kind)
        if how is None:
            one = 1.0 if path[-1] in ("scale", "running_var") else 0.0
            wide = math.sqrt(3 / math.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.0
            return Random(leaf.shape, np.dtype(ml_dtypes.bfloat16), one - wide, one + wide)
        shape = layout.torch_shape(path, leaf.shape)
        size = math.sqrt(3 / shape[1]) / {"int8": 127, "int4": 120}[how]
        spans = {"codes": {"int8": (-127, 128), "int4": (0, 256)}[how], "factors": (1, 16), "scales": (size, size)}
        parts = {name: Random(*found, *spans[name]) for name, found in quantized.sizes(how, shape).items()}
        return quantized.Quantized(how, parts, shape[1], path[-1] == "kernel", np.dtype(np.float32))

    return jax.tree_util.tree_map_with_path(one, model.shapes())


def write(folder: Path, configs: Path, kind: str, layers: int | None) -> None:
    """The folder of a pipeline."""
    import fdiff

    shutil.copytree(configs / KLEIN, folder)
    shutil.copytree(configs / QWEN, folder / "tokenizer", dirs_exist_ok=True)
    for name in ("transformer", "text_encoder", "vae"):
        file = folder / name / "config.json"
        config = json.loads(file.read_text())
        if layers:
            config |= {"transformer": {"num_layers": 1, "num_single_layers": layers},
                       "text_encoder": {"num_hidden_layers": layers, "layer_types": None}, "vae": {}}[name]  # fmt: skip
            file.write_text(json.dumps(config))
        model = getattr(fdiff, (config.get("_class_name") or config["architectures"][0])).from_config(config)
        model.save_pretrained(folder / name, tree(model, None if name == "vae" else kind))


def draw(folder: str, pixels: int, steps: int, layers: int | None, in_turn: bool) -> None:
    """Load and draw, and print what it took as JSON."""
    import jax

    import fdiff

    started = time.perf_counter()
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(folder, in_turn=in_turn)
    options: dict[str, Any] = {"text_encoder_out_layers": (1, 2, 3)} if layers else {}
    run = pipe.steps(
        params, PROMPT, num_inference_steps=steps, height=pixels, width=pixels, key=jax.random.key(0), **options
    )
    times = {"read and encode the prompt": time.perf_counter() - started}
    finish = run.finish()
    for i, (state, _) in enumerate(run):
        state.x.block_until_ready()
        times[f"step {i + 1}"] = time.perf_counter() - started - sum(times.values())
    picture = finish(state.x)[0][0]
    times["decode"] = time.perf_counter() - started - sum(times.values())
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    colors = len(picture.resize((32, 32)).getcolors(1024))
    print(json.dumps({"peak": int(peak.split()[1]) * 1024, "seconds": times, "size": picture.size, "colors": colors}))


def theirs(configs: Path) -> tuple[int, str]:
    """Bytes of the parameters in bfloat16, and by whose shapes."""
    try:
        import diffusers
        import torch
        import transformers
    except ImportError:
        import fdiff

        models: list[Any] = [
            getattr(fdiff, name).from_config(json.loads((configs / KLEIN / part / "config.json").read_text()))
            for name, part in (("Flux2Transformer2DModel", "transformer"), ("Qwen3ForCausalLM", "text_encoder"),
                               ("AutoencoderKLFlux2", "vae"))
        ]  # fmt: skip
        return 2 * sum(model.count_parameters() for model in models), "fdiff's shapes"
    with torch.device("meta"):
        qwen = transformers.Qwen3Config.from_pretrained(str(configs / KLEIN / "text_encoder"))
        built = [
            diffusers.Flux2Transformer2DModel.from_config(str(configs / KLEIN / "transformer")),
            transformers.Qwen3ForCausalLM(qwen),
            diffusers.AutoencoderKLFlux2.from_config(str(configs / KLEIN / "vae")),
        ]
    return 2 * sum(p.numel() for model in built for p in model.parameters()), "the classes of diffusers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--quantize", nargs="*", default=["int8", "int4"], choices=("int8", "int4"))
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--layers", type=int, help="of each model, in place of its own number")
    parser.add_argument("--all-at-once", action="store_true", help="have all models in memory")
    parser.add_argument("--draw", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        draw(options.draw, options.pixels, options.steps, options.layers, not options.all_at_once)
        return
    for kind in options.quantize:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "klein"
            write(folder, options.configs, kind, options.layers)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            own = [sys.executable, __file__, *sys.argv[1:], "--draw", os.fspath(folder)]
            found = json.loads(subprocess.run(own, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        seconds = ", ".join(f"{part} {taken:.0f} s" for part, taken in found["seconds"].items())
        print(f"{kind}: {size / 1e9:.2f} GB of files; the most held {found['peak'] / 1e9:.2f} GB; {seconds}; "
              f"{found['size']} with {found['colors']} colors of 1024", flush=True)
    count, whose = theirs(options.configs)
    print(f"diffusers in bfloat16: {count / 1e9:.2f} GB of parameters alone, by {whose}")


if __name__ == "__main__":
    main()
