"""Check what `python -m build` made: `python .ci/wheel.py DIST`, a folder with one sdist and one wheel.

The wheel holds every file of git under fdiff/ and convert/, the licence and nothing else; so does the sdist, and what a
build needs; the wheel that another build of the working tree makes is the same.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore", "PKG-INFO"}


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel by their names."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def main(dist: Path) -> None:
    """Raise AssertionError for what is missing or too much."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    sources = set(subprocess.check_output(["git", "ls-files", "fdiff", "convert"], cwd=ROOT, text=True).split())
    assert {"fdiff/py.typed", "fdiff/cli/flags.json", "fdiff/cli/tasks.json"} <= sources
    assert "fdiff/checkpoints/digits/model_index.json" in sources
    held = contents(wheel)
    info = wheel.name.split("-py3")[0] + ".dist-info/"
    packages = {name for name in held if not name.startswith(info)}
    assert packages == sources, packages ^ sources
    metadata = message_from_bytes(held[info + "METADATA"])
    for key in ("Name", "Version", "Summary", "Description-Content-Type", "License-Expression", "Requires-Python"):
        assert metadata[key], f"{key} is not said"
    assert metadata["Name"] == "fdiff-jax" and {info + "licenses/LICENSE", info + "entry_points.txt"} <= set(held)
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    assert packed - sources <= BESIDE and sources <= packed, packed ^ sources
    with tempfile.TemporaryDirectory() as again:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", again, str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)
        (direct,) = Path(again).glob("*.whl")
        assert contents(direct) == held, "the sdist and the working tree make different wheels"
    print(f"{wheel.name}: {len(held)} files, {wheel.stat().st_size / 2**20:.1f} MiB; {sdist.name}: {len(packed)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
