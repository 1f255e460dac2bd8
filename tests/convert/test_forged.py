"""No file asks for more time or memory than its size explains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("first", "every", "least"),
    [pytest.param(1, 14, 5, id="some"), pytest.param(0, 1, 70, id="all", marks=pytest.mark.fuzz)],
)
def test_time_and_memory_of_forged_files(tmp_path, first, every, least):
    """Each is answered with 300 MB above twice its size, and in 10 s of its own time; the table says in what."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.convert.forged", str(tmp_path), str(first), str(every)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for one in found:
        size, memory = one["size"] / 1e6, one["memory"] / 1e6
        print(f"{one['name']:40} {size:6.1f} MB, took {memory:6.1f} MB {one['seconds']:4.1f} s: {one['ended'][:40]}")
    assert len(found) >= least
    for one in found:
        right = one["ended"] == "loaded" or one["ended"].split(":")[0] in ("ValueError", "FileNotFoundError", "OSError")
        assert right and one["ended"].count("\n") == 0, one
        assert one["memory"] <= 300e6 + 2 * one["size"], one
        assert one["seconds"] <= 10 or every > 1, one  # the ordinary tests do not depend on the machine
        assert not one["name"].startswith("valid") or one["ended"] == "loaded", one
