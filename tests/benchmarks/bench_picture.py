"""Time and memory of one picture: Stable Diffusion 1.5 at full size, random weights, 512 x 512.

    python tests/benchmarks/bench_picture.py [--steps 2] [--dtype bfloat16] [--size 512] [--guidance-scale 7.5]

A checkpoint is written, and a process of its own loads it, draws and reports: the seconds to load, to compile and
do the first step (and what JAX says the sampler took to trace, lower and compile, or read from the cache), for each
further step and for decoding, and the most memory that it ever held, code included. Then another process does the same
and finds what the first one compiled in JAX's persistent cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
TOKENIZER = Path(__file__).parents[1] / "reference" / "clip" / "tokenizer"


def write(folder: Path, dtype: str) -> None:
    """A checkpoint of that size and dtype, its weights small random numbers."""
    import jax
    import numpy as np

    import fdiff

    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return (0.02 * rng.standard_normal(leaf.shape, np.float32)).astype(jax.numpy.dtype(dtype))

    pipe = fdiff.StableDiffusionPipeline(
        fdiff.AutoencoderKL(**VAE),
        fdiff.CLIPTextModel(**TEXT),
        fdiff.CLIPTokenizer.from_folder(TOKENIZER),
        fdiff.UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        fdiff.PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
    )
    models = {"vae": pipe.vae, "text_encoder": pipe.text_encoder, "unet": pipe.unet}
    pipe.save_pretrained(folder, {name: jax.tree.map(draw, model.shapes()) for name, model in models.items()})


def child(folder: str, arguments: argparse.Namespace) -> None:
    """Load, draw, decode; print what it took."""
    import jax

    import fdiff

    start = time.perf_counter()
    spent: dict[str, float] = {}

    def note(event: str, seconds: float, **about: Any) -> None:
        if "_advance" in str(about.get("fun_name")):  # the step of a run
            spent[event] = spent.get(event, 0.0) + seconds

    jax.monitoring.register_event_duration_secs_listener(note)

    def lap(what: str) -> float:
        nonlocal start
        took = time.perf_counter() - start
        print(f"{what:24} {took:7.1f} s", flush=True)
        start = time.perf_counter()
        return took

    pipe, params = fdiff.DiffusionPipeline.from_pretrained(folder, dtype=arguments.dtype)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    lap("load")
    size = {"height": arguments.size, "width": arguments.size}
    run = pipe.steps(
        params, "a photo of a cat", key=jax.random.key(0), num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance_scale, **size,
    )  # fmt: skip
    lap("text")
    laps = []
    for i, (state, _) in enumerate(run):
        state.x.block_until_ready()
        laps.append(lap("compile and first step" if i == 0 else "step"))
    if len(laps) > 1:
        print(f"{'first step, beyond one':24} {laps[0] - laps[-1]:7.1f} s", flush=True)
    words = " + ".join(f"{seconds:.1f}" for seconds in spent.values())
    print(f"{'compiling the sampler':24} {sum(spent.values()):7.1f} s: {words}, traced, lowered, compiled or read")
    pictures = pipe.decode(params, state.x).block_until_ready()
    lap("compile and decode")
    pipe.decode(params, state.x).block_until_ready()
    lap("decode")
    assert pictures.shape == (1, arguments.size, arguments.size, 3)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(f"peak {int(line.split()[1]) / 2**20:.2f} GiB, parameters {held / 2**30:.2f} GiB")


def main() -> None:
    """Write the checkpoint and measure in another process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", _written(temporary, arguments)]
        for title in ("nothing compiled", "from the persistent cache"):
            print(f"-- {title}", flush=True)
            cache = {"JAX_COMPILATION_CACHE_DIR": f"{temporary}/cache"}
            subprocess.run(command, check=True, env={**os.environ, **cache})


def _written(temporary: str, arguments: argparse.Namespace) -> str:
    """The folder of the checkpoint, written by a process whose memory is given back."""
    folder = Path(temporary) / "checkpoint"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import bench_picture, pathlib; "
    code += f"bench_picture.write(pathlib.Path({str(folder)!r}), {arguments.dtype!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    return str(folder)


if __name__ == "__main__":
    main()
