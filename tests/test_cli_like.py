"""Pictures that remember: what they say, and what `--like` draws of it, bit for bit."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff import images, picture_text
from fdiff.cli import main
from tests import cli_models


@pytest.fixture(scope="module")
def model(tmp_path_factory, reference):
    return cli_models.stable_diffusion(tmp_path_factory.mktemp("models"), reference)


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    return cli_models.added(tmp_path_factory.mktemp("files"), model)


def generate(*options):
    assert main(["generate", *map(str, options)]) == 0


def pixels(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


def said(file):
    return picture_text.parse(images.read_text(file))


def error(capsys, *options):
    """The one sentence of what cannot be drawn."""
    assert main(["generate", *map(str, options)]) == 2
    line = capsys.readouterr().err.strip().split("\n")[-1]
    assert line.startswith("fdiff: ")
    return line


def test_the_shipped_digits_again(tmp_path):
    generate("--num-images", 3, "--class", "7,2", "--steps", 2, "--seed", 5, "--guidance-scale", 2, "--scheduler",
             "Euler", "--out", tmp_path / "a.png", "--animate", tmp_path / "a.gif")  # fmt: skip
    fields = said(tmp_path / "a.png").fields
    assert fields["Steps"] == "2" and fields["Seed"] == "5" and fields["CFG scale"] == "2" and fields["Class"] == "7, 2"
    assert fields["Sampler"] == "Euler" and fields["Size"] == "32x32"
    assert fields["Version"] == f"fdiff {fdiff.__version__}"
    generate("--like", tmp_path / "a.png", "--out", tmp_path / "b.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    assert said(tmp_path / "b.png") == said(tmp_path / "a.png") == said(tmp_path / "a.gif")
    generate("--like", tmp_path / "b.png", "--seed", 6, "--out", tmp_path / "c.png")
    assert said(tmp_path / "c.png").fields["Seed"] == "6"
    assert not np.array_equal(pixels(tmp_path / "b.png"), pixels(tmp_path / "c.png"))


def test_one_picture_of_a_folder_again(tmp_path):
    generate("digits", "--num-images", 3, "--steps", 2, "--out", tmp_path / "all")
    files = sorted((tmp_path / "all").iterdir())
    assert [said(file).fields["Class"] for file in files] == ["0", "1", "2"]
    for file in files[1:]:
        generate("--like", file, "--out", tmp_path / "one.png")
        np.testing.assert_array_equal(pixels(tmp_path / "one.png"), pixels(file))
    generate("--like", tmp_path / "one.png", "--out", tmp_path / "folder")
    np.testing.assert_array_equal(pixels(tmp_path / "folder" / "00000.png"), pixels(files[2]))
    generate("--like", files[2], "--num-images", 1, "--out", tmp_path / "first.png")
    np.testing.assert_array_equal(pixels(tmp_path / "first.png"), pixels(files[0]))


def test_all_that_is_added_again(model, files, reference, tmp_path, monkeypatch):
    """A picture and its mask, a LoRA, a word, a ControlNet, an IP-Adapter: in a folder that moves."""
    for name in ("photo.png", "edges.png", "mask.png", "word.safetensors", "style", "eyes"):
        place, into = f"{files['photo'].rpartition('/')[0]}/{name}", tmp_path / "then" / name
        into.parent.mkdir(exist_ok=True)
        (shutil.copytree if "." not in name else shutil.copy)(place, into)
    monkeypatch.chdir(tmp_path / "then")
    generate(model, "a <cat>, on: \"a mat\"\nin a line", "--negative-prompt", "blurry", "--steps", 3, "--scheduler",
             "EulerAncestral", "--image", "photo.png", "--strength", "0.7", "--mask", "mask.png", "--lora",
             "style/pytorch_lora_weights.safetensors:0.5", "--textual-inversion", "word.safetensors:<cat>",
             "--controlnet", reference / "pipelines" / "controlnet", "--control-image", "edges.png", "--ip-adapter",
             "eyes/eyes.safetensors:0.7", "--ip-adapter-image", "photo.png", "--out", "a.png")  # fmt: skip
    found = said("a.png")
    assert found.prompt == "a <cat>, on: \"a mat\"\nin a line <lora:pytorch_lora_weights:0.5>"
    assert found.negative_prompt == "blurry"
    assert found.fields["Sampler"] == "Euler a" and found.fields["Denoising strength"] == "0.7"
    assert found.fields["Lora hashes"].startswith("pytorch_lora_weights: ") and found.fields["Model"] == "squares"
    assert "controlnet" in found.fields["ControlNet 0"] and found.fields["TI hashes"].startswith("word: ")
    (tmp_path / "then").rename(tmp_path / "now")
    monkeypatch.chdir(tmp_path)
    generate("--like", "now/a.png", "--out", "b.png")
    np.testing.assert_array_equal(pixels("b.png"), pixels("now/a.png"))


def test_a_sheet_as_jpg_says_as_much(model, tmp_path):
    generate(model, "Кот", "--steps", 1, "--dtype", "bfloat16", "--torch-seed", 4, "--out", tmp_path / "a.jpg")
    found = said(tmp_path / "a.jpg")
    assert found.prompt == "Кот" and found.fields["Seed"] == "4" and found.fields["Model"] == "squares"
    assert found.own["arguments"]["dtype"] == "bfloat16" and found.own["arguments"]["torch_seed"] == 4


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_reader_of_others_understands_them(model, tmp_path, ending):
    parsers = pytest.importorskip("sd_parsers")
    file = tmp_path / f"a.{ending}"
    generate(model, "a cat, sitting", "--negative-prompt", "blurry", "--seed", 9, "--steps", 1, "--guidance-scale", 4.5,
             "--out", file)  # fmt: skip
    found = parsers.ParserManager().parse(file)
    (sampler,) = found.samplers
    assert [prompt.value for prompt in sampler.prompts] == ["a cat, sitting"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["blurry"]
    assert sampler.name == "DDIM" and sampler.parameters == {"steps": "1", "seed": "9", "cfg_scale": "4.5"}
    assert sampler.model.name == "squares" and len(sampler.model.hash) == 10
    assert found.metadata["Size"] == "16x16" and "fdiff" in found.metadata["Version"]


def test_a_plan_is_kept_and_run(model, tmp_path):
    generate(model, "a cat", "--steps", 3, "--scheduler", "Heun", "--out", tmp_path / "a.png", "--save-plan",
             tmp_path / "a.plan")  # fmt: skip
    pipe, _ = fdiff.DiffusionPipeline.from_pretrained(model)
    plan = fdiff.HeunDiscreteScheduler.from_config(pipe.scheduler).plan(3)
    kept = fdiff.load_plan(tmp_path / "a.plan")
    np.testing.assert_array_equal(kept.t, plan.t)
    np.testing.assert_array_equal(kept.from_x0[:, : plan.slots], plan.from_x0)
    generate(model, "a cat", "--plan", tmp_path / "a.plan", "--out", tmp_path / "b.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    generate("--like", tmp_path / "b.png", "--out", tmp_path / "c.png")
    np.testing.assert_array_equal(pixels(tmp_path / "c.png"), pixels(tmp_path / "b.png"))
    assert said(tmp_path / "b.png").fields["Steps"] == str(len(plan))


def test_previews_stand_beside_until_the_run_ends(tmp_path, monkeypatch):
    written = []
    save = images.save

    def watched(image, path, text=None):
        save(image, path, text)
        written.append((path.name if hasattr(path, "name") else path.rpartition("/")[2], sorted(
            file.name for file in tmp_path.iterdir())))  # fmt: skip

    monkeypatch.setattr(images, "save", watched)
    generate("digits", "--num-images", 2, "--steps", 5, "--preview", 2, "--out", tmp_path / "a.png")
    assert written == [("a.preview.png", ["a.preview.png"])] * 2 + [("a.png", ["a.png"])]
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_changed_and_missing_files_are_one_sentence(model, files, tmp_path, capsys):
    own, photo = tmp_path / "own", tmp_path / "photo.png"
    shutil.copytree(model, own)
    shutil.copy(files["photo"], photo)
    picture = tmp_path / "a.png"
    generate(own, "a cat", "--image", photo, "--steps", 2, "--lora", files["lora"], "--out", picture)
    again = ["--like", picture, "--out", tmp_path / "b.png"]

    Image.open(files["edges"]).save(photo)
    assert f"{photo} has changed since {picture} was drawn; give --image" in error(capsys, *again)
    photo.unlink()
    assert f"{photo}, the --image of {picture}, is not there" in error(capsys, *again)
    generate(*again, "--image", files["photo"])
    np.testing.assert_array_equal(pixels(tmp_path / "b.png"), pixels(picture))
    (tmp_path / "b.png").unlink()

    config = own / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "beta_end": 0.013}))
    shutil.copy(files["photo"], photo)
    assert f"{own} has changed since {picture} was drawn; give MODEL" in error(capsys, *again)
    shutil.rmtree(own)
    assert str(own) in error(capsys, *again)
    assert not (tmp_path / "b.png").exists()


def test_pictures_that_say_nothing_of_use(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "none.png").write_text("no picture")
    assert "does not say how it was drawn" in error(capsys, "--like", tmp_path / "plain.png")
    assert "none.png is not a picture" in error(capsys, "--like", tmp_path / "none.png")
    assert "gone.png is not there" in error(capsys, "--like", tmp_path / "gone.png")
    fields = {"Steps": "1", "Seed": "2", "Size": "8x8"}
    for own, words in (
        ({"arguments": 3}, "in another form"), ({"arguments": {}, "number": -1}, "in another form"),
        ({"arguments": {"wings": 2}}, "--wings, which this fdiff does not have"),
        ({"arguments": {"seed": "x"}}, "says --seed 'x', which is none"),
        ({"arguments": {"dtype": "int4"}}, "says --dtype 'int4', which is none"),
        ({"arguments": {"lora": [3]}}, "says --lora [3], which is none"),
        ({"arguments": {"num_images": 2}, "number": 2}, "number 2 of 2"),
    ):  # fmt: skip
        text = picture_text.write(picture_text.Parameters("", "", fields, own))
        images.save(Image.new("RGB", (8, 8)), tmp_path / "odd.png", text)
        assert words in error(capsys, "--like", tmp_path / "odd.png")


def test_a_picture_of_the_web_ui(model, tmp_path, capsys):
    """As AUTOMATIC1111's web UI 1.10 writes it: its grammar, with what fdiff has no like for."""
    text = ("a (cat:1.2) <lora:style:0.8>\nNegative prompt: blurry\nSteps: 2, Sampler: Euler a, Schedule type: "
            "Automatic, CFG scale: 3.5, Seed: 7, Size: 16x16, Model hash: 0123456789, Model: v1-5, Clip skip: 2, "
            'Hires upscaler: Latent, Lora hashes: "style: 0123", Version: v1.10.0')  # fmt: skip
    images.save(Image.new("RGB", (8, 8)), tmp_path / "ui.png", text)
    assert "whose model is v1-5; say where that is" in error(capsys, "--like", tmp_path / "ui.png")
    generate(model, "--like", tmp_path / "ui.png", "--out", tmp_path / "a.png")
    told = next(line for line in capsys.readouterr().err.split("\n") if "not taken" in line)
    for word in ("<lora:style:0.8>", "Hires upscaler: Latent", "Schedule type: Automatic", "Version: v1.10.0"):
        assert word in told
    assert "Euler a" not in told and "v1-5" not in told
    generate(model, "--prompt", "a (cat:1.2)", "--negative-prompt", "blurry", "--steps", 2, "--scheduler",
             "EulerAncestral", "--guidance-scale", 3.5, "--seed", 7, "--height", 16, "--width", 16, "--clip-skip", 1,
             "--weighted", "--chunked", "--out", tmp_path / "b.png")  # fmt: skip
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_a_text_too_long_for_the_format_is_told_before_drawing(model, tmp_path, capsys):
    out = tmp_path / "a.jpg"
    assert "cannot hold" in error(capsys, model, "cat " * 20_000, "--steps", 1, "--out", out)
    assert not list(tmp_path.iterdir())


FIELDS = {"Steps": "1", "Seed": "2", "Size": "8x8"}


def stranger(file, own, prompt=""):
    """A picture that says this, whoever made it."""
    images.save(Image.new("RGB", (8, 8)), file, picture_text.write(picture_text.Parameters(prompt, "", FIELDS, own)))
    return file


@pytest.mark.parametrize("name", ["out", "animate", "save_plan", "preview", "like", "any_memory", "help"])
def test_a_picture_does_not_say_where_to_write(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    value = {"preview": 1, "any_memory": True, "help": True}.get(name, "elsewhere.png")
    stranger("odd.png", {"arguments": {"num_images": 1, "steps": 1, name: value}})
    flag = name.replace("_", "-")
    assert f"odd.png says --{flag}, which is for you alone to say" in error(capsys, "--like", "odd.png")
    assert [file.name for file in tmp_path.iterdir()] == ["odd.png"]


@pytest.mark.parametrize(
    ("hashes", "words"),
    [
        (None, "does not say what was in digits; give MODEL"),
        (5, "does not say what was in"), ({"model": 5}, "does not say what was in"),
        ({"model": [5]}, "digits has changed"), ({"model": []}, "does not say what was in"),
    ],
)  # fmt: skip
def test_a_picture_names_no_file_without_its_hash(tmp_path, capsys, hashes, words):
    own = {"arguments": {"num_images": 1, "steps": 1}, "hashes": hashes}
    odd = stranger(tmp_path / "odd.png", own)
    assert words in error(capsys, "--like", odd, "--out", tmp_path / "b.png")
    photo = stranger(tmp_path / "photo.png", None)
    odd = stranger(tmp_path / "odd.png", {"arguments": {"num_images": 1, "image": str(photo)}, "hashes": {}})
    again = ["--like", odd, "--out", tmp_path / "b.png"]
    assert f"does not say what was in {photo}; give --image" in error(capsys, "digits", *again)
    odd = stranger(odd, {"arguments": {"num_images": 1, "image": "/dev/zero"}, "hashes": {"image": ["0"]}})
    assert "/dev/zero, the --image of" in error(capsys, "digits", *again)


def test_what_a_picture_takes_from_the_hub_is_told(fake, model, tmp_path, capsys):
    files = {file.relative_to(model).as_posix(): file.read_bytes() for file in model.rglob("*") if file.is_file()}
    fake.add("me/squares", files)
    generate("me/squares", "a cat", "--steps", 1, "--out", tmp_path / "a.png")
    capsys.readouterr()
    generate("--like", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert f"MODEL me/squares is taken from the Hub, since {tmp_path}/a.png says so" in capsys.readouterr().err


def test_a_picture_does_not_steer_the_terminal(model, tmp_path, capsys):
    text = "a cat\nSteps: 1, Sampler: Euler, Model: \x1b]0;gone\x07\u202e, Seed: 1, CFG scale: nan, Odd: " + "x" * 5000
    images.save(Image.new("RGB", (8, 8)), tmp_path / "ui.png", text)
    line = error(capsys, "--like", tmp_path / "ui.png")
    assert line.isprintable() and "\\x1b]0;gone\\x07\\u202e" in line
    assert "--guidance-scale is nan; give a finite number" in error(capsys, model, "--like", tmp_path / "ui.png")
    assert main(["generate", str(model), "--like", str(tmp_path / "ui.png"), "--guidance-scale", "nan"]) == 2
    assert max(map(len, capsys.readouterr().err.split("\n"))) < 1100


def test_other_words_for_a_picture_of_the_web_ui(model, tmp_path, capsys):
    images.save(Image.new("RGB", (8, 8)), tmp_path / "ui.png", "a cat\nSteps: 1, Sampler: Euler, CFG scale: 2, Seed: 1")
    generate(model, "a dog", "--like", tmp_path / "ui.png", "--out", tmp_path / "a.png")
    assert said(tmp_path / "a.png").prompt == "a dog"
    assert "none.plan is not there" in error(capsys, model, "--like", tmp_path / "ui.png", "--plan", "none.plan")


def test_previews_leave_the_files_of_others(tmp_path, capsys):
    other = tmp_path / "a.preview.png"
    other.write_text("mine")
    out = ["--out", tmp_path / "a.png", "--preview", 1]
    assert f"--preview writes {other}, which is there already" in error(capsys, *out)
    assert [file.name for file in tmp_path.iterdir()] == [other.name] and other.read_text() == "mine"
    other.unlink()
    said = error(capsys, *out, "--save-plan", other)
    assert f"--preview and --save-plan are both {other}" in said


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat\nNegative prompt: none\nSteps: 3, Seed: 4, Size: 8x8",
        'say "no", \\ and \\u002c: <lora:x:1>', "Steps: 3",
        "\u05e9\u05dc\u05d5\u05dd \U0001f408\u200d\u2b1b", "a cat " * 1700, "x" * 10_000, " \t a cat \n",
    ],
    ids=["lines", "quotes", "field", "right to left", "long", "one word", "blanks"],
)  # fmt: skip
def test_any_prompt_is_kept_to_the_sign(model, tmp_path, prompt):
    generate(model, prompt, "--negative-prompt", prompt, "--steps", 1, "--out", tmp_path / "a.png")
    arguments = said(tmp_path / "a.png").own["arguments"]
    assert arguments["prompt"] == prompt and arguments["negative_prompt"] == prompt
