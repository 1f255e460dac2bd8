"""What torch's CPU generator draws."""

from pathlib import Path

import numpy as np
import torch


def draws(seed: int, dtype: torch.dtype) -> np.ndarray:
    """One stream: normal numbers of every size from 1 to 40, then latents, an odd few, uniform numbers."""
    generator = torch.Generator("cpu").manual_seed(seed)
    shapes = [(n,) for n in range(1, 41)] + [(1, 4, 8, 8), (3,), (5,)]
    normal = [torch.randn(shape, generator=generator, dtype=dtype).double().flatten() for shape in shapes]
    uniform = torch.rand(37, generator=generator, dtype=dtype).double()
    return torch.cat([*normal, uniform]).numpy()


def make(folder: Path) -> None:
    arrays = {
        f"{seed}.{dtype}".replace("torch.", ""): draws(seed, dtype)
        for seed in (42, -1)
        for dtype in (torch.float32, torch.float16, torch.float64)
    }
    generator = torch.Generator("cpu").manual_seed(7)
    for high in (1000, 2**28, 2**40):
        arrays[f"randint.{high}"] = torch.randint(-3, high, (9,), generator=generator).numpy()
    np.savez_compressed(folder / "draws.npz", **arrays)
