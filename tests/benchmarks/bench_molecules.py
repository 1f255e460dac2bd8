"""Molecules of EDM's checkpoint of QM9: fdiff, and the algorithm in plain torch, in turn in one process, on the CPU.

    python tests/benchmarks/bench_molecules.py CHECKPOINT.npy [--molecules 100] [--steps 200] [--parts 4]
    python tests/benchmarks/bench_molecules.py CHECKPOINT.npy --quality fdiff --molecules 1000
    python tests/benchmarks/bench_molecules.py CHECKPOINT.npy --quality torch --molecules 1000

The first times both: the same network, noise and sizes (up to 29 atoms), drawn in parts by turns. It prints seconds and
CPU seconds of each and their ratios, what compiling takes, and how many atoms end within 0.01 angstrom of the other's.
The others print the four shares of `fdiff.molecules.evaluate` with their standard errors; molecules of nearly one size
are drawn together there, so that little is padded. Torch's side is Satorras et al. 2021 and Hoogeboom et al. 2022
written down edge by edge, with gathers and scatters, as that field's code has it.
"""

import argparse
import functools
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from fdiff import edm_checkpoint, molecules, sampling
from fdiff.molecules import Molecules
from fdiff.pipelines.molecules import denoiser, projected, settled

EACH = 4  # atoms by which places for them differ, where quality is measured


def linear(weights: Any, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def network(weights: Any, layers: int, x: torch.Tensor, t: float, mask: torch.Tensor) -> torch.Tensor:
    """EGNN over all pairs of atoms, padding included, as a list of edges."""
    b, n, d = x.shape
    there = mask.reshape(b * n, 1)
    flat = x.reshape(b * n, d) * there
    first, h = flat[:, :3], torch.cat([flat[:, 3:], torch.full((b * n, 1), t)], 1)
    atoms = torch.arange(n)
    row = (torch.arange(b)[:, None, None] * n + atoms[:, None]).expand(b, n, n).reshape(-1)
    column = (torch.arange(b)[:, None, None] * n + atoms[None, :]).expand(b, n, n).reshape(-1)
    pairs = (mask[:, :, None] * mask[:, None, :] * (1 - torch.eye(n))).reshape(-1, 1)

    def summed(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(b * n, values.shape[1]).scatter_add_(0, row[:, None].expand_as(values), values)

    def mlp(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.silu(linear(weights, f"{name}.2", F.silu(linear(weights, f"{name}.0", x))))

    squares_0 = ((first[row] - first[column]) ** 2).sum(1, keepdim=True)
    positions, h = first, linear(weights, "embedding", h)
    for i in range(layers):
        block = f"e_block_{i}"
        apart = positions[row] - positions[column]
        squares = (apart**2).sum(1, keepdim=True)
        away = apart / (torch.sqrt(squares + 1e-8) + 1)
        edges = torch.cat([squares, squares_0], 1)
        m = mlp(f"{block}.gcl_0.edge_mlp", torch.cat([h[row], h[column], edges], 1))
        m = m * torch.sigmoid(linear(weights, f"{block}.gcl_0.att_mlp.0", m)) * pairs
        told = torch.cat([h, summed(m)], 1)
        told = linear(weights, f"{block}.gcl_0.node_mlp.2", F.silu(linear(weights, f"{block}.gcl_0.node_mlp.0", told)))
        h = (h + told) * there
        m = mlp(f"{block}.gcl_equiv.coord_mlp", torch.cat([h[row], h[column], edges], 1))
        moved = away * torch.tanh(linear(weights, f"{block}.gcl_equiv.coord_mlp.4", m)) * 15.0 * pairs
        positions = (positions + summed(moved)) * there
    features = (linear(weights, "embedding_out", h) * there)[:, : d - 3].reshape(b, n, d - 3)
    return torch.cat([free((positions - first).reshape(b, n, 3), mask), features], 2)


def free(positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    there = mask[..., None]
    return (positions - (positions * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)) * there


@torch.no_grad()
def torch_draw(
    weights: Any, layers: int, gamma: np.ndarray, steps: int, sizes: np.ndarray, noise: Any, width: int
) -> np.ndarray:
    """Ancestral sampling over all or `steps` of the levels of gamma; noise(i) is that of row i, 0 the first x."""
    mask = torch.from_numpy((np.arange(width) < sizes[:, None]).astype(np.float32))

    def fresh(i: int) -> torch.Tensor:
        drawn = torch.from_numpy(np.array(noise(i)))
        return torch.cat([free(drawn[..., :3], mask), drawn[..., 3:] * mask[..., None]], 2)

    times = np.round(np.linspace(len(gamma) - 1, 0, steps + 1)).astype(int)
    alpha, sigma = np.sqrt(1 / (1 + np.exp(gamma))), np.sqrt(1 / (1 + np.exp(-gamma)))
    x = fresh(0)
    for i, (t, s) in enumerate(itertools.pairwise(times), 1):
        a = alpha[t] / alpha[s]
        v = sigma[t] ** 2 - a**2 * sigma[s] ** 2
        out = network(weights, layers, x, t / (len(gamma) - 1), mask)
        x = x / a - v / (a * sigma[t]) * out + np.sqrt(v) * sigma[s] / sigma[t] * fresh(i)
        x = torch.cat([free(x[..., :3], mask), x[..., 3:]], 2).float()
    out = network(weights, layers, x, 0.0, mask)
    seen = (x - sigma[0] * out) / alpha[0] + sigma[0] / alpha[0] * fresh(steps + 1)
    return torch.cat([seen[..., :3], x[..., 3:]], 2).numpy()  # elements are those of x, not of what is seen in it


def normals(seed: int, shape: tuple[int, ...], i: int) -> np.ndarray:
    return np.random.default_rng((seed, i)).standard_normal(shape, np.float32)


@functools.lru_cache(maxsize=64)
def compiled(pipe: Any, steps: int) -> Any:
    plan = pipe.scheduler.plan(steps)

    def run(params: Any, x: jax.Array, mask: jax.Array, noise: jax.Array) -> jax.Array:
        network = jax.tree_util.Partial(settled, denoiser(pipe.egnn, params, mask))
        after = jax.tree_util.Partial(projected, mask)
        return sampling.sample(network, plan, projected(mask, x), noise=noise, after=after)

    return jax.jit(run)


def fdiff_draw(pipe: Any, params: Any, steps: int, sizes: np.ndarray, noise: Any, width: int) -> np.ndarray:
    mask = jnp.arange(width) < jnp.asarray(sizes)[:, None]
    rows = np.stack([noise(i) for i in range(1, steps + 2)])
    return np.asarray(compiled(pipe, steps)(params, noise(0), mask, rows))


def decoded(pipe: Any, x: np.ndarray, sizes: np.ndarray) -> Molecules:
    return pipe.decode_molecules(x, np.arange(x.shape[1]) < sizes[:, None])


def times(draw: Any) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = draw()
    return made, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--molecules", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--quality", choices=("fdiff", "torch"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="also write the molecules, .npz, .sdf or .xyz")
    asked = parser.parse_args()
    pipe, params = edm_checkpoint.load(asked.checkpoint)
    weights = {name: torch.from_numpy(value.read().copy())
               for name, value in edm_checkpoint.inspect(asked.checkpoint).tensors.items()}  # fmt: skip
    signal = pipe.scheduler._signal()
    gamma, layers, d = np.log((1 - signal) / signal), pipe.egnn.num_layers, 3 + pipe.egnn.in_features
    counts = np.asarray(pipe.sizes) / sum(pipe.sizes)
    sizes = np.random.default_rng(asked.seed).choice(len(counts), asked.molecules, p=counts)

    def ours(sizes: np.ndarray, seed: int, width: int) -> np.ndarray:
        noise = functools.partial(normals, seed, (len(sizes), width, d))
        return fdiff_draw(pipe, params, asked.steps, sizes, noise, width)

    def theirs(sizes: np.ndarray, seed: int, width: int) -> np.ndarray:
        noise = functools.partial(normals, seed, (len(sizes), width, d))
        return torch_draw(weights, layers, gamma, asked.steps, sizes, noise, width)

    if asked.quality:
        draw = ours if asked.quality == "fdiff" else theirs
        found = []
        widths = np.minimum(-(-sizes // EACH) * EACH, len(counts) - 1)
        for width in np.unique(widths):  # seeds differ between the two sides, so that they are independent
            of_width = sizes[widths == width]
            x = draw(of_width, 1000 * int(width) + asked.seed + (500 if draw is theirs else 0), int(width))
            found.append(decoded(pipe, x, of_width))
            print(f"{sum(len(one.numbers) for one in found)} of {asked.molecules}", flush=True)
        report(molecules.concatenate(found), asked.out)
        return
    width = len(counts) - 1
    parts = np.array_split(sizes, asked.parts)
    _, compiling, _ = times(lambda: ours(parts[0], 0, width))
    total = np.zeros((2, 2))
    close = []
    for i, part in enumerate(parts):
        one, *of_ours = times(functools.partial(ours, part, i, width))
        other, *of_theirs = times(functools.partial(theirs, part, i, width))
        total += [of_ours, of_theirs]
        there = np.arange(width) < part[:, None]
        close.append((np.abs(one[..., :3] - other[..., :3]).max(-1) < 0.01)[there])
        print(f"part {i + 1} of {asked.parts}: fdiff {of_ours[0]:.1f} s, torch {of_theirs[0]:.1f} s, ratio "
              f"{of_ours[0] / of_theirs[0]:.3f}", flush=True)
    print(f"{asked.molecules} molecules, {asked.steps} steps: fdiff {total[0, 0]:.1f} s ({total[0, 1]:.1f} s of CPU), "
          f"torch {total[1, 0]:.1f} s ({total[1, 1]:.1f} s of CPU); ratio {total[0, 0] / total[1, 0]:.3f} (CPU "
          f"{total[0, 1] / total[1, 1]:.3f}); first call with compiling {compiling:.1f} s; "
          f"{100 * np.concatenate(close).mean():.1f} % of atoms within 0.01 angstrom")


def report(found: Molecules, out: str | None) -> None:
    quality, count, atoms = molecules.evaluate(found), len(found.numbers), int(found.mask.sum())
    errors = [np.sqrt(share * (1 - share) / (atoms if name == "atom_stable" else count))
              for name, share in quality._asdict().items()]  # fmt: skip
    print(json.dumps({name: [round(share, 4), round(float(error), 4)]
                      for (name, share), error in zip(quality._asdict().items(), errors, strict=True)}))
    if out:
        molecules.write(out, found)


if __name__ == "__main__":
    main()
