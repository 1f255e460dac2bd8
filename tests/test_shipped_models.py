"""The models that lie in the package draw what they are asked for."""

import gzip
from pathlib import Path

import jax
import numpy as np
import pytest

import fdiff
from tests.pipelines import parity
from tests.test_examples import run

FOLDER = Path(fdiff.__file__).parent / "checkpoints" / "colored-digits"
RED, BLUE = (215, 30, 40), (45, 85, 235)


@pytest.fixture(scope="module")
def shipped():
    return fdiff.DiffusionPipeline.from_pretrained(FOLDER)


def draw(pipe, params, *inputs, **options):
    """The pictures of a few steps: (b, 32, 32, 3) from 0 to 255, or PIL's."""
    options = {"key": jax.random.key(0), "num_inference_steps": 10, "guidance_scale": 3, "output_type": "np", **options}
    pictures = pipe(params, *inputs, **options).images
    return pictures if options["output_type"] == "pil" else pictures * 255


def paper_and_ink(picture):
    """The mean colour of the frame, and of the pixels that are farthest from it."""
    paper = np.concatenate([picture[:2].reshape(-1, 3), picture[-2:].reshape(-1, 3)]).mean(0)
    far = np.linalg.norm(picture - paper, axis=-1)
    return paper, picture[far > 0.85 * far.max()].mean(0)


def nearest(color, *names):
    return int(np.argmin([np.linalg.norm(color - np.array(one)) for one in names]))


def test_the_folder_is_small_and_in_the_hubs_layout():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    assert {path.parent.name for path in files} == {
        FOLDER.name, "vae", "text_encoder", "tokenizer", "unet", "scheduler"}  # fmt: skip


def test_colors_are_those_asked_for(shipped):
    pipe, params = shipped
    assert type(pipe) is fdiff.StableDiffusionPipeline
    pictures = draw(pipe, params, ["a red seven on black", "a blue 7 on white"])
    assert pictures.shape == (2, 32, 32, 3)
    for picture, ink, paper in zip(pictures, (0, 1), (0, 1), strict=True):
        found = paper_and_ink(picture)
        assert nearest(found[0], (0, 0, 0), (255, 255, 255)) == paper
        assert nearest(found[1], RED, BLUE) == ink


def test_a_picture_is_redrawn_in_another_color(shipped):
    pipe, params = shipped
    [picture] = draw(pipe, params, "a red seven on black", output_type="pil")
    other = fdiff.StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    [redrawn] = draw(other, params, "a blue seven on black", image=picture, strength=0.9)
    assert nearest(paper_and_ink(redrawn)[1], RED, BLUE) == 1


def test_the_half_that_is_masked_is_painted_anew(shipped):
    pipe, params = shipped
    [picture] = draw(pipe, params, "a red seven on black", output_type="pil")
    mask = np.zeros((1, 32, 32, 1), np.float32)
    mask[:, :, 16:] = 1
    other = fdiff.StableDiffusionInpaintPipeline.from_pipe(pipe)
    [painted] = draw(other, params, "a blue seven on black", image=picture, mask_image=mask, strength=1.0)
    assert np.abs(painted - np.asarray(picture, np.float32))[:, :12].mean() < 12
    assert nearest(paper_and_ink(painted[:, 18:])[1], RED, BLUE) == 1


def test_the_digits_that_are_drawn_where_no_model_is_named():
    files = [path for path in fdiff.pipelines.MNIST.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    pipe, params = fdiff.DiffusionPipeline.from_pretrained("mnist")
    assert pipe.labels == tuple("0123456789")
    one, zero = pipe(params, ["1", 0], key=jax.random.key(0), num_inference_steps=5, output_type="np").images[..., 0]
    assert one.shape == (32, 32) and one[13:19].mean() < zero[13:19].mean() and max(one[:2].max(), zero[:2].max()) < 0.1
    assert one[14:18, 13:19].max() > 0.8 > 0.3 > zero[15:17, 15:17].mean(), "a zero is hollow, and a one is not"


def test_the_digits_that_are_spoken():
    files = [path for path in (fdiff.hub.SHIPPED / "spoken-digits").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    pipe, params = fdiff.DiffusionPipeline.from_pretrained("spoken-digits")
    made = pipe(params, ["1", "6", "1", "6"], key=jax.random.key(0), num_inference_steps=8, progress=False)
    np.testing.assert_allclose(np.abs(made.audios).max((1, 2)), 0.9, atol=1e-4)  # what a picture says nothing of
    power = np.abs(np.fft.rfft(made.audios[:, 0])) ** 2
    above = np.fft.rfftfreq(made.audios.shape[-1], 1 / made.sampling_rate) > 2000
    hissing = power[:, above].sum(-1) / power.sum(-1)
    assert hissing[[1, 3]].min() > 3 * hissing[[0, 2]].max(), "a six begins and ends with an s, and a one has none"


@pytest.mark.sweep
def test_its_training_runs(tmp_path, capsys):
    pytest.importorskip("sklearn")
    draw, count = np.random.default_rng(0), 60
    for name, header, values in (
        ("t10k-images-idx3-ubyte.gz", 16, draw.integers(256, size=(count, 28, 28))),
        ("t10k-labels-idx1-ubyte.gz", 8, np.arange(count) % 10),
    ):
        (tmp_path / name).write_bytes(gzip.compress(bytes(header) + values.astype(np.uint8).tobytes()))
    out, sheet = tmp_path / "colored", tmp_path / "sheet.png"
    run("train_colored_digits", "--out", str(out), "--data", str(tmp_path), "--quick", "--sheet", str(sheet))
    assert (out / "vae" / "diffusion_pytorch_model.safetensors").exists() and sheet.stat().st_size > 500
    assert "held-out" in capsys.readouterr().out


@pytest.mark.parity
def test_diffusers_draws_the_same(shipped):
    import diffusers

    pipe, params = shipped
    theirs = parity.quiet(diffusers.StableDiffusionPipeline.from_pretrained(FOLDER))
    text = ["a red seven on black", "Two", "a thick green 3 on white", "an emerald nine"]
    options = {"num_inference_steps": 20, "output_type": "np"}
    expected = theirs(text, generator=[parity.generator(i) for i in range(4)], **options).images
    found = pipe(params, text, torch_seed=[0, 1, 2, 3], **options).images
    parity.assert_close(found, expected)


@pytest.mark.parity
def test_diffusers_finds_its_tokens_and_components():
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    theirs = diffusers.DiffusionPipeline.from_pretrained(FOLDER)
    assert isinstance(theirs.tokenizer, CLIPTokenizer) and isinstance(theirs.text_encoder, CLIPTextModel)
    ours = fdiff.CLIPTokenizer.from_pretrained(FOLDER, subfolder="tokenizer")
    for text in ("a red seven on black", "A thick GREY 9", "7", "zebras, café 12!", ""):
        assert theirs.tokenizer(text).input_ids[1:-1] == ours.ids(text)
