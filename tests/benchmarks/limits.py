"""What the machine can do at most: a product of matrices, and a copy."""

import functools

import numpy as np

from tests.benchmarks.case import Case, Ready, Run, Setting, normal

SIZE, SMALL = 4096, 256
BYTES = 2**30


def product(library: str, setting: Setting) -> Ready:
    """Two square matrices of float32."""
    size = SMALL if setting.small else SIZE
    a, b = normal(size, size), normal(size, size)

    def begin() -> Run:
        if library == "torch":
            import torch

            x, y = torch.from_numpy(a), torch.from_numpy(b)
            return lambda: (x @ y).numpy()
        import jax

        run = jax.jit(jax.numpy.dot).lower(a, b).compile()
        u, v = jax.device_put(a), jax.device_put(b)
        return lambda: np.asarray(run(u, v))

    return Ready(begin, lambda: 2.0 * size**3)


def copy(library: str, setting: Setting) -> Ready:
    """Reading a gigabyte and writing it elsewhere."""
    numbers = np.ones((2**20 if setting.small else BYTES) // 4, np.float32)

    def begin() -> Run:
        if library == "torch":
            import torch

            source = torch.from_numpy(numbers)
            target = torch.empty_like(source)
            return lambda: target.copy_(source)[:1].numpy()
        other = np.empty_like(numbers)

        def run() -> np.ndarray:
            np.copyto(other, numbers)
            return other[:1]

        return run

    return Ready(begin, lambda: 2.0 * numbers.nbytes)


CASES = [
    Case("product", f"a product of matrices, {SIZE} wide", {
        side: functools.partial(product, side) for side in ("fdiff", "torch")
    }),
    Case("copy", "a copy of a gigabyte", {
        side: functools.partial(copy, side) for side in ("numpy", "torch")
    }, gigabytes=2.0),
]  # fmt: skip
