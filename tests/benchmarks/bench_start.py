"""How long starting takes: `import fdiff`, answers of the command, and its first pictures from a cold start.

    python tests/benchmarks/bench_start.py
    python tests/benchmarks/bench_start.py --beside ~/fdiff-0.1       another checkout in turn, and the ratios

Medians over rounds. The first drawing finds an empty folder of what is compiled, the second what the first one left.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parents[2]
COMMAND = "import sys; sys.argv[0] = 'fdiff'; from fdiff.cli import main; sys.exit(main())"
ANSWERS = {
    "fdiff --help": ["--help"],
    "fdiff generate --help": ["generate", "--help"],
    "a bad option": ["generate", "--nothing"],
    "a bad value": ["generate", "--steps", "0"],
}
DRAWN = ("generate --out digits.png, first", "generate --out digits.png, second")
Times = dict[str, list[tuple[float, float]]]


def run(checkout: Path, code: str, *arguments: str, cache: str = os.devnull) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh interpreter that imports fdiff from a checkout."""
    environ = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environ |= {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": cache}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    line = [sys.executable, "-P", "-c", code, *arguments]  # -P: not what the current folder holds
    done = subprocess.run(line, capture_output=True, env=environ, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):  # 2 is how the command refuses an option
        raise RuntimeError(done.stderr.decode())
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(checkout: Path, times: Times) -> None:
    """Add a round of everything."""
    times.setdefault("import jax, flax.linen", []).append(run(checkout, "import jax, flax.linen"))
    times.setdefault("the same and fdiff.sample", []).append(
        run(checkout, "import jax, flax.linen, fdiff; fdiff.sample")
    )
    for name, arguments in ANSWERS.items():
        times.setdefault(name, []).append(run(checkout, COMMAND, *arguments))
    with tempfile.TemporaryDirectory() as folder:
        for name in DRAWN:
            out = f"{folder}/digits.png"
            times.setdefault(name, []).append(run(checkout, COMMAND, "generate", "--out", out, cache=folder))
            Path(out).unlink()  # which also says whether it was drawn


def main() -> None:
    """Take the checkouts in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: 3)")
    options = parser.parse_args()
    checkouts = [HERE] if options.beside is None else [HERE, options.beside.resolve()]
    found: list[Times] = [{} for _ in checkouts]
    for _ in range(options.rounds):
        for checkout, times in zip(checkouts, found, strict=True):
            measure(checkout, times)
    for name in found[0]:
        for kind, what in enumerate(("wall", "CPU")):
            medians = [statistics.median(each[kind] for each in times[name]) for times in found]
            ratio = f"; {medians[1]:.2f} s beside, ratio {medians[0] / medians[1]:.2f}" if len(medians) > 1 else ""
            print(f"{name}, {what}: {medians[0]:.2f} s{ratio}")


if __name__ == "__main__":
    main()
