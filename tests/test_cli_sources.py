"""What `fdiff generate` takes models and additions from, and what cannot work, each in one sentence."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff import images
from fdiff.adapters import ip_adapter, lora, textual_inversion
from fdiff.cli import main
from tests import cli_models

QUICK = ["--steps", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def model(tmp_path_factory, reference):
    return cli_models.stable_diffusion(tmp_path_factory.mktemp("models"), reference)


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    return cli_models.added(tmp_path_factory.mktemp("files"), model)


@pytest.fixture
def draw(model, tmp_path):
    """What the command draws of the model, as an array."""

    def run(*options, source=model):
        out = tmp_path / "out.png"
        assert main(["generate", str(source), *options, *QUICK, "--out", str(out)]) == 0
        return np.asarray(Image.open(out))

    return run


def drawn(pipe, params, *args, **options):
    """What the library draws with the options that `draw` gives."""
    run = {"key": jax.random.key(3), "num_inference_steps": 2, "progress": False, **options}
    return np.asarray(images.enlarge(pipe(params, *args, **run).images[0], 64))


def test_a_prompt_as_an_option(draw, model):
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(model)
    wanted = drawn(pipe, params, "a (red:1.5) cat", weighted=True)
    np.testing.assert_array_equal(draw("--prompt", "a (red:1.5) cat", "--weighted"), wanted)
    assert not np.array_equal(draw("a (red:1.5) cat"), wanted)


def test_several_loras_and_words(draw, model, files):
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(model)
    pipe, params = textual_inversion.add(pipe, params, textual_inversion.load(files["word"], "<mine>"))
    pipe, params = textual_inversion.add(pipe, params, textual_inversion.load(files["word"]))
    style = lora.load(files["lora"], params)
    merged, _ = lora.merge(params, (style, 0.25), (style, 1.0))
    words = ["--textual-inversion", files["word"] + ":<mine>", "--textual-inversion", files["word"]]
    found = draw("a <cat> and <mine>", "--lora", files["lora"] + ":0.25", "--lora", files["lora"], *words)
    np.testing.assert_array_equal(found, drawn(pipe, merged, "a <cat> and <mine>"))


def test_a_picture_as_a_prompt(draw, model, files):
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(model)
    folder = files["eyes"].rpartition("/")[0] + "/image_encoder"
    encoder, tree = fdiff.CLIPVisionModelWithProjection.from_pretrained(folder, dtype="float32")
    adapter = ip_adapter.load(files["eyes"], params["unet"], dtype="float32")
    wanted = drawn(
        pipe.replace(image_encoder=encoder), {**params, "image_encoder": tree}, "a cat", ip_adapter=adapter,
        ip_adapter_image=Image.open(files["photo"]), ip_adapter_scale=0.5,
    )  # fmt: skip
    options = ["a cat", "--ip-adapter-image", files["photo"], "--ip-adapter"]
    np.testing.assert_array_equal(draw(*options, files["eyes"] + ":0.5"), wanted)
    np.testing.assert_array_equal(draw(*options, files["eyes"] + ":0.5", "--image-encoder", folder), wanted)
    assert not np.array_equal(draw(*options, files["eyes"]), wanted)


@pytest.mark.parametrize("more", [{}, {"image": "photo"}, {"image": "photo", "mask": "mask"}])
def test_a_controlnet_steers_whatever_is_drawn(draw, model, files, reference, more):
    source = reference / "pipelines" / "controlnet"
    net, tree = fdiff.ControlNetModel.from_pretrained(source, dtype="float32")
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(model)
    name = {0: "", 1: "Img2Img", 2: "Inpaint"}[len(more)]
    cls = getattr(fdiff, f"StableDiffusionControlNet{name}Pipeline")
    pictures = {("mask_image" if key == "mask" else key): Image.open(files[value]) for key, value in more.items()}
    pictures["control_image" if more else "image"] = Image.open(files["edges"])
    wanted = drawn(cls.from_pipe(pipe, controlnet=net), {**params, "controlnet": tree}, "a cat", **pictures)
    given = [part for key, value in more.items() for part in (f"--{key}", files[value])]
    found = draw("a cat", "--controlnet", str(source), "--control-image", files["edges"], *given)
    np.testing.assert_array_equal(found, wanted)


def test_a_saved_pipeline_with_a_controlnet(draw, model, files, reference, tmp_path):
    source = reference / "pipelines" / "controlnet"
    net, tree = fdiff.ControlNetModel.from_pretrained(source)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(model)
    steered = fdiff.StableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=net)
    steered.save_pretrained(tmp_path / "steered", {**params, "controlnet": tree})
    options = ["a cat", "--control-image", files["edges"]]
    found = draw(*options, source=tmp_path / "steered")
    np.testing.assert_array_equal(found, draw(*options, "--controlnet", str(source)))


def test_the_painted_part_is_put_into_the_picture(draw, files):
    Image.open(files["photo"]).resize((64, 64)).save(files["photo"].replace("photo", "large"))
    Image.open(files["mask"]).resize((64, 64)).save(files["mask"].replace("mask", "hole"))
    large, hole = files["photo"].replace("photo", "large"), files["mask"].replace("mask", "hole")
    size = ["--height", "32", "--width", "32", "--padding-mask-crop", "2"]
    found = draw("a cat", "--image", large, "--mask", hole, *size)
    assert found.shape == (64, 64, 3)
    np.testing.assert_array_equal(found[:8], np.asarray(Image.open(large))[:8])


def test_one_file(draw, model, tmp_path):
    """The same pictures as of the folder; the configs are told, since no model that is known is as small."""
    file = cli_models.one_file(tmp_path / "squares.safetensors", model)
    wanted = draw("a cat")
    np.testing.assert_array_equal(draw("a cat", "--config", str(model), source=file), wanted)
    np.testing.assert_array_equal(
        draw("a cat", "--config", str(model), "--tokenizer", str(model), source=file), wanted)  # fmt: skip


def test_inspecting_one_file(reference, capsys):
    folder = reference / "single_file"
    assert main(["inspect", str(folder / "tiny.ckpt"), "--config", str(folder / "configs")]) == 0
    printed = capsys.readouterr().out
    _, params = fdiff.DiffusionPipeline.from_single_file(
        folder / "tiny.ckpt", config=folder / "configs", tokenizer=reference / "clip" / "tokenizer"
    )
    for name, tree in params.items():
        assert f"{name}: " in printed and f"{sum(leaf.size for leaf in jax.tree.leaves(tree)):,} parameters" in printed
    assert "StableDiffusionPipeline" in printed and "prediction_type" in printed


def test_variants_and_revisions(fake, model, tmp_path):
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(model)
    pipe.save_pretrained(tmp_path / "half", jax.tree.map(lambda leaf: leaf / 2, params), variant="half")
    shutil.copytree(model, tmp_path / "both")
    shutil.copytree(tmp_path / "half", tmp_path / "both", dirs_exist_ok=True)

    def contents(folder):
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return found

    fake.add("me/squares", contents(model))
    fake.add("me/squares", contents(tmp_path / "both"), "two")

    def run(*options):
        out = tmp_path / "out.png"
        assert main(["generate", "me/squares", "a cat", *QUICK, "--out", str(out), *options]) == 0
        return np.asarray(Image.open(out))

    plain = run()
    half = run("--revision", "two", "--variant", "half")
    np.testing.assert_array_equal(plain, run("--revision", "two"))
    np.testing.assert_array_equal(half, drawn(*fdiff.DiffusionPipeline.from_pretrained(
        tmp_path / "both", variant="half"), "a cat"))
    assert not np.array_equal(plain, half)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--controlnet", "{net}"], "--controlnet is of no use alone; add --control-image"),
        (["--control-image", "{edges}"], "--control-image means nothing to a StableDiffusionPipeline; add --control"),
        (["--controlnet", "{model}", "--control-image", "{edges}"], "config.json"),
        (["--controlnet", "{model}/unet", "--control-image", "{edges}"], "UNet2DConditionModel; choose a ControlNet"),
        (["--controlnet", "{xl}", "--control-image", "{edges}"], "it is for another base model; choose one for this"),
        (["--controlnet", "{net}", "--control-image", "{word}"], "is not a picture"),
        (["--ip-adapter", "{eyes}"], "--ip-adapter is of no use alone; add --ip-adapter-image"),
        (["--ip-adapter-image", "{photo}"], "--ip-adapter-image is of no use alone; add --ip-adapter"),
        (["--image-encoder", "{eyes}"], "--image-encoder is of no use alone; add --ip-adapter"),
        (["--ip-adapter", "{eyes}:x", "--ip-adapter-image", "{photo}"], "--ip-adapter {eyes}:x: the scale is 'x'"),
        (["--ip-adapter", "{word}", "--ip-adapter-image", "{photo}"], "--ip-adapter {word}: "),
        (["--ip-adapter", "{lone}", "--ip-adapter-image", "{photo}"], "name CLIP's vision model with --image-encoder"),
        (["--textual-inversion", "{tmp}/none.pt"], "none.pt is not there"),
        (["--textual-inversion", "{word}:<|endoftext|>"], "--textual-inversion {word}:<|endoftext|>: "),
        (["--textual-inversion", "{eyes}"], "--textual-inversion {eyes}: "),
        (["--lora", "{word}"], "--lora {word}: "),
        (["--prompt", "a dog"], "PROMPT and --prompt are both given"),
        (["--prompt-2", "a dog"], "--prompt-2 means nothing"),
        (["--revision", "main"], "--revision is for repositories of the Hub, and {model} is a folder"),
        (["--variant", "fp16"], "has no weights of the variant fp16"),
        (["--tokenizer", "x"], "--tokenizer is for models in one file"),
        (["--config", "x"], "--config is for models in one file"),
        (["--plan", "{photo}"], "photo.png"),
        (["--plan", "{tmp}/none.plan"], "none.plan is not there"),
        (["--plan", "{photo}", "--steps", "3"], "--steps and --plan are both given"),
        (["--preview", "0"], "--preview is 0"),
        (["--save-plan", "{tmp}/x.png"], "--out and --save-plan are both"),
        (["--save-plan", "/proc/x.plan"], "--save-plan /proc/x.plan cannot be written"),
        (["--padding-mask-crop", "3"], "--padding-mask-crop is of no use alone; add --mask"),
        (["--like", ""], "--like is empty"),
        (["--prompt", "\udcff"], "--prompt is no text in UTF-8"),
    ],
)
def test_what_cannot_work_is_one_sentence(options, words, model, files, reference, tmp_path, capsys):
    places = {**files, "model": model, "net": reference / "pipelines" / "controlnet", "tmp": tmp_path,
              "xl": reference / "controlnet" / "controlnet_xl", "lone": tmp_path / "lone.safetensors"}  # fmt: skip
    shutil.copy(files["eyes"], places["lone"])
    prompt = [] if options[1:] == ["\udcff"] else ["a cat"]
    out = ["--out", str(tmp_path / "x.png")]
    assert main(["generate", str(model), *prompt, *out, *[one.format(**places) for one in options]]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("fdiff: ") and words.format(**places) in error
    assert [file.name for file in tmp_path.iterdir()] == ["lone.safetensors"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--textual-inversion", "{word}"], "a ClassConditionalPipeline reads no text; leave it out"),
        (["--ip-adapter", "{eyes}", "--ip-adapter-image", "{photo}"], "a ClassConditionalPipeline takes none"),
        (["--controlnet", "{net}", "--control-image", "{edges}"], "a ClassConditionalPipeline is steered by none"),
        (["--image", "{photo}"], "a ClassConditionalPipeline takes no --image; leave it out"),
        (["--variant", "fp16"], "--variant is for folders and repositories, and the digits that fdiff ships have none"),
        (["--weighted"], "--weighted means nothing to a ClassConditionalPipeline"),
        (["--prompt", "x"], "PROMPT means nothing to a ClassConditionalPipeline"),
    ],
)
def test_what_the_digits_cannot_do(options, words, files, reference, tmp_path, capsys):
    places = {**files, "net": reference / "pipelines" / "controlnet"}
    out = ["--out", str(tmp_path / "x.png")]
    assert main(["generate", *out, *[one.format(**places) for one in options]]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("fdiff: ") and words in error
    assert not list(tmp_path.iterdir())
