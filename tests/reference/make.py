"""Write the reference files with torch, diffusers and transformers: `python tests/reference/make.py [SUBJECT ...]`.

Each `make_<subject>.py` beside this file has `make(folder)`, which fills `tests/reference/<subject>/`.
"""

import importlib
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(subjects: list[str]) -> None:
    """Make the named subjects, or all of them."""
    sys.path.insert(0, str(HERE))
    for script in sorted(HERE.glob("make_*.py")):
        subject = script.stem.removeprefix("make_")
        if not subjects or subject in subjects:
            folder = HERE / subject
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            importlib.import_module(script.stem).make(folder)
            print(f"{subject}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
