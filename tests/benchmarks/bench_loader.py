"""How many pictures of 64x64 a second the loader delivers from a folder of JPEG and PNG files, beside decoding alone.

    python tests/benchmarks/bench_loader.py [--pictures 2000] [--seconds 5] [--workers 0 2]

In turn in one process: files opened and decoded one after the other with Pillow, in as many threads as there are cores,
and batches of 64 as a training takes them.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from fdiff.training import data, loader

BATCH = 64


def write(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i:05}.{('png', 'jpg')[i % 2]}")


def decoding(source: data.Files, seconds: float) -> float:
    """Pictures a second, decoded by Pillow in threads."""
    def decode(i: int) -> int:
        return np.asarray(source[i % len(source)]["image"]).size

    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while time.perf_counter() - began < seconds:
            done += sum(1 for _ in threads.map(decode, range(done, done + BATCH)))
    return done / (time.perf_counter() - began)


def loading(source: data.Files, seconds: float, workers: int) -> float:
    """Pictures a second of batches, after the first."""
    stream = loader.batches(source, loader.Prepare((64, 64)), BATCH, workers=workers)
    next(stream)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += len(next(stream).arrays["image"])
    return done / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.pictures)
        source = data.find(folder)
        for workers in options.workers:
            alone = [decoding(source, options.seconds)]
            loaded = loading(source, options.seconds, workers)
            alone.append(decoding(source, options.seconds))
            print(f"{workers} workers on {os.cpu_count()} cores: {loaded:.0f} pictures a second, decoding alone "
                  f"{np.mean(alone):.0f}, ratio {loaded / np.mean(alone):.2f}", flush=True)


if __name__ == "__main__":
    main()
