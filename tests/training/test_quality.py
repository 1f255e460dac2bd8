"""Figures of models in folders: what a classifier that was fitted reads, and how an autoencoder keeps pictures."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from fdiff.training import classifier, data, quality

RANDOM = np.random.default_rng(0)


def stripes(count, size=8):
    """Noisy pictures of two classes, of lines that lie or stand, and which they are."""
    labels = np.arange(count) % 2
    lines = np.where(np.arange(size)[:, None] % 4 < 2, 200, 50) + np.zeros((size, size))
    pictures = np.stack([lines.T if label else lines for label in labels]) + RANDOM.normal(0, 10, (count, size, size))
    return pictures.clip(0, 255).astype(np.uint8)[..., None], labels


@pytest.fixture(scope="module")
def fitted():
    return classifier.fit(*stripes(100), steps=40)


def test_a_classifier_reads_what_it_has_not_seen(fitted):
    images, labels = stripes(30)
    features, read = fitted.read(images)
    assert fitted.accuracy == 1.0 and (read == labels).all() and features.shape == (30, classifier.FEATURES)


def test_too_few_pictures():
    with pytest.raises(ValueError, match="100 pictures of 1 classes are too few"):
        classifier.fit(stripes(100)[0], np.zeros(100, int))


def test_a_pipeline_beside_data(tmp_path, capsys):
    unet = fdiff.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4, num_class_embeds=3,
    )  # fmt: skip
    pipe = fdiff.ClassConditionalPipeline(unet, fdiff.DDIMScheduler(), ("a", "b"), num_inference_steps=2)
    pipe.save_pretrained(tmp_path / "model", {"unet": unet.init_params(jax.random.key(0))})
    images, labels = stripes(40)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    line = ["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / "data.npz"), "--classifier-steps", "40"]
    assert main([*line, "--samples", "12"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "ClassConditionalPipeline" and found["samples"] == 12 and found["compared_with"] == 40
    assert found["features"] == "a classifier of the 2 classes of the data" and found["classifier_accuracy"] == 1.0
    assert found["frechet"] > 1 and found["kernel"] > 0.1, "an untrained network draws no stripes"
    assert 0 <= found["accuracy"] <= 1 and {"precision", "recall", "kernel_deviation"} < set(found)
    np.savez(tmp_path / "data.npz", images=images, labels=labels * 2)
    assert main(line) == 2
    assert "the data has 3 classes and the model 2" in capsys.readouterr().err


def test_turns_are_classes_of_data_that_has_none():
    images, _ = stripes(20)
    turned, turns = quality._turned(images)
    for one, other, turn in zip(images, turned, turns, strict=True):
        np.testing.assert_array_equal(np.rot90(other, -turn), one)
    assert set(turns) <= {0, 1, 2, 3} and set(quality._turned(images[:, :4])[1]) <= {0, 1}


def test_an_autoencoder(tmp_path):
    images, _ = stripes(12)
    np.savez(tmp_path / "data.npz", images=images)
    vae = fdiff.AutoencoderKL(in_channels=1, out_channels=1, block_out_channels=(4,), norm_num_groups=2, sample_size=8,
                              down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",))
    params = vae.init_params(jax.random.key(0))
    vae.save_pretrained(tmp_path / "vae", params)
    found = quality.measure(tmp_path / "vae", data.find(tmp_path / "data.npz"))
    kept = vae.apply({"params": params}, images.astype(np.float32) / 127.5 - 1)
    errors = ((np.clip(np.round((np.asarray(kept, np.float64) + 1) * 127.5), 0, 255) - images) ** 2).mean((1, 2, 3))
    assert found["mean_squared_error"] == pytest.approx(errors.mean(), rel=1e-3)
    assert found["psnr"] == pytest.approx((20 * np.log10(255) - 10 * np.log10(errors)).mean(), rel=1e-4)


def test_a_model_that_draws_what_texts_say(reference, tmp_path, capsys):
    tokenizer = fdiff.CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(reference / "pipelines" / "sd", tokenizer=tokenizer)
    pipe.save_pretrained(tmp_path / "model", params)
    (tmp_path / "data").mkdir()
    for i, picture in enumerate(stripes(12, 16)[0]):
        Image.fromarray(picture[..., 0]).save(tmp_path / "data" / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"stripes {i % 2}"}) for i in range(12)]
    (tmp_path / "data" / data.METADATA).write_text("\n".join(lines))
    line = ["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--classifier-steps", "2"]
    assert main([*line, "--samples", "10"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "StableDiffusionPipeline" and found["samples"] == 10 and found["compared_with"] == 12
    assert found["features"].startswith("a classifier of how the pictures") and "accuracy" not in found
    assert np.isfinite([found["frechet"], found["kernel"]]).all()


def test_what_is_no_model_of_pictures(tmp_path, capsys):
    images, labels = stripes(12)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    for line, words in (
        (["--samples", "5"], "--samples is 5; it must be 10 or more"),
        ([], "has no text, and the model draws what texts say"),
    ):
        assert main(["evaluate", "colored-digits", "--data", str(tmp_path / "data.npz"), *line]) == 2
        assert words in capsys.readouterr().err


def test_a_model_of_molecules_is_not_compared_with_pictures():
    egnn = fdiff.EGNNModel(hidden_features=4, num_layers=1)
    with pytest.raises(ValueError, match="makes molecules, and pictures are what is compared"):
        quality.draw(fdiff.MoleculePipeline(egnn, fdiff.PolynomialScheduler(), sizes=(0, 1)), None, [], 10)
