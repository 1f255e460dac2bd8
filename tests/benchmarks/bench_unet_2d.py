"""Time of UNet2DModel with DDIM: fdiff and diffusers on torch, in turn in one process, float32 on the CPU.

    python tests/benchmarks/bench_unet_2d.py [--case cifar10 cifar10_batch8 digits digits_batch16] [--repeat 5]

`cifar10` is the network of google/ddpm-cifar10-32 (35.7 million parameters) over 20 steps, `digits` the one that
fdiff ships (8x8, with classes) over 50; random weights, the same for both. fdiff runs `fdiff.sample`, diffusers the
loop of its documentation. Prints the median of a step of each, the ratio, what compiling takes, the peak memory of
each above what importing takes (in a process of its own), and how far the pictures are apart, over the largest value
(random weights amplify rounding: torch in float64 is as far from torch in float32).
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from clock import seconds

SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "clip_sample": True}
CIFAR10 = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
DIGITS = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 16,
    "norm_num_groups": 8,
    "num_class_embeds": 11,
}


class Case(NamedTuple):
    """A network, a batch and a number of steps."""

    config: dict[str, Any]
    batch: int
    steps: int

    def noise(self) -> np.ndarray:
        size, channels = self.config["sample_size"], self.config.get("in_channels", 3)
        return np.random.default_rng(0).standard_normal((self.batch, size, size, channels)).astype(np.float32)

    def labels(self) -> np.ndarray | None:
        return np.arange(self.batch, dtype=np.int32) % 10 if "num_class_embeds" in self.config else None


CASES = {
    "cifar10": Case(CIFAR10, 1, 20),
    "cifar10_batch8": Case(CIFAR10, 8, 20),
    "digits": Case(DIGITS, 1, 50),
    "digits_batch16": Case(DIGITS, 16, 50),
}


def torch_network(case: Case) -> Any:
    import diffusers
    import torch

    torch.manual_seed(0)
    return diffusers.UNet2DModel(**case.config).eval()


def prepare_diffusers(case: Case, network: Any) -> Callable[[], np.ndarray]:
    """The sampling loop."""
    import diffusers
    import torch

    scheduler = diffusers.DDIMScheduler(**SCHEDULE)
    labels = case.labels()
    labels = None if labels is None else torch.from_numpy(labels)
    first = torch.from_numpy(case.noise()).permute(0, 3, 1, 2).contiguous()

    def run() -> np.ndarray:
        scheduler.set_timesteps(case.steps)
        x = first
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t, labels).sample, t, x).prev_sample
        return x.permute(0, 2, 3, 1).numpy()

    return run


def prepare_fdiff(case: Case, network: Any = None) -> tuple[Callable[[], np.ndarray], float]:
    """The compiled sampler, with the weights of a torch network or zeros, and the seconds that compiling took."""
    import jax
    from jax.tree_util import Partial

    import fdiff
    from convert import layout

    model = fdiff.UNet2DModel.from_config(case.config)
    if network is None:
        params = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape), model.shapes())
    else:
        state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

        def read(path: Any, _: Any) -> jax.Array:
            names = tuple(entry.key for entry in path)
            return jax.device_put(layout.from_torch(names, state[layout.torch_name(names)]))

        params = jax.tree_util.tree_map_with_path(read, model.shapes())
    plan = fdiff.DDIMScheduler.from_config(SCHEDULE).plan(case.steps)
    labels, first = case.labels(), case.noise()

    @jax.jit
    def draw(params: Any, x: jax.Array) -> jax.Array:
        return fdiff.sample(Partial(model.apply, {"params": params}, class_labels=labels), plan, x)

    start = time.perf_counter()
    compiled = draw.lower(params, first).compile()
    seconds = time.perf_counter() - start
    return lambda: np.asarray(compiled(params, first)), seconds


def peak(name: str, side: str) -> int:
    """The peak memory in MB of one run in a new process, above what it has after its imports."""
    output = subprocess.run(
        [sys.executable, __file__, "--peak", name, side], capture_output=True, check=True, text=True
    )
    return int(output.stdout.split()[-1])


def report_peak(name: str, side: str) -> None:
    if side == "fdiff":
        import jax

        import fdiff  # noqa: F401

        jax.devices()
    else:
        import diffusers  # noqa: F401
        import torch  # noqa: F401
    before = resident("VmRSS")
    case = CASES[name]
    run = prepare_fdiff(case)[0] if side == "fdiff" else prepare_diffusers(case, torch_network(case))
    run()
    print((resident("VmHWM") - before) // 1024)


def resident(entry: str) -> int:
    """VmRSS or VmHWM (its peak) of this process in KB; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return report_peak(*options.peak)
    for name in options.case:
        case, network = CASES[name], torch_network(CASES[name])
        theirs = prepare_diffusers(case, network)
        ours, compiling = prepare_fdiff(case, network)
        expected = theirs()
        apart = np.abs(ours() - expected).max() / np.abs(expected).max()
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(options.repeat)]
        fdiff_step, torch_step = (1000 * statistics.median(times) / case.steps for times in zip(*pairs, strict=True))
        print(
            f"{name}: fdiff {fdiff_step:.2f} ms a step, diffusers {torch_step:.2f} ms, "
            f"ratio {fdiff_step / torch_step:.2f}; compiled in {compiling:.1f} s; "
            f"peak memory {peak(name, 'fdiff')} MB and {peak(name, 'diffusers')} MB; {apart:.0e} apart",
            flush=True,
        )


if __name__ == "__main__":
    main()
