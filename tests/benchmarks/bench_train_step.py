"""Time and memory of a training step of google/ddpm-cifar10-32's U-Net: fdiff and torch with diffusers' network.

    python tests/benchmarks/bench_train_step.py [--batch-size 8] [--repeat 7] [--no-memory]

Both draw times and noise, predict the noise and step with AdamW in float32, from the same random weights on the same
pictures; the steps are taken in turn in one process, whose freed memory is kept as in `fdiff train`. Prints the median
of a step of each, with rematerialisation too, and their ratios; the temporary memory that XLA plans; and the peak
memory of each above what importing takes, in processes of their own.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.bench_unet_2d import CASES, CIFAR10, resident, seconds, torch_network

RATE = 1e-4


def pictures(batch: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (batch, 32, 32, 3)).astype(np.float32)


def prepare_torch(network: Any, batch: int) -> Callable[[], float]:
    import diffusers
    import torch

    scheduler = diffusers.DDPMScheduler()
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    x0 = torch.from_numpy(pictures(batch)).permute(0, 3, 1, 2).contiguous()

    def step() -> float:
        t, noise = torch.randint(0, 1000, (batch,)), torch.randn_like(x0)
        out = network(scheduler.add_noise(x0, noise, t), t).sample
        loss = torch.nn.functional.mse_loss(out, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def prepare_fdiff(network: Any, batch: int, remat: bool) -> tuple[Callable[[], float], int]:
    """A step with the weights of a torch network, or zeros, and the bytes that XLA plans for what it computes."""
    import jax
    import optax
    from jax.tree_util import Partial

    import fdiff
    from convert import layout
    from fdiff import training
    from fdiff.cli.process import keep_memory

    keep_memory()
    model, scheduler, optimizer = fdiff.UNet2DModel.from_config(CIFAR10), fdiff.DDPMScheduler(), optax.adamw(RATE)
    if network is None:
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), model.shapes())
    else:
        weights = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}

        def read(path: Any, _: Any) -> Any:
            names = tuple(entry.key for entry in path)
            return layout.from_torch(names, weights[layout.torch_name(names)])

        params = jax.tree_util.tree_map_with_path(read, model.shapes())
    x0 = pictures(batch)

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return training.denoising_loss(Partial(model.apply, {"params": params}), scheduler, batch, key)

    state = jax.jit(partial(training.init, optimizer=optimizer, averages=0))(params)
    step = Partial(training.train_step, loss=loss, optimizer=optimizer, decays=(), remat=remat)
    compiled = jax.jit(step, donate_argnums=0).lower(state, x0, jax.random.key(0)).compile()

    def run() -> float:
        nonlocal state
        state, metrics = compiled(state, x0, jax.random.key(0))
        return float(metrics["loss"])

    return run, compiled.memory_analysis().temp_size_in_bytes


def prepare(side: str, network: Any, batch: int) -> Callable[[], float]:
    if side == "torch":
        return prepare_torch(network or torch_network(CASES["cifar10"]), batch)
    return prepare_fdiff(network, batch, remat=side == "remat")[0]


def report_peak(side: str, batch: int) -> None:
    """Print the peak of two steps in MB, above what importing takes."""
    if side == "torch":
        import diffusers
        import torch  # noqa: F401

        diffusers.UNet2DModel, diffusers.DDPMScheduler  # imported when first asked for
    else:
        import jax
        import optax  # noqa: F401

        import fdiff
        from fdiff import training  # noqa: F401

        fdiff.UNet2DModel, jax.devices()
    before = resident("VmRSS")
    run = prepare(side, None, batch)
    for _ in range(2):
        run()
    print((resident("VmHWM") - before) // 1024)


def peak(side: str, batch: int) -> int:
    command = [sys.executable, __file__, "--peak", side, "--batch-size", str(batch)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return report_peak(options.peak, options.batch_size)
    network = torch_network(CASES["cifar10"])
    plain, planned = prepare_fdiff(network, options.batch_size, remat=False)
    again, planned_again = prepare_fdiff(network, options.batch_size, remat=True)
    runs = {"torch": prepare_torch(network, options.batch_size), "plain": plain, "remat": again}
    losses = {name: run() for name, run in runs.items()}
    assert abs(losses["plain"] - losses["remat"]) < 1e-5 * losses["plain"], losses
    turns = [{name: seconds(run) for name, run in runs.items()} for _ in range(options.repeat)]
    took = {name: statistics.median(turn[name] for turn in turns) for name in runs}
    ratio = {name: statistics.median(turn[name] / turn["torch"] for turn in turns) for name in runs}
    print(f"a step of {options.batch_size} on {os.cpu_count()} cores: torch {took['torch']:.2f} s, "
          f"fdiff {took['plain']:.2f} s, ratio {ratio['plain']:.2f}; "
          f"with remat {took['remat']:.2f} s, ratio {ratio['remat']:.2f}, "
          f"{took['remat'] / took['plain']:.2f} times as long as without")
    print(f"XLA plans {planned / 1e6:.0f} MB beside the state, {planned_again / 1e6:.0f} MB with remat")
    if not options.no_memory:
        peaks = {side: peak(side, options.batch_size) for side in runs}
        print(", ".join(f"{side} {value} MB" for side, value in peaks.items()) + " at the peak; "
              f"ratio {peaks['plain'] / peaks['torch']:.2f}, with remat {peaks['remat'] / peaks['torch']:.2f}")


if __name__ == "__main__":
    main()
