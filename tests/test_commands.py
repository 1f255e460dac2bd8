"""`fdiff list` and `fdiff completion`, asked as a shell asks; what the command keeps of what JAX compiles."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

import fdiff
from fdiff import cli, hub, registry
from fdiff.cli.commands import keep_compiled
from fdiff.cli.list import KINDS
from fdiff.models import Model
from tests.fake_hub import FakeHub


def printed(capsys, *arguments: str) -> list[str]:
    assert cli.main(["list", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("kind", ["pipelines", "models", "schedulers"])
def test_every_class_is_listed(kind, capsys):
    base = {"pipelines": fdiff.DiffusionPipeline, "models": Model, "schedulers": fdiff.Scheduler}[kind]
    names = [line.split()[0] for line in printed(capsys, kind)]
    assert sorted(names) == sorted({cls.__name__ for _, cls in registry.known(base) if cls is not base})
    assert {"StableDiffusionPipeline", "T5EncoderModel", "DDIMScheduler"} & set(names)


def test_the_command_lists_what_the_functions_list(capsys):
    def names(kind):
        return [line.split()[0] for line in printed(capsys, kind)]

    assert names("schedulers") == [facts.name for facts in fdiff.list_schedulers()]
    assert names("pipelines") == [facts.name for facts in fdiff.list_pipelines()]
    assert names("models") == fdiff.list_models()


def test_checkpoints_are_listed_with_their_size(fake: FakeHub, capsys):
    assert printed(capsys, "cached") == ["none"]
    fake.add("me/toy", {"config.json": b"{}", "notes.json": b" " * 2500})
    hub.load_config("me/toy", "config.json")
    hub.fetch(hub.Source("me/toy"), "notes.json")
    assert printed(capsys, "cached") == ["me/toy  2.5 kB"]
    assert any(line.split()[0] == "digits" and line.endswith("MB") for line in printed(capsys, "shipped"))
    lines = printed(capsys)
    assert [line for line in lines if line.endswith(":")] == [f"{kind}:" for kind in KINDS]
    assert "  me/toy  2.5 kB" in lines


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`fdiff` on the path of a shell."""
    pytest.importorskip("argcomplete")
    script = tmp_path / "bin" / "fdiff"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fdiff "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("HOME", str(tmp_path))


def shell(name: str, *arguments: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    return subprocess.run([name, *arguments], capture_output=True, text=True, check=True).stdout


def test_bash_completes(command):
    ask = (
        'eval "$(fdiff completion bash)"; COMP_TYPE=9; COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=("$@");'
        'COMP_CWORD=$(($# - 1)); function=$(complete -p fdiff | sed "s/.*-F \\([^ ]*\\).*/\\1/");'
        '"$function" fdiff "${!#}"; echo "${COMPREPLY[@]}"'
    )
    assert shell("bash", "-c", ask, "bash", "fdiff", "gen").split() == ["generate"]
    assert "--guidance-scale" in shell("bash", "-c", ask, "bash", "fdiff", "generate", "--gui").split()
    assert "schedulers" in shell("bash", "-c", ask, "bash", "fdiff", "list", "sch").split()


def test_fish_completes(command):
    ask = "fdiff completion fish | source; complete -C"
    assert shell("fish", "-c", f"{ask} 'fdiff gen'").split()[0] == "generate"
    assert "--guidance-scale" in shell("fish", "-c", f"{ask} 'fdiff generate --gui'")


def test_zsh_completes(command):
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    terminal, its_end = pty.openpty()  # for pty.fork would fork JAX's threads
    shell = subprocess.Popen(["zsh", "-f", "-i"], stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True)
    os.close(its_end)
    os.write(terminal, b'PS1=; autoload -Uz compinit; compinit -u; eval "$(fdiff completion zsh)"; print rea""dy\n')
    seen = read_until(terminal, b"ready")
    os.write(terminal, b"fdiff plot-s\t")
    seen = read_until(terminal, b"plot-scheduler")
    os.close(terminal)
    shell.kill()
    shell.wait()
    assert b"plot-scheduler" in seen


def read_until(terminal: int, words: bytes) -> bytes:
    """What a terminal shows until these words, or for a minute."""
    seen, end = b"", time.monotonic() + 60
    while words not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096)
    return seen


def test_completion_needs_its_library(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert cli.main(["completion", "bash"]) == 2
    assert 'pip install "fdiff-jax[completion]"' in capsys.readouterr().err


def test_what_is_compiled_is_kept_unless_told_otherwise(tmp_path, monkeypatch):
    def kept(**environ: str) -> dict[str, str]:
        monkeypatch.setattr(os, "environ", environ)
        keep_compiled()
        return environ

    (tmp_path / "file").write_text("")
    place = "JAX_COMPILATION_CACHE_DIR"
    assert kept(XDG_CACHE_HOME=str(tmp_path / "cache"))[place] == str(tmp_path / "cache" / "fdiff" / "compiled")
    assert place not in kept(XDG_CACHE_HOME=str(tmp_path / "file")), "a place that cannot be written keeps nothing"
    for own in ("", str(tmp_path / "own")):
        assert kept(XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=own)[place] == own
