"""Runs the sides of a case in turn, each in a process of its own that waits while others run."""

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.case import Case, Setting, resident

ROOT = Path(__file__).parents[2]
LIMIT = 600  # seconds that compiling may take
TRIES, CALM = 2, 0.05  # how often a turn is tried until others take less than this share of the processors
LONGEST = 5.0  # seconds of a turn that is tried once
LONG = 0.3  # seconds of a turn: what is shorter is run several times, of which the median counts


def child(case: Case, side: str, setting: Setting) -> None:
    """Be a side: say what beginning took, then for each line that comes in run and say the seconds; then the rest."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print

    def say(**what: Any) -> None:
        print(json.dumps(what), file=said, flush=True)

    if side == "before":
        assert case.before
        case.before(setting)
        return
    ready = case.sides[side](setting)
    _forget()
    start = time.perf_counter()
    run = ready.begin()
    begun = time.perf_counter() - start
    output, once = _timed(run)
    if not isinstance(output, float):
        np.save(setting.folder / f"{side}.npy", np.asarray(output, np.float32))
        del output
    say(begun=begun)
    calls = max(1, int(LONG / max(once, 1e-9)))
    for _ in sys.stdin:
        say(seconds=statistics.median(_timed(run)[1] for _ in range(calls)))
    children = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    say(peak=max(resident("VmHWM"), children), operations=ready.count() if ready.count else None)


def _timed(run: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    output = run()
    return output, output if isinstance(output, float) else time.perf_counter() - start


def _forget() -> None:
    """Let the peak of memory begin anew, after what making the weights took."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Failed(Exception):
    """Why a side has no figure."""


class Side:
    """A side's process, as its parent sees it."""

    def __init__(self, case: str, side: str, setting: Setting, beside: str | None) -> None:
        self.name, self.errors = side, setting.folder / f"{side}.log"
        line = [sys.executable, "-m", "tests.benchmarks", case, "--side", side, "--folder", str(setting.folder)]
        line += ["--small"] * setting.small + (["--from", beside] if beside else [])
        with self.errors.open("w") as log:
            self.process = subprocess.Popen(
                line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def said(self, limit: float) -> dict[str, Any]:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], limit)[0]:
            raise Failed(f"did not finish in {limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            lines = self.errors.read_text(errors="replace").strip().splitlines() or [""]
            raise Failed(f"ended with {self.process.wait()}: {lines[-1][:200]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def begin(self) -> float:
        return float(self.said(LIMIT)["begun"])

    def turn(self) -> tuple[float, float]:
        """(what others took of the processors meanwhile, seconds), of the calmest of a few turns."""
        turns: list[tuple[float, float]] = []
        while len(turns) < TRIES and not (turns and turns[-1][0] < CALM):
            start, busy, own = time.perf_counter(), _busy(), self.own()
            assert self.process.stdin
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            found = float(self.said(LIMIT)["seconds"])
            others = (_busy() - busy) - (self.own() - own)
            turns.append((others / (os.cpu_count() or 1) / (time.perf_counter() - start), found))
            if found > LONGEST:
                break
        return min(turns)

    def own(self) -> float:
        """Seconds that the processors worked for this side."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.close()
        found = self.said(LIMIT)
        self.process.wait()
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def measured(
    case: Case, sides: list[str], rounds: int, small: bool, beside: str | None, root: Path | None = None
) -> dict[str, Any]:
    """What the sides of a case took: for each, medians and every turn, or why it has none."""
    with tempfile.TemporaryDirectory(dir=root) as temporary:
        setting = Setting(small, Path(temporary))
        if case.before:
            Side(case.name, "before", setting, None).process.wait()
        found: dict[str, dict[str, Any]] = {side: {} for side in sides}
        together = small or _free() > 1.1 * case.gigabytes * len(sides) * 2**30
        if together:
            _rounds(case, sides, rounds, setting, beside, found)
        else:  # one after the other, forth and back, so that what changes on the machine falls on all
            for turn, order in enumerate((sides, sides[::-1])):
                for side in order:
                    if "failed" not in found[side]:
                        _rounds(case, [side], (rounds + 1 - turn) // 2, setting, beside, found)
        for side in found.values():
            if side.get("turns"):
                side["seconds"] = statistics.median(side["turns"])
        _compare(found, setting.folder)
    return {"about": case.about, "wanted": case.wanted, "together": together, "sides": found}


def _rounds(
    case: Case, sides: list[str], rounds: int, setting: Setting, beside: str | None,
    found: dict[str, dict[str, Any]],
) -> None:  # fmt: skip
    """Add the turns of some sides that are in memory beside each other."""
    with contextlib.ExitStack() as stack:
        running: list[Side] = []
        for side in sides:
            with _noted(found[side]):
                started = Side(case.name, side.removesuffix("@"), setting, beside if side.endswith("@") else None)
                stack.callback(started.stop)
                found[side].setdefault("begun", []).append(started.begin())
                running.append(started)
                started.name = side
        for _ in range(rounds):
            for side in running:
                with _noted(found[side.name]):
                    others, took = side.turn()
                    found[side.name].setdefault("turns", []).append(took)
                    found[side.name].setdefault("others", []).append(others)
        for side in running:
            if "failed" not in found[side.name]:
                with _noted(found[side.name]):
                    found[side.name] |= side.end()


@contextlib.contextmanager
def _noted(side: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except (Failed, OSError) as error:
        side["failed"] = str(error)
        side.pop("turns", None)


def _busy() -> float:
    """Seconds that the processors worked for anything at all."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _free() -> int:
    """Bytes of memory that are free."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return 1024 * int(line.split()[1])


def _compare(found: dict[str, dict[str, Any]], folder: Path) -> None:
    """Note how far each side's output is from torch's, over the largest value."""
    outputs = {side: folder / f"{side.removesuffix('@')}.npy" for side in found}
    if "torch" not in found or not outputs["torch"].exists():
        return
    expected = np.load(outputs["torch"])
    for side, file in outputs.items():
        if side != "torch" and "turns" in found[side] and file.exists():
            output = np.load(file)
            found[side]["apart"] = float(np.abs(output - expected).max() / np.abs(expected).max())
