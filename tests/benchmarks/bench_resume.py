"""How long a resumed training takes from its checkpoint being read to its first step being done.

    python tests/benchmarks/bench_resume.py [--channels 128,256,256,256] [--size 32] [--batch-size 8]

`fdiff train unconditional` trains six steps on random pictures and is resumed from the fifth, in a process of its own:
at first with an empty folder of what is compiled, as on another machine, then with what the first run left. Prints, for
each, the seconds from the start to the checkpoint being read, and from there to the loss of the step.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[2]
COMMAND = """
import functools, json, sys, time
from fdiff.cli.commands import keep_compiled, main

start, seen = time.perf_counter(), {}
keep_compiled()  # before JAX is imported, as the command does

from fdiff.training import checkpoints, loop

def noted(name, function):
    @functools.wraps(function)
    def call(*arguments, **options):
        out = function(*arguments, **options)
        seen.setdefault(name, time.perf_counter())
        return out
    return call

checkpoints.Checkpoints.restore = noted("read", checkpoints.Checkpoints.restore)
loop._Watch.flush = noted("step", loop._Watch.flush)
code = main()
read = seen.get("read", start)
print(json.dumps({"read": read - start, "step": seen["step"] - read}))
sys.exit(code)
"""


def run(cache: Path, line: list[str]) -> dict[str, float]:
    """What a process says of its times."""
    environ = {**os.environ, "PYTHONPATH": str(HERE), "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-P", "-c", COMMAND, *line], capture_output=True, text=True, env=environ)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", default="128,256,256,256")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw = np.random.default_rng(0)
        pictures = draw.integers(256, size=(32, arguments.size, arguments.size, 3), dtype=np.uint8)
        np.savez(folder / "data.npz", images=pictures)
        line = ["train", "unconditional", "--data", str(folder / "data.npz"), "--output", str(folder / "out")]
        options = ["--channels", arguments.channels, "--batch-size", str(arguments.batch_size), "--sample-every", "0"]
        run(folder / "first", [*line, *options, "--steps", "6", "--save-every", "5"])
        for name, cache in (("nothing compiled", "empty"), ("compiled before", "first")):
            shutil.rmtree(folder / "out" / "checkpoints" / "6")
            found = run(folder / cache, [*line, "--resume"])
            print(f"{name}: read after {found['read']:.1f} s, and the first step {found['step']:.1f} s after that")


if __name__ == "__main__":
    main()
