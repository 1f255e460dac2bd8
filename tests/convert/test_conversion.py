"""Repositories and folders written anew: all that an index lists, in the dtype asked for, or one sentence."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import serialization

import fdiff
from convert import safetensors
from fdiff.conversion import convert
from fdiff.image_processors import CLIPImageProcessor
from fdiff.pipelines.components import DIFFUSERS_VERSION
from tests.convert.test_flax_weights import as_flax_had_it
from tests.convert.test_single_file import equal


@pytest.fixture(scope="module")
def complete(tmp_path_factory, reference):
    """A tiny Stable Diffusion with a safety checker, as diffusers lays it out."""
    folder = tmp_path_factory.mktemp("complete") / "sd"
    shutil.copytree(reference / "pipelines" / "sd", folder)
    shutil.copytree(reference / "clip" / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    shutil.copytree(reference / "clip" / "safety_checker", folder / "safety_checker")
    CLIPImageProcessor(size=28, crop_size=28).save_pretrained(folder / "feature_extractor")
    change_index(
        folder,
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPFeatureExtractor"],
        requires_safety_checker=False,
    )
    return folder


@pytest.fixture
def copy(complete, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(complete, tmp_path / "sd"))


def change_index(folder, **entries):
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def index_of(folder):
    return json.loads((folder / "model_index.json").read_text())


def dtypes(folder):
    files = folder.rglob("*.safetensors")
    return {tensor.dtype.name for file in files for tensor in safetensors.read(file).values()}


def test_all_of_a_pipeline_is_kept(complete, tmp_path):
    seen = []
    kind = convert(complete, tmp_path / "out", dtype="float16", progress=lambda *bytes: seen.append(bytes))
    assert kind == "StableDiffusionPipeline"
    before, after = index_of(complete), index_of(tmp_path / "out")
    assert after.pop("_diffusers_version") == DIFFUSERS_VERSION
    before |= {"feature_extractor": ["transformers", "CLIPImageProcessor"]}  # its name of today
    assert after == {name: entry for name, entry in before.items() if name in after}
    assert before.keys() - after.keys() <= {"_diffusers_version", "_name_or_path"}
    assert dtypes(tmp_path / "out") - {"int64"} == {"float16"}
    assert seen[-1][0] == seen[-1][1] == max(done for done, _ in seen)
    asked = {"safety_checker": True, "feature_extractor": True, "dtype": "float16"}
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "out", **asked)
    original, expected = fdiff.DiffusionPipeline.from_pretrained(complete, **asked)
    assert pipe.replace(tokenizer=None) == original.replace(tokenizer=None)
    assert equal(params["unet"], expected["unet"])
    assert equal(params["safety_checker"], expected["safety_checker"])


def test_a_saved_index_is_one_that_diffusers_reads(complete, tmp_path):
    """It says which version wrote it, where diffusers has the safety checker, and whether one is missed."""
    for asked in (None, True):
        pipe, params = fdiff.DiffusionPipeline.from_pretrained(complete, safety_checker=asked)
        pipe.save_pretrained(tmp_path, params)
        index = index_of(tmp_path)
        assert index["_diffusers_version"] == DIFFUSERS_VERSION
        assert index["safety_checker"][0] == ("stable_diffusion" if asked else None)
        assert index["requires_safety_checker"] is bool(asked)


def test_in_place(copy):
    convert(copy, copy, dtype="bfloat16")
    assert dtypes(copy) - {"int64"} == {"bfloat16"}
    assert not list(copy.rglob(".*"))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"vae": [None, None]}, "has no vae, which StableDiffusionPipeline needs; "),
        ({"vae": None}, "has no vae, which StableDiffusionPipeline needs; "),
        ({"vae": ["diffusers"]}, r"_index.json says that vae is \['diffusers'\]; correct it to \[library, class\]"),
        ({"vae": ["diffusers", 3]}, "says that vae is "),
        ({"vae": 3}, "says that vae is 3; correct it"),
        ({"_class_name": 3}, "is a 3, a pipeline that fdiff does not have"),
        ({"vae": ["diffusers", "AutoencoderKLMochi"]}, "needs a AutoencoderKLMochi, which fdiff does not have"),
    ],
)
def test_a_spoilt_index_is_one_sentence(copy, tmp_path, entries, words):
    change_index(copy, **entries)
    for read in (fdiff.DiffusionPipeline.from_pretrained, lambda source: convert(source, tmp_path / "out")):
        with pytest.raises(ValueError, match=words):
            read(copy)
    assert not (tmp_path / "out").exists()


def test_options_of_an_index_that_are_lists_of_numbers(copy, tmp_path):
    """diffusers writes any argument of a pipeline there."""
    change_index(copy, mean=[0.5, 0.5, 0.5], layers=[2, 5], labels={"0": "cat"})
    fdiff.DiffusionPipeline.from_pretrained(copy)
    convert(copy, tmp_path / "out")
    kept = index_of(tmp_path / "out")
    assert (kept["mean"], kept["layers"], kept["labels"]) == ([0.5, 0.5, 0.5], [2, 5], {"0": "cat"})
    change_index(copy, _class_name="Zero123PlusPipeline")
    with pytest.raises(ValueError, match="Zero123PlusPipeline"):
        fdiff.DiffusionPipeline.from_pretrained(copy)


@pytest.mark.parametrize("name", ["vae", "tokenizer", "scheduler", "safety_checker"])
def test_a_folder_that_is_not_there_is_named(copy, tmp_path, name):
    shutil.rmtree(copy / name)
    with pytest.raises(FileNotFoundError, match=f"has no folder {name}, though its model_index.json lists one; "):
        convert(copy, tmp_path / "out")


def test_options_that_mean_nothing_there(complete, tmp_path):
    weights = complete / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ValueError, match="variant is for repositories and folders"):
        convert(weights, tmp_path / "out", variant="fp16")
    with pytest.raises(ValueError, match="ema is for single files; leave it out"):
        convert(complete, tmp_path / "out", ema=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file; name a folder to write"):
        convert(tmp_path / "nowhere", tmp_path / "file")
    with pytest.raises(ValueError, match="the folder to write is empty; name one"):
        convert(complete, "")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        convert(complete, tmp_path / "out", dtype="int8")


def test_a_variant_that_some_components_have(copy, tmp_path):
    plain = copy / "unet" / "diffusion_pytorch_model.safetensors"
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    for options in ({}, {"variant": "bf16"}):
        with pytest.raises(FileNotFoundError, match=r"unet has no diffusion_pytorch|no weights of the variant bf16"):
            fdiff.DiffusionPipeline.from_pretrained(copy, **options)
    _, params = fdiff.DiffusionPipeline.from_pretrained(copy, variant="fp16")
    assert {"unet", "vae", "text_encoder"} <= params.keys()
    convert(copy, tmp_path / "out", variant="fp16")
    assert (tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def flax(file, model, tree):
    """Weights as Flax wrote them, in place of torch's."""
    for old in file.parent.glob("*.safetensors"):
        old.unlink()
    file.write_bytes(serialization.to_bytes(as_flax_had_it(tree, model)))


def test_one_stray_file_of_flax(copy, complete, tmp_path):
    """Beside torch's weights it is not read; alone it is, whatever the others have."""
    (copy / "text_encoder" / "flax_model.msgpack").write_bytes(b"not wanted")
    convert(copy, tmp_path / "torch", dtype="float16")
    assert dtypes(tmp_path / "torch") - {"int64"} == {"float16"}
    _, params = fdiff.DiffusionPipeline.from_pretrained(complete)
    flax(copy / "text_encoder" / "flax_model.msgpack", "text_encoder", params["text_encoder"])
    convert(copy, tmp_path / "mixed")
    _, found = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "mixed")
    assert equal(found["text_encoder"], params["text_encoder"]) and equal(found["unet"], params["unet"])


def test_schedulers_of_flax(copy, tmp_path):
    for name in ("FlaxScheduler", "FlaxNoScheduler"):
        change_index(copy, scheduler=["diffusers", name])
        with pytest.raises(ValueError, match=f"needs a {name}, which fdiff does not have"):
            convert(copy, tmp_path / "out")
    (copy / "model_index.json").unlink()
    (copy / "scheduler_config.json").write_text(json.dumps({"_class_name": "FlaxNoScheduler"}))
    with pytest.raises(ValueError, match="fdiff has no scheduler 'FlaxNoScheduler'"):
        convert(copy, tmp_path / "out")


def test_a_file_with_its_config_beside_it(copy, tmp_path):
    config = copy / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.13025}))
    kinds = {"vae": "AutoencoderKL", "unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}
    for name, kind in kinds.items():
        (file,) = (copy / name).glob("*model.safetensors")
        assert convert(file, tmp_path / name) == kind
        model, tree = getattr(fdiff, kind).from_pretrained(tmp_path / name)
        expected, params = getattr(fdiff, kind).from_pretrained(copy / name)
        assert model == expected and equal(tree, params)
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = file.with_name("some vae.safetensors")
    renamed.write_bytes(file.read_bytes())
    assert fdiff.single_file.load(renamed).models["vae"].scaling_factor == 0.13025
    with pytest.raises(FileNotFoundError, match=r"x\.msgpack"):
        convert(copy / "vae" / "x.msgpack", tmp_path / "out")
    with pytest.raises(ValueError, match="holds a vae alone; load its parts with"):
        fdiff.DiffusionPipeline.from_single_file(copy / "vae" / "diffusion_pytorch_model.safetensors")


def test_terminating_leaves_nothing(complete, tmp_path):
    """SIGTERM while weights are written, as a job scheduler sends it."""
    code = (
        "import os, signal, sys\n"
        "from convert import safetensors\n"
        "safetensors.write = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from fdiff.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "convert", str(complete), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.strip() == "fdiff: interrupted; nothing was written"
    assert not list(tmp_path.iterdir())


@pytest.mark.parity
def test_diffusers_loads_what_is_written(complete, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    convert(complete, tmp_path / "out")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.safety_checker).__name__ == "StableDiffusionSafetyChecker"
    assert not pipe.config.requires_safety_checker
    theirs = pipe.unet.state_dict()["conv_in.weight"].numpy()
    _, params = fdiff.DiffusionPipeline.from_pretrained(complete)
    np.testing.assert_array_equal(theirs.transpose(2, 3, 1, 0), params["unet"]["conv_in"]["kernel"])
    assert jax.tree.leaves(params)
    diffusers.StableDiffusionInpaintPipeline.from_pretrained(tmp_path / "out")
