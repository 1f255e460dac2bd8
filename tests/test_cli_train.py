"""`fdiff train`: options from flags and files, what is seen while it runs, and what is refused in one sentence."""

import contextlib
import io
import json
import os
import resource
import shlex
import signal
import tomllib

import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff import bars
from fdiff.cli import flags, main

TINY = 'batch-size = 4\nchannels = "8"\nsample_every = 0\nsteps = 7\n'


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez(folder / "digits.npz", images=images, labels=np.arange(20) % 3)
    (folder / "tiny.toml").write_text(TINY)
    return folder / "digits.npz"


def test_the_settings_that_are_kept_are_those_of_the_tasks():
    assert json.loads(flags.TASKS.read_text()) == flags.of_tasks(), "python -m fdiff.cli.flags writes them anew"


def line(digits, out, *more):
    return ["train", "class-conditional", "--data", str(digits), "--output", str(out), *more]


@pytest.fixture(scope="module")
def stopped(digits, tmp_path_factory):
    """A training of seven steps that Ctrl-C stopped after the third: its folder, and what it printed last."""
    out, patch = tmp_path_factory.mktemp("stopped") / "out", pytest.MonkeyPatch()

    presses = iter([signal.SIGINT])

    class Bar(contextlib.nullcontext):
        def __getattr__(self, name):
            return lambda *_, **__: [os.kill(os.getpid(), one) for one in presses] if name == "update" else None

    patch.setattr(bars, "bar", lambda **_: Bar(Bar()))
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        tiny = str(digits.with_name("tiny.toml"))
        assert main(line(digits, out, "--config", tiny, "--tensorboard", "--sample-every", "7")) == 130
    patch.undo()
    return out, printed.getvalue()


def test_stopping_saves_and_says_how_to_go_on(digits, stopped):
    out, printed = stopped
    done = len((out / "metrics.jsonl").read_text().splitlines())
    assert 2 <= done <= 4 and not (out / "model_index.json").exists()
    assert f"fdiff: stopped after step {done}, which is saved; {shlex.join(['fdiff', *line(digits, out)])} --resume" \
        in printed


def test_resuming_takes_the_options_that_it_was_begun_with(digits, stopped, capsys):
    out, _ = stopped
    assert main(line(digits, out, "--resume", "--channels", "8,16")) == 2
    assert "--channels is '8,16', and the training in" in capsys.readouterr().err
    full = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, full[1]))  # as a disk that has no room for a checkpoint
    try:
        assert main(line(digits, out, "--resume")) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, full)
    assert f"fdiff: {out} cannot be written (File too large); make room" in capsys.readouterr().err.splitlines()[-1]
    assert main(line(digits, out, "--resume", "--steps", "8", "--samples", "1")) == 0
    printed = capsys.readouterr()
    assert printed.out == f"wrote {out}\n" and "8/8" in printed.err and "images/s" in printed.err
    lines = [json.loads(one) for one in (out / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines] == list(range(1, 9))
    settings = tomllib.loads((out / "settings.toml").read_text())
    assert (settings["steps"], settings["channels"], settings["batch_size"]) == (8, "8", 4)
    pipe, _ = fdiff.DiffusionPipeline.from_pretrained(out)
    assert pipe.labels == ("0", "1", "2") and pipe.unet.block_out_channels == (8,)
    events = b"".join(file.read_bytes() for file in (out / "tensorboard").iterdir())
    assert all(word in events for word in (b"loss", b"images_per_second", b"samples", b"PNG"))
    np.savez(out.with_name("more.npz"), images=np.zeros((20, 8, 8), np.uint8), labels=np.arange(20) % 5)
    assert main(line(out.with_name("more.npz"), out, "--resume")) == 2
    assert "is of another network or optimizer: " in capsys.readouterr().err
    assert main(line(digits, out)) == 2
    assert "holds a training already; give --resume" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "words"), [
    (["lorra"], "no task that can be trained"), (["class-conditonal"], "did you mean class-conditional?"),
    (["unconditional", "--output", "o"], "--data is missing"),
    (["unconditional", "--data", "o"], "--output is missing"),
    (["unconditional", "--data", "o", "--output", "o", "--config", "nowhere.toml"], "nowhere.toml cannot be used"),
    (["unconditional", "--data", "o", "--output", "o", "--steps", "0"], "--steps is 0; it must be 1 or more"),
    (["unconditional", "--data", "o", "--output", "o", "--clip", "inf"], "--clip is inf; give a finite"),
    (["unconditional", "--data", "o", "--output", "o", "--resume"], "o holds no training to resume"),
    (["unconditional", "--data", "o", "--output", "o"], "o is not there"),
    (["unconditional", "--data", "o", "--output", "/dev/null"], "--output /dev/null is a file already"),
])
def test_what_is_refused(line, words, capsys):
    assert main(["train", *line]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("text", "words"), [
    ("steps = ", "is no TOML"), ("step = 3", "has an option step, which this task has not"),
    ("steps = 3.5", "steps in {} is 3.5; make it int"),
    ("dtype = 'half'", "dtype in {} is 'half'; it can be"),
    ("flip = 1", "make it bool"), ("size = true", "make it int"),
])
def test_files_that_are_refused(text, words, tmp_path, capsys):
    file = tmp_path / "options.toml"
    file.write_text(text)
    assert main(["train", "unconditional", "--data", "o", "--output", "o", "--config", str(file)]) == 2
    assert words.format(file) in capsys.readouterr().err


@pytest.mark.parametrize(("make", "words"), [
    (lambda folder: folder, "holds no pictures; it must hold .png"),
    (lambda folder: (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}') and folder,
     "line 1, names a.png, which is not there; add the picture or remove the line"),
    (lambda folder: np.savez(folder / "a.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.array([0, 10**6])) or
     folder / "a.npz", "labels picture 1 with 1000000, which is out of range"),
    (lambda folder: [Image.new("L", (8, 8 + 8 * i)).save(folder / f"{i}.png") for i in range(2)] and folder,
     "the pictures have several sizes, such as 8x8 and 16x8; give --size"),
], ids=["an empty folder", "a caption without a picture", "labels out of range", "several sizes"])
def test_data_that_is_refused(make, words, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    place, out = make(tmp_path / "data"), tmp_path / "out"
    tiny = ["--channels", "8", "--batch-size", "2", "--sample-every", "0"]
    assert main(["train", "unconditional", "--data", str(place), "--output", str(out), *tiny]) == 2
    assert words in capsys.readouterr().err and not (out / "model_index.json").exists()
