"""What a call costs on the host: 20 steps from text on a checkpoint so small that the device has next to nothing to do.

    python tests/benchmarks/bench_host.py [--beside PATH] [--rounds 15]

With --beside another checkout of fdiff is measured too, in turn: each has a process that loads, warms up and then
draws a few pictures whenever it is its turn. It prints medians of the milliseconds of a call, their ratio, and how many
programs each compiled before the first picture was there.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference"
WARM_UP, CALLS = 3, 3


def child(steps: int) -> None:
    """Load, warm up and say what was compiled; then for each line that comes in draw, and say the milliseconds."""
    import jax

    import fdiff

    programs = []

    def note(event: str, seconds: float, **about: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(event)

    tokenizer = fdiff.CLIPTokenizer.from_folder(REFERENCE / "clip" / "tokenizer")
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(REFERENCE / "pipelines" / "sd", tokenizer=tokenizer)
    key = jax.random.key(0)
    jax.monitoring.register_event_duration_secs_listener(note)

    def draw() -> float:
        start = time.perf_counter()
        options = {"num_inference_steps": steps, "output_type": "array", "progress": False}
        pipe(params, "a photo of a cat", key=key, **options).images.block_until_ready()
        return 1000 * (time.perf_counter() - start)

    draw()
    first = len(programs)
    for _ in range(WARM_UP):
        draw()
    print(first, flush=True)
    for _ in sys.stdin:
        print(*(draw() for _ in range(CALLS)), flush=True)


def main() -> None:
    """Measure this checkout, and another one in turn with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout of fdiff")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.steps)
        return
    checkouts = [ROOT] + ([arguments.beside.resolve()] if arguments.beside else [])
    children, compiled = [], []
    for checkout in checkouts:
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        children.append(subprocess.Popen(
            [sys.executable, __file__, "--child", "--steps", str(arguments.steps)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ))  # fmt: skip
        compiled.append(int(children[-1].stdout.readline()))
    took: list[list[float]] = [[] for _ in checkouts]
    for _ in range(arguments.rounds):
        for process, times in zip(children, took, strict=True):
            process.stdin.write("\n")
            process.stdin.flush()
            times += map(float, process.stdout.readline().split())
    for process in children:
        process.stdin.close()
        process.wait()
    for checkout, times, programs in zip(checkouts, took, compiled, strict=True):
        print(f"{statistics.median(times):7.1f} ms a call, {min(times):.1f} at least; {programs} programs  {checkout}")
    if arguments.beside:
        print(f"ratio {statistics.median(took[0]) / statistics.median(took[1]):.2f} of medians, "
              f"{min(took[0]) / min(took[1]):.2f} of the least")


if __name__ == "__main__":
    main()
