"""The command: pictures, tables, conversions; bad input is one sentence and exit code 2, with nothing written."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main


@pytest.fixture(scope="module")
def cats(tmp_path_factory):
    """A tiny class-conditional pipeline on disk."""
    unet = fdiff.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4, attention_head_dim=4,
        num_class_embeds=3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "cats"
    pipe = fdiff.ClassConditionalPipeline(unet, fdiff.DDIMScheduler(), ("cat", "dog"), num_inference_steps=3)
    pipe.save_pretrained(folder, {"unet": unet.init_params(jax.random.key(0))})
    return folder


def test_generate_a_sheet_and_an_animation(cats, tmp_path):
    out, gif = tmp_path / "sheet.png", tmp_path / "run.gif"
    options = ["--num-images", "4", "--steps", "2", "--out", str(out), "--animate", str(gif)]
    assert main(["generate", str(cats), *options]) == 0
    with Image.open(out) as sheet, Image.open(gif) as run:
        assert sheet.size == (132, 162) and sheet.mode == "RGB"
        assert run.n_frames == 2 and run.size == sheet.size


@pytest.mark.parametrize("allocate", [lambda: np.ones(2**50), lambda: jax.numpy.ones(2**46)], ids=["numpy", "xla"])
def test_memory_that_is_not_there(monkeypatch, capsys, allocate):
    monkeypatch.setattr("fdiff.cli.list.listing", lambda kind: allocate())
    assert main(["list"]) == 2
    assert capsys.readouterr().err.startswith("fdiff: there is too little memory (")


def test_generate_a_folder_with_options(cats, tmp_path):
    out = tmp_path / "pictures"
    arguments = ["generate", str(cats), "--class", "dog,cat", "--num-images", "3", "--seed", "5", "--out", str(out)]
    assert main([*arguments, "--scheduler", "Euler", "--guidance-scale", "2", "--dtype", "bfloat16"]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["00000.png", "00001.png", "00002.png"]


def test_the_same_seed_is_the_same_picture(cats, tmp_path):
    def draw(name, *options):
        main(["generate", str(cats), "--class", "cat", "--steps", "2", "--out", str(tmp_path / name), *options])
        return np.asarray(Image.open(tmp_path / name))

    one = draw("a.png")
    assert np.array_equal(one, draw("b.png"))
    assert np.array_equal(one, draw("all.png", "--cache", "taylor:1"))
    assert not np.array_equal(one, draw("c.png", "--seed", "1"))


def test_the_shipped_digits(tmp_path):
    out = tmp_path / "digits.png"
    assert main(["generate", "--num-images", "2", "--steps", "2", "--out", str(out)]) == 0
    assert Image.open(out).size == (132, 79)
    named = tmp_path / "named.png"
    assert main(["generate", "mnist", "--num-images", "2", "--steps", "2", "--out", str(named)]) == 0
    assert named.read_bytes() == out.read_bytes()


def test_inspect(cats, capsys):
    assert main(["inspect", str(cats)]) == 0
    printed = capsys.readouterr().out
    _, params = fdiff.DiffusionPipeline.from_pretrained(cats)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert f"{count:,} parameters" in printed and "float32" in printed and "DDIMScheduler" in printed
    assert '"epsilon"' in printed
    for part in ("unet", "scheduler"):
        assert main(["inspect", str(cats / part)]) == 0


def test_plot_scheduler(cats, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "plot.png"
    names = ["EulerDiscreteScheduler", "ddim", str(cats / "scheduler")]
    assert main(["plot-scheduler", *names, "--steps", "5", "--out", str(out)]) == 0
    assert np.asarray(Image.open(out).convert("L")).std() > 5


def test_convert(cats, tmp_path, capsys):
    out = tmp_path / "half"
    assert main(["convert", str(cats), str(out), "--dtype", "float16"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"wrote {out} (ClassConditionalPipeline)\n" and "writing: 100%" in printed.err
    pipe, params = fdiff.ClassConditionalPipeline.from_pretrained(out, dtype=None)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float16"}
    original, _ = fdiff.ClassConditionalPipeline.from_pretrained(cats)
    assert pipe == original
    assert main(["convert", str(cats / "unet"), str(tmp_path / "unet")]) == 0
    assert (tmp_path / "unet" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "{cats}", "--class", "bird"], "no class 'bird'"),
        (["generate", "{cats}", "--steps", "0"], "--steps is 0"),
        (["generate", "{cats}", "--steps", "5000"], "1000"),
        (["generate", "{cats}", "--cache", "tea:3"], "it must be such as deep:3"),
        (["generate", "{cats}", "--num-images", "-1"], "--num-images is -1"),
        (["generate", "{cats}", "a prompt"], "PROMPT means nothing"),
        (["generate", "{cats}", "--scheduler", "Eular"], "EulerDiscreteScheduler"),
        (["generate", "{cats}", "--out", "{tmp}/picture.txt"], "picture.txt"),
        (["generate", "{cats}", "--animate", "{tmp}/run.mp4"], "GIF"),
        (["generate", "{tmp}/nowhere"], "nowhere"),
        (["generate", "a cat in a hat"], 'say fdiff generate MODEL "a cat in a hat"'),
        (["generate", "--image", "{tmp}/no.png"], "no.png is not there; check its name"),
        (["generate", "{cats}", "--out", "{tmp}/picture.psd"], "picture.psd does not end like a picture"),
        (["generate", "{cats}", "--out", "{tmp}/picture.h5"], "picture.h5 does not end like a picture"),
        (["generate", "{cats}", "--out", "{tmp}/a.mp3"], "a.mp3 ends in .mp3, which is not written; call a sound"),
        (["generate", "{cats}", "--out", "{tmp}/a.pdb"], "a.pdb ends in .pdb, which is not written; call molecules"),
        (["generate", "{cats}", "--audio", "{tmp}/a.wav"], "a.wav is not there; check its name"),
        (["generate", "{cats}", "--seconds", "nan"], "--seconds is nan; give a finite number"),
        (["generate", "{cats}", "--out", ""], "--out is empty"),
        (["generate", "{cats}", "--lora", "{tmp}/a:abc"], "the scale is 'abc'; it must be a number"),
        (["generate", "{cats}", "--lora", "{tmp}/a.safetensors"], "is not there"),
        (["generate", "{cats}", "--scheduler", ""], "--scheduler is empty"),
        (["generate", "{cats}", "--seed", "9" * 23], "--seed is 9"),
        (["generate", "{cats}", "--out", "/proc/picture.png"], "--out /proc/picture.png cannot be written"),
        (["generate", "{cats}", "--animate", "/proc/run.gif"], "--animate /proc/run.gif cannot be written"),
        (["generate", "{cats}", "--out", "{cats}/unet/config.json/a.png"], "cannot be written"),
        (["generate", "{cats}", "--out", "{tmp}/a.gif", "--animate", "{tmp}/a.gif"], "give them two names"),
        (["generate", "{cats}", "--strength", "0.5"], "--strength is of no use alone; add --image"),
        (["generate", "{cats}", "--scheduler", "FlowMatchEulerDiscrete"], "was trained on betas; choose one like that"),
        (["generate", "{cats}", "--scheduler", "DDIMInverse"], "runs from a picture to noise"),
        (["generate", "{cats}", "--class", "²"], "no class '²'"),
        (["inspect", "{tmp}/nowhere"], "nowhere"),
        (["inspect", "{tmp}"], "model_index.json"),
        (["convert", "{tmp}/nowhere", "{tmp}/out"], "nowhere"),
        (["convert", "{cats}", "{tmp}/bad.json"], "bad.json is a file; name a folder"),
        (["convert", "{cats}", "{tmp}/out", "--prediction-type", "epsilon"], "prediction_type is for single files"),
        (["convert", "{cats}", "{tmp}/out", "--ema"], "ema is for single files"),
        (["convert", "{cats}/unet/diffusion_pytorch_model.safetensors", "{tmp}/out", "--variant", "fp16"], "variant"),
        (["plot-scheduler", "DDIM", "--steps", "0", "--out", "{tmp}/plot.png"], "--steps is 0"),
        (["plot-scheduler", "{tmp}/bad.json", "--out", "{tmp}/plot.png"], "bad.json"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, cats, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    arguments = [argument.format(cats=cats, tmp=tmp_path) for argument in arguments]
    assert main(arguments) == 2
    printed = capsys.readouterr().err.strip()
    error = printed.split("\n")[-1]
    assert error.startswith("fdiff: ") and words in error and "Traceback" not in error
    assert "writing" not in printed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.json"]


def test_damaged_checkpoints(cats, tmp_path, capsys):
    import shutil

    def broken(change):
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(cats, folder)
        change(folder)
        assert main(["generate", str(folder), "--out", str(tmp_path / "out.png")]) == 2
        assert not (tmp_path / "out.png").exists()
        return capsys.readouterr().err.strip().split("\n")[-1]

    weights = "unet/diffusion_pytorch_model.safetensors"

    def edit(file, **options):
        def change(folder):
            config = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps({**config, **options}))

        return change

    assert "safetensors" in broken(lambda folder: (folder / weights).unlink())
    assert weights.split("/")[1] in broken(lambda folder: (folder / weights).write_bytes(b"\x00" * 20))
    data = (cats / weights).read_bytes()
    assert weights.split("/")[1] in broken(lambda folder: (folder / weights).write_bytes(data[:-10]))
    assert "shape" in broken(edit("unet/config.json", num_class_embeds=5))
    assert "SomethingNew" in broken(edit("model_index.json", _class_name="SomethingNew"))
    assert "karas" in broken(edit("scheduler/scheduler_config.json", use_karas_sigmas=True))
    assert "model_index.json" in broken(lambda folder: (folder / "model_index.json").write_text("no"))


def test_help_has_examples(capsys):
    for command in ([], ["generate"], ["inspect"], ["plot-scheduler"], ["convert"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0 and "examples:" in capsys.readouterr().out
