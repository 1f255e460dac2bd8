"""Starting: a command line is read, and refused, before JAX is imported; `import fdiff` is complete all the same."""

import json
import subprocess
import sys

import pytest

import fdiff
from fdiff.cli import commands, flags


def fresh(code: str, *arguments: str) -> str:
    """What a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_flags_that_are_kept_are_those_of_the_requests():
    assert json.loads(flags.FILE.read_text()) == flags.of_requests(), "python -m fdiff.cli.flags writes them anew"


LINES = [
    ["--help"], ["--version"], ["--nothing"], ["paint"], ["generate", "--help"], ["generate", "--nothing"],
    ["generate", "--steps", "0"], ["generate", "--steps", "many"], ["generate", "a cat in a hat"],
    ["generate", "--image", "nowhere.png"], ["generate", "nowhere/at/all"], ["generate", "--out", "picture.txt"],
    ["plot-scheduler", "DDIM", "--steps", "0"], ["plot-scheduler", "DDIM", "--out", "picture.txt"],
    ["train", "--help"], ["train", "unconditional", "--help"], ["train", "lorra"],
    ["train", "unconditional", "--data", "nowhere", "--output", "o", "--steps", "0"],
    ["train", "unconditional", "--data", "nowhere", "--output", "o"],
    ["inspect", "nowhere/at/all"], ["convert", "nowhere/at/all", "folder"],
]  # fmt: skip


@pytest.fixture(scope="module")
def imported():
    """What of JAX is imported once each of the lines was read, in one new interpreter."""
    code = (
        "import contextlib, json, sys\n"
        "from fdiff.cli import main\n"
        "found = {}\n"
        "for line in json.loads(sys.argv.pop()):\n"
        "    sys.argv = ['fdiff', *line]\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        assert main() == 2\n"
        "    found[' '.join(line)] = [name for name in ('jax', 'flax', 'optax', 'scipy') if name in sys.modules]\n"
        "print(json.dumps(found))"
    )
    return json.loads(fresh(code, json.dumps(LINES)).splitlines()[-1])


@pytest.mark.parametrize("arguments", LINES, ids=" ".join)
def test_a_command_line_is_read_before_jax_is_imported(arguments, imported):
    assert imported[" ".join(arguments)] == []


@pytest.mark.parametrize(
    "line",
    [["m", "a cat", "--steps", "5"], ["m", "--steps", "5", "a cat"], ["--steps", "5", "m", "a cat"],
     ["--steps", "5", "m", "--any-memory", "a cat"]],
    ids=" ".join,
)  # fmt: skip
def test_model_and_prompt_may_stand_anywhere(line, monkeypatch):
    seen = []
    monkeypatch.setattr(commands, "generate", seen.append)
    assert commands.main(["generate", *line]) == 0
    assert (seen[0].model, seen[0].prompt, seen[0].steps) == ("m", "a cat", 5)


@pytest.mark.parametrize(
    ("line", "left"),
    [(["generate", "m", "--steps", "5", "a", "cat"], "a cat"), (["generate", "m", "a", "--steps", "5", "cat"], "cat"),
     (["generate", "m", "--nothing"], "--nothing"), (["generate", "m", "--nothing", "a"], "--nothing a"),
     (["list", "models", "a"], "a"), (["inspect", "m", "a"], "a")],
)  # fmt: skip
def test_other_words_are_refused(line, left, capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main(line)
    assert stop.value.code == 2 and f"unrecognized arguments: {left}\n" in capsys.readouterr().err


def test_the_package_knows_its_names_before_and_after_they_are_asked_for():
    code = (
        "import sys, fdiff; assert 'jax' not in sys.modules\n"
        "first = dir(fdiff)\n"
        "from fdiff import *\n"
        "assert sample is fdiff.sample and models is fdiff.models and DDIMScheduler is fdiff.schedulers.DDIMScheduler\n"
        "assert {*fdiff.__all__, '__version__'} <= set(first) and set(first) <= set(dir(fdiff))\n"
        "print(fdiff.images.__name__, fdiff.plan.__name__, hasattr(fdiff, 'nothing'))"
    )
    assert fresh(code) == "fdiff.images fdiff.plan False\n"
    assert all(getattr(fdiff, name) is not None for name in fdiff.__all__)


@pytest.mark.parametrize("module", ["fdiff.plan", "fdiff.schedulers.ddim", "fdiff.pipelines.task", "fdiff.registry"])
def test_a_module_may_be_imported_first(module):
    code = f"import {module}, fdiff; print(fdiff.DiffusionPipeline.__name__)"
    assert fresh(code) == "DiffusionPipeline\n"
