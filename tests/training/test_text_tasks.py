"""Trainings that begin with a text-to-image model: what each changes, leaves in its folder, keeps and refuses."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.adapters import lora, textual_inversion
from fdiff.training import data, loop
from fdiff.training.loader import Prepare, batches
from fdiff.training.tasks import TASKS, material
from fdiff.training.tasks.controlnet import edges
from tests.some import some

RANDOM = np.random.default_rng(0)
SHORT = {"steps": 2, "batch_size": 2, "sample_every": 0}
WORD = {"token": "<x>", "initializer": "a"}


@pytest.fixture(scope="module")
def base(reference, tmp_path_factory):
    """The folder of a tiny Stable Diffusion, and its parameters."""
    folder = tmp_path_factory.mktemp("base") / "sd"
    tokenizer = fdiff.CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(reference / "pipelines" / "sd", tokenizer=tokenizer)
    pipe.save_pretrained(folder, params)
    return folder, params


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of five pictures, with a caption each."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        Image.fromarray(RANDOM.integers(0, 256, (20, 16, 3), np.uint8)).save(folder / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"a cat {i % 2}"}) for i in range(5)]
    (folder / data.METADATA).write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def bare(pictures, tmp_path_factory):
    """The same without captions."""
    folder = tmp_path_factory.mktemp("bare")
    for file in pictures.glob("*.png"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def trained(name, base, pictures, folder, resume=False, **options):
    """The pipeline and parameters of the folder, as anyone loads them."""
    task = TASKS[name]
    settings = task.settings(model=str(base[0]), **{**SHORT, **options})
    loop.train(task, settings, data.find(pictures), folder, resume=resume)
    return fdiff.DiffusionPipeline.from_pretrained(folder)


def changed(before, after):
    """The names of the models whose parameters differ."""
    return {
        name for name, tree in after.items()
        if name not in before or jax.tree.structure(tree) != jax.tree.structure(before[name])
        or not all(map(np.array_equal, jax.tree.leaves(tree), jax.tree.leaves(before[name])))
    }  # fmt: skip


def test_text_to_image(base, pictures, tmp_path, monkeypatch):
    options = {"flip": True, "weight": "min-snr", "offset_noise": 0.1}
    _, params = trained("text-to-image", base, pictures, tmp_path / "out", **options)
    assert changed(base[1], params) == {"unet"}
    kept = np.load(tmp_path / "out" / "encoded" / "latents" / "mean.npy")
    assert kept.shape == (5, 2, 8, 8, 4)
    assert len(np.load(tmp_path / "out" / "encoded" / "texts" / "embeddings.npy")) == 2

    def again(*_, **__):
        raise AssertionError("what is kept is not computed again")

    monkeypatch.setattr(material, "posterior", again)
    trained("text-to-image", base, pictures, tmp_path / "out", resume=True, **options)


def test_lora(base, pictures, tmp_path):
    options = {"rank": 2, "alpha": 3.0, "layers": "to_q,conv1", "text_layers": "q_proj"}
    _, params = trained("lora", base, pictures, tmp_path, learning_rate=0.1, **options)
    assert changed(base[1], params) == {"unet", "text_encoder"}
    adapter = lora.load(tmp_path, base[1])
    assert {layer.rpartition(".")[2] for layer in adapter["unet"]} == {"to_q", "conv1"}
    assert all(factors.alpha == 3 and factors.rank == 2 for tree in adapter.values() for factors in tree.values())
    merged, _ = lora.merge(base[1], adapter)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


@pytest.mark.parametrize("name", some(["lora", "text-to-image"]))
def test_sdxl(reference, pictures, tmp_path, name):
    """Whose U-Net is told what two encoders read, and the sizes of pictures."""
    names = ("tokenizer", "tokenizer_2")
    tokenizers = {one: fdiff.CLIPTokenizer.from_folder(reference / "clip" / one) for one in names}
    pipe, before = fdiff.DiffusionPipeline.from_pretrained(reference / "pipelines" / "xl", **tokenizers)
    pipe.save_pretrained(tmp_path / "xl", before)
    options = {"learning_rate": 0.1, "layers": "to_q"} if name == "lora" else {}
    again, params = trained(name, (tmp_path / "xl", before), pictures, tmp_path / "out", **options)
    assert type(again) is fdiff.StableDiffusionXLPipeline and changed(before, params) == {"unet"}
    kept = {file.stem: np.load(file) for file in (tmp_path / "out" / "encoded").rglob("*.npy")}
    assert kept["time_ids"].shape == (5, 6) and kept["embeddings"].shape[-1] == pipe.unet.cross_attention_dim
    assert len(kept["pooled"]) == 2
    if name == "lora":
        merged, _ = lora.merge(before, lora.load(tmp_path / "out", before))
        jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_dreambooth(base, bare, tmp_path):
    """The pictures of the class that are missing are drawn; the loss is the subject's and a share of the class'."""
    task = TASKS["dreambooth"]
    settings = task.settings(model=str(base[0]), prompt="a cat", class_prompt="a dog", class_images=3, prior_weight=0.3)
    folder = tmp_path / "class_images"
    folder.mkdir()
    for i in range(2):
        Image.new("RGB", (16, 16)).save(folder / f"{i:05d}.png")
    recipe = task.recipe(settings, data.find(bare), tmp_path)
    assert data.texts(data.find(folder)) == ["a dog"] * 3
    assert np.asarray(Image.open(folder / "00001.png")).max() == 0 < np.asarray(Image.open(folder / "00002.png")).max()
    samples = [recipe.prepare(recipe.source[i], np.random.default_rng(0)) for i in range(2)]
    batch = recipe.collate({name: np.stack([one[name] for one in samples]) for name in samples[0]})
    np.testing.assert_allclose(batch["share"], [2, 2, 0.6, 0.6])
    assert len(recipe.source) == 5 and batch["mean"].shape[0] == 4
    assert not np.array_equal(batch["text"].embeddings[0], batch["text"].embeddings[2])
    with pytest.raises(ValueError, match="another class_prompt"):
        task.recipe(dataclasses.replace(settings, class_prompt="a cow"), data.find(bare), tmp_path)


def test_textual_inversion(base, bare, tmp_path):
    pipe, params = trained(
        "textual-inversion", base, bare, tmp_path, **WORD, vectors=2, learning_rate=0.1, random_crop=True
    )
    assert changed(base[1], params) == {"text_encoder"}
    (before, after) = (tree["text_encoder"][textual_inversion.TABLE]["embedding"] for tree in (base[1], params))
    np.testing.assert_array_equal(after[: len(before)], before)
    word = textual_inversion.load(tmp_path)
    np.testing.assert_array_equal(word.vectors[0], after[-2:])
    assert word.token == "<x>" and len(pipe.tokenizer.ids("<x>")) == 2
    assert not np.array_equal(word.vectors[0][0], before[pipe.tokenizer.ids("a")[0]])


def test_controlnet(base, pictures, tmp_path):
    sheets = {"sample_every": 2, "samples": 1}
    pipe, params = trained("controlnet", base, pictures, tmp_path, condition="edges", flip=True, **sheets)
    assert Image.open(tmp_path / "samples" / "000002.png").size[0] >= 16
    assert isinstance(pipe, fdiff.StableDiffusionControlNetPipeline) and changed(base[1], params) == {"controlnet"}
    assert (tmp_path / "controlnet" / "config.json").exists()
    zero = params["controlnet"]["controlnet_down_blocks.0"]["kernel"]
    assert np.abs(zero).max() > 0, "the convolutions that were zero are trained"


def test_pictures_of_several_shapes(base, tmp_path):
    """A batch has one shape, and so what steers it; the loss takes any."""
    for i in range(8):
        Image.new("RGB", (16, 24) if i % 2 else (30, 20)).save(tmp_path / f"{i}.png")
    task = TASKS["controlnet"]
    options = {"prompt": "a", "condition": "gray", "buckets": "16x16,24x16,16x24"}
    recipe = task.recipe(task.settings(model=str(base[0]), **options), data.find(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out" / "encoded" / "latents").exists()
    stream, seen = batches(recipe.source, recipe.prepare, 2, shapes=recipe.shapes), set()
    for batch, _ in zip(stream, range(4), strict=False):
        assert batch.arrays["image"].shape == batch.arrays["control"].shape
        seen.add(batch.arrays["image"].shape[1:3])
        loss = jax.eval_shape(recipe.loss, recipe.params, recipe.collate(batch.arrays), jax.random.key(0))
        assert loss.shape == ()
    assert seen == {(24, 16), (16, 24)}


def test_what_steers_is_cut_as_the_picture(tmp_path):
    left = np.zeros((8, 8, 3), np.uint8)
    left[:, :4] = 255
    for name in ("picture", "steers"):
        Image.fromarray(left).save(tmp_path / f"{name}.png")
    line = {"file_name": "picture.png", "text": "a", "conditioning_image": "steers.png"}
    (tmp_path / data.METADATA).write_text(json.dumps(line))
    source = data.find(tmp_path)
    assert data.steers(source)
    prepare = material.Controlled(Prepare((4, 4), random_crop=True, flip=True), lambda image: 1 / 0)
    for seed in range(8):
        found = prepare(source[0], np.random.default_rng(seed))
        np.testing.assert_array_equal(found["image"], found["control"])
    assert set(np.unique(edges(left)[:, [0, 3, 4, 7]].mean(-1)[:, 1:3])) == {255}


def test_lcm(base, pictures, tmp_path):
    pipe, params = trained("lcm", base, pictures, tmp_path, sample_every=2, samples=1)
    assert Image.open(tmp_path / "samples" / "000002.png").size[0] >= 16
    assert isinstance(pipe, fdiff.LatentConsistencyModelPipeline) and isinstance(pipe.scheduler, fdiff.LCMScheduler)
    assert changed(base[1], params) == {"unet"}
    assert np.abs(params["unet"]["time_embedding"]["cond_proj"]["kernel"]).max() > 0


def test_small_changes_of_a_latent_consistency_model(base, pictures, tmp_path):
    pipe, params = trained("lcm", base, pictures, tmp_path, adapt=True, rank=2, learning_rate=0.1, layers="to_q,conv1")
    assert type(pipe) is fdiff.StableDiffusionPipeline and isinstance(pipe.scheduler, fdiff.LCMScheduler)
    merged, _ = lora.merge(base[1], lora.load(tmp_path, base[1]))
    jax.tree.map(np.testing.assert_array_equal, merged, params)
    assert changed(base[1], params) == {"unet"}


def test_what_sdxl_is_told_of_sizes():
    picture = {"image": np.zeros((40, 30, 3), np.uint8)}
    middle = Prepare((16, 16), told=True)(picture, RANDOM)
    np.testing.assert_array_equal(middle["time_ids"], [40, 30, 2, 0, 16, 16])  # of 21 rows, 2 are above
    wide = {"image": np.zeros((16, 64, 3), np.uint8)}
    wide["image"][:, :, 0] = np.arange(64)
    for seed in range(8):
        found = Prepare((16, 16), random_crop=True, flip=True, told=True)(wide, np.random.default_rng(seed))
        first = int(found["image"][0, 0, 0])
        mirrored = first > int(found["image"][0, 1, 0])
        assert found["time_ids"][3] == (63 - first if mirrored else first)


@pytest.mark.parametrize(("name", "options", "words"), [
    ("lora", {"rank": 0}, "rank is 0"), ("lora", {"layers": "to_q,to_z"}, "no layer whose name ends in 'to_z'"),
    ("lora", {"model": "digits"}, "digits is a ClassConditionalPipeline"),
    ("textual-inversion", {**WORD, "token": "a"}, "knows 'a' already"),
    ("textual-inversion", {**WORD, "initializer": "abcdefgh"}, "'abcdefgh' is . tokens"),
    ("textual-inversion", {**WORD, "prompt": "a cat"}, "has no <x>"),
    ("textual-inversion", {**WORD, "token": ""}, "token is ''"),
    ("controlnet", {"prompt": "a"}, "no conditioning pictures"), ("controlnet", {"condition": "depth"}, "condition is"),
    ("text-to-image", {}, "has no caption"), ("text-to-image", {"prompt": "a", "size": 12}, "height is 12"),
    ("text-to-image", {"prompt": "a", "weight": "snr"}, "weight is"),
    ("dreambooth", {"text_layers": "q_proj"}, "without adapt"),
    ("dreambooth", {"class_prompt": "a", "buckets": "16x16"}, "buckets is 16x16"),
    ("lora", {"prompt": "a", "buckets": "16x13"}, "width is 13"),
    ("lcm", {"prompt": "a", "solver_steps": 2000}, "solver_steps is 2000"),
    ("lcm", {"prompt": "a", "text_layers": "q_proj"}, "text_layers is q_proj"),
])
def test_what_does_not_fit(base, bare, tmp_path, name, options, words):
    task = TASKS[name]
    with pytest.raises(ValueError, match=words):
        task.recipe(task.settings(**{"model": str(base[0]), **SHORT, **options}), data.find(bare), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing has been computed yet"
