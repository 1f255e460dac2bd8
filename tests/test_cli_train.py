"""`fdiff train`: options from flags and files, what is seen while it runs, and what is refused in one sentence."""

import json

import numpy as np
import pytest

import fdiff
from fdiff.cli import flags, main

TINY = 'batch-size = 4\nchannels = "8,8"\nsample_every = 0\nsteps = 7\n'


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez(folder / "digits.npz", images=images, labels=np.arange(20) % 3)
    (folder / "tiny.toml").write_text(TINY)
    return folder / "digits.npz"


def test_the_settings_that_are_kept_are_those_of_the_tasks():
    assert json.loads(flags.TASKS.read_text()) == flags.of_tasks(), "python -m fdiff.cli.flags writes them anew"


def test_a_folder_that_draws(digits, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["--data", str(digits), "--output", str(out), "--config", str(digits.with_name("tiny.toml")), "--steps", "3"]
    assert main(["train", "class-conditional", *line]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"wrote {out}\n" and "3/3" in printed.err and "images/s" in printed.err
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3
    pipe, _ = fdiff.DiffusionPipeline.from_pretrained(out)
    assert pipe.labels == ("0", "1", "2") and pipe.unet.block_out_channels == (8, 8)


@pytest.mark.parametrize(("line", "words"), [
    (["lorra"], "no task that can be trained"), (["class-conditonal"], "did you mean class-conditional?"),
    (["unconditional", "--output", "o"], "--data is missing"),
    (["unconditional", "--data", "o"], "--output is missing"),
    (["unconditional", "--data", "o", "--output", "o", "--config", "nowhere.toml"], "nowhere.toml cannot be used"),
])
def test_what_is_refused(line, words, capsys):
    assert main(["train", *line]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("text", "words"), [
    ("steps = ", "is no TOML"), ("step = 3", "has an option step that this task has not"),
    ("steps = 3.5", "steps in {} is 3.5; make it int"), ("flip = 1", "make it bool"), ("size = true", "make it int"),
])
def test_files_that_are_refused(text, words, tmp_path, capsys):
    file = tmp_path / "options.toml"
    file.write_text(text)
    assert main(["train", "unconditional", "--data", "o", "--output", "o", "--config", str(file)]) == 2
    assert words.format(file) in capsys.readouterr().err
