"""How long starting takes: `import fdiff` beyond jax and flax, and the first picture from a cold start.

    python tests/benchmarks/bench_start.py
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time


def run(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh interpreter."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Alternate the two imports, then draw."""
    plain, ours = [], []
    for _ in range(7):
        plain.append(run("import jax, flax.linen"))
        ours.append(run("import jax, flax.linen, fdiff"))
    for kind, name in enumerate(("wall", "CPU")):
        without, with_fdiff = (statistics.median(times[kind] for times in runs) for runs in (plain, ours))
        more = with_fdiff - without
        print(f"import, {name}: jax and flax {without:.2f} s, with fdiff {with_fdiff:.2f} s: {more:.2f} more")
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = run(f"from fdiff.cli import main; main(['generate', '--out', '{folder}/digits.png'])")
    print(f"fdiff generate, 100 digits in 50 steps: {wall:.1f} s, {cpu:.1f} s of CPU")


if __name__ == "__main__":
    main()
