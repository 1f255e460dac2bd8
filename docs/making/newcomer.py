"""Do the tasks of docs/newcomer.md as a newcomer does, and keep the minutes: `python -m docs.making.newcomer`.

The project is copied and installed into a virtual environment of its own, as the first task says; each task runs in a
folder of its own, its commands by bash and each block of Python as a script. Only the Hub is a stand-in.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from docs.making.pages import DOCS, ROOT, blocks_of
from docs.making.stand_ins import fill, give
from tests.fake_hub import serving

PAGE = DOCS / "newcomer.md"
MINUTES = Path(__file__).parent / "newcomer.json"
SETTINGS = ("PYTHON", "VIRTUAL_ENV", "JAX_", "XLA_", "HF_", "OMP_")  # which a newcomer has not made
HEADING = re.compile(r"^## (\d+\. .*)$", re.MULTILINE)


def tasks() -> dict[str, str]:
    """The tasks of the page: their headings and what stands under them."""
    parts = HEADING.split(PAGE.read_text())[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def with_minutes(text: str) -> str:
    """The page with the time of each task under its heading, where it was measured."""
    if not MINUTES.exists():
        return text
    measured = json.loads(MINUTES.read_text())

    def said(found: re.Match[str]) -> str:
        minutes, computing = (seconds / 60 for seconds in measured[found[1]])
        return f"{found[0]}\n\n*{minutes:.1f} minutes, {computing:.1f} of them of one core*"

    return HEADING.sub(said, text)


def do(text: str, folder: Path, project: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Do a task; gives its seconds, and those of a processor. Raises RuntimeError where it fails."""
    installs, begun, used = "pip install ." in text, time.monotonic(), _processor()
    give(folder, text)
    begin = f"set -e; source {project}/.venv/bin/activate\n" if not installs else "set -e\n"
    for block in blocks_of(text):
        (folder / "task.py").write_text(block.code)
        command = begin + (block.code if block.kind == "bash" else "python task.py")
        done = subprocess.run(
            ["bash", "-c", command], cwd=project if installs else folder, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"line {block.line} of the task:\n{done.stdout}\n{done.stderr[-4000:]}")
    return round(time.monotonic() - begun, 1), round(_processor() - used, 1)


def _processor() -> float:
    """Seconds of a processor that ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Do all tasks, print their minutes and keep the seconds for the page."""
    found = {}
    with tempfile.TemporaryDirectory() as place, serving() as hub:
        project = Path(place) / "fdiff"
        shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "site", "__pycache__"))
        fill(hub, PAGE.read_text())
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        for title, text in tasks().items():
            folder = Path(place) / f"task-{len(found) + 1}"
            folder.mkdir()
            environment = {**kept, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(Path(place) / "hub")}
            found[title] = do(text, folder, project, environment)
            sys.stdout.write(f"{found[title][0] / 60:6.1f} minutes ({found[title][1] / 60:.1f} of one core)  {title}\n")
            sys.stdout.flush()
    MINUTES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{sum(seconds for seconds, _ in found.values()) / 60:6.1f} minutes in all\n")


if __name__ == "__main__":
    main()
