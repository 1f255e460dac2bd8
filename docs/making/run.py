"""Run the code of a page as a reader would, in a process of its own: `python -m docs.making.run PAGE FOLDER`.

Blocks run in order, Python in one namespace and in FOLDER, where what they write stays. Commands are those of `fdiff`;
lines that set up an environment (pip, venv, export) are left out. The Hub is a stand-in with
tiny checkpoints (`docs/making/stand_ins.py`, `docs/making/task_stand_ins.py`). What each block printed and showed is
written to FOLDER/.outcome.json.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

from docs.making.pages import ROOT, Block, blocks_of, text_of

OUTCOME = ".outcome.json"
SETS_UP = ("pip ", "python -m venv ", "python -m pip ", "source ", "export ", "git clone ", "cd ")
WIDTH = "100"  # of what commands print


def run_page(page: Path, folder: Path, **environment: str) -> dict[str, Any]:
    """Run the page in the folder; gives {"outputs", "pictures"}, one each block. Raises RuntimeError where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"PYTHONPATH": str(ROOT), "COLUMNS": WIDTH, "MPLBACKEND": "Agg", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "docs.making.run", str(page), str(folder)]
    done = subprocess.run(
        command, env={**os.environ, **known, **environment}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{page.name} does not run:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads((folder / OUTCOME).read_text())
    return found


def main(page: Path, folder: Path) -> None:
    """Run the page, with the stand-in for the Hub answering."""
    from docs.making import task_stand_ins
    from docs.making.stand_ins import REPOSITORIES, fill, give
    from tests.fake_hub import serving

    text = text_of(page)
    with serving() as hub:
        os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / ".hub"), "HF_TOKEN": "secret"}
        fill(hub, text, {**REPOSITORIES, **task_stand_ins.REPOSITORIES})
        give(folder, text)
        os.chdir(folder)
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module  # as in a script: classes that the page makes are found there
        outputs, pictures = [], []
        for block in blocks_of(text):
            run = _python if block.kind == "python" else _commands
            printed, shown = run(page, block, module, len(outputs)) if block.runs else ("", [])
            outputs.append(printed)
            pictures.append(shown)
    (folder / OUTCOME).write_text(json.dumps({"outputs": outputs, "pictures": pictures}, indent=1))


def _python(page: Path, block: Block, module: types.ModuleType, number: int) -> tuple[str, list[str]]:
    """What a block of Python prints, and the picture that a notebook's cell shows, where its last line is one."""
    tree = ast.parse("\n" * (block.line - 1) + block.code, str(page))
    last = tree.body.pop() if page.suffix == ".ipynb" and isinstance(tree.body[-1], ast.Expr) else None
    shown: list[str] = []
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            exec(compile(tree, str(page), "exec"), vars(module))
            if last is not None:
                value = eval(compile(ast.Expression(last.value), str(page), "eval"), vars(module))
                if hasattr(value, "save") and hasattr(value, "size"):
                    shown = [f"shown-{number}.png"]
                    value.save(shown[0])
                elif value is not None:
                    sys.stdout.write(f"{value}\n")
        except Exception as error:
            if type(error).__name__ != block.raises:
                raise
            sys.stdout.write(f"{block.raises}: {error}\n")
        else:
            if block.raises:
                raise AssertionError(f"{page}:{block.line} raises no {block.raises}")
    return printed.getvalue(), shown


def _commands(page: Path, block: Block, module: types.ModuleType, number: int) -> tuple[str, list[str]]:
    """What the commands of a block print, each after itself where there are several."""
    lines = [line for line in block.code.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#"]
    lines = [line for line in lines if not line.startswith(SETS_UP)]
    said = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:3] == ["python", "-m", "fdiff"]:
            words = ["fdiff", *words[3:]]
        if words[0] != "fdiff":
            raise AssertionError(f"{page}:{block.line}: {line!r} is no command of fdiff; say why it is not run")
        output = _command(words[1:], refused=block.title == "refused")
        if output.strip():
            said.append(f"$ {' '.join(line.split())}\n{output}" if len(lines) > 1 else output)
    return "\n".join(said), []


def _command(arguments: list[str], refused: bool) -> str:
    """What `fdiff ...` prints. Raises AssertionError where it fails and should not, or the other way round."""
    from fdiff.cli import main

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code: Any = main(arguments)
        except SystemExit as stop:  # of argparse
            code = stop.code or 0
    if bool(code) != refused:
        raise AssertionError(f"fdiff {' '.join(arguments)} ends with {code}: {errors.getvalue()[-2000:]}")
    return errors.getvalue() if refused else out.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
