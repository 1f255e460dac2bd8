"""Time and error of products with quantised matrices, beside float32, in turn in one process.

    python tests/benchmarks/bench_quantized.py [--tokens 512] [--shape 3072 9216] [--repeat 5] [--kinds int8 q4_k ...]

Printed are the median time of each kind, over that of float32; how far the product is from that with the widened
matrix, and from that with the matrix before it was quantised, each over the largest value; and the bytes that the
compiled program holds beside its arguments. Blocks of ggml's kinds and NF4 are random, so that there is nothing before.
"""

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clock import seconds

from convert import ggml, quantized
from convert.quantized import Quantized
from fdiff.models.layers.product import product

FLOAT32 = np.dtype(np.float32)


def matrix_of(kind: str, matrix: np.ndarray) -> Quantized:
    """The matrix (rows, columns) as a kernel of that kind, or random blocks."""
    rng, (rows, columns) = np.random.default_rng(1), matrix.shape
    if kind in quantized.MADE:
        parts = quantized.made(kind, matrix)
    elif kind == "nf4":
        parts = {"codes": rng.integers(0, 256, (rows, columns // 2), np.uint8),
                 "scales": rng.random((rows, columns // 64), np.float32) / 16,
                 "table": np.linspace(-1, 1, 16, dtype=np.float32)[None]}  # fmt: skip
    else:
        one = ggml.KINDS[kind]
        codes = rng.integers(0, 256, (rows, columns // one.numbers, one.nbytes), np.uint8)
        for place in (208,) if kind == "q6_k" else (0, 2):
            codes[..., place : place + 2] = np.full(1, 1e-3, np.float16).view(np.uint8)
        parts = {"codes": codes.reshape(rows, -1)}
    return Quantized(kind, {name: jnp.asarray(part) for name, part in parts.items()}, columns, True, FLOAT32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--shape", type=int, nargs=2, default=[3072, 9216])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--kinds", nargs="*", default=list(quantized.WIDENED))
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((options.tokens, options.shape[0])), jnp.float32)
    matrix = rng.standard_normal(options.shape[::-1]).astype(np.float32) / options.shape[0] ** 0.5
    kernels: dict[str, Any] = {"float32": jnp.asarray(matrix.T)}
    kernels |= {kind: matrix_of(kind, matrix) for kind in options.kinds}
    compiled = {kind: jax.jit(product).lower(x, kernel).compile() for kind, kernel in kernels.items()}
    times: dict[str, list[float]] = {kind: [] for kind in kernels}
    for _ in range(options.repeat + 1):
        for kind, run in compiled.items():
            times[kind].append(seconds(lambda run=run, kind=kind: run(x, kernels[kind]).block_until_ready()))  # type: ignore[misc]
    median = {kind: statistics.median(taken[1:]) for kind, taken in times.items()}
    before = np.asarray(x, np.float64) @ matrix.T
    for kind, kernel in kernels.items():
        made = np.asarray(compiled[kind](x, kernel), np.float64)
        wide = np.asarray(x, np.float64) @ np.asarray(quantized.widened(kernel), np.float64)
        off = [np.abs(made - exact).max() / np.abs(exact).max() for exact in (wide, before)]
        told = f", {off[1]:.1e} from the matrix before" if kind in quantized.MADE else ""
        held = compiled[kind].memory_analysis().temp_size_in_bytes
        print(f"{kind}: {1000 * median[kind]:.1f} ms, {median[kind] / median['float32']:.2f} of float32; {off[0]:.1e} "
              f"from the widened matrix{told}; {held / 1e6:.0f} MB beside")


if __name__ == "__main__":
    main()
