"""Trainings from scratch beside those of U-Nets in pixels: DiTs, autoencoders, latents, optimal pairs, plans."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.models import AutoencoderKL, DiTTransformer2DModel, VQModel
from fdiff.training import data, few_calls, loader, loop
from fdiff.training.tasks import TASKS, denoising, pixels
from fdiff.training.tasks.vae import AutoencoderSettings, latents_of, loss_of
from tests.pipelines import parity

RANDOM = np.random.default_rng(0)
TINY = {"steps": 2, "batch_size": 4, "sample_every": 2, "samples": 2}
DIT = {"network": "dit", "channels": "8", "layers": 1}
VAE = {"channels": "4,4", "latent_channels": 2, "codes": 6}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(file, images=RANDOM.integers(0, 256, (20, 8, 8), np.uint8), labels=np.arange(20) % 3)
    return file


def trained(name, digits, folder, **options):
    task = TASKS[name]
    source = data.find(digits) if task.data else None
    return loop.train(task, task.settings(**{**TINY, **options}), source, folder)


@pytest.fixture(scope="module")
def autoencoder(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae") / "out"
    return folder, *trained("vae", digits, folder, **VAE)


def test_a_dit_in_pixels(digits, tmp_path):
    options = {**DIT, "prediction": "flow", "pairs": "optimal"}
    pipe, params = trained("class-conditional", digits, tmp_path / "out", inference_steps=2, **options)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert again == pipe and isinstance(again.unet, DiTTransformer2DModel)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    fresh = pixels.init_params(again.unet, 0)
    x = RANDOM.standard_normal((1, 8, 8, 1), np.float32)
    assert not np.any(again.unet.apply({"params": fresh}, x, 5, np.array([1]))), "it begins as nothing"
    assert np.any(again.unet.apply({"params": loaded["unet"]}, x, 5, np.array([1])))


def test_an_autoencoder(autoencoder):
    folder, model, _ = autoencoder
    again, _ = AutoencoderKL.from_pretrained(folder)
    assert again == model and (folder / "samples" / "000002.png").exists()
    line = json.loads((folder / loop.METRICS).read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(line["error"] + 1e-6 * line["kl"], rel=1e-5)


def test_the_scale_of_latents_is_measured(digits, autoencoder):
    _, model, params = autoencoder
    pictures = data.find(digits).images
    assert latents_of(model, params, pictures).std() == pytest.approx(1, rel=1e-2)


def test_a_table_of_latents(digits, tmp_path):
    model, params = trained("vae", digits, tmp_path / "out", kind="vq", **VAE)
    again, _ = VQModel.from_pretrained(tmp_path / "out")
    assert again == model
    settings = AutoencoderSettings(kind="vq", commitment=0.25, **VAE)
    batch = data.find(digits).images[:4]
    (loss, beside), gradient = jax.value_and_grad(loss_of(settings, model, None), has_aux=True)(
        params, batch, jax.random.key(0)
    )
    z = model.apply({"params": params}, loader.pixels(batch), method="encode")
    table = params["quantize"]["embedding"]["embedding"]
    apart = jnp.square(z[..., None, :] - table).sum(-1)
    assert beside["codebook"] == pytest.approx(float(apart.min(-1).mean()) / 2, rel=1e-4)
    assert loss == pytest.approx(float(beside["error"] + 1.25 * beside["codebook"]), rel=1e-5)
    used = np.unique(apart.argmin(-1))
    wanted = np.stack([2 * (table[i] - z[apart.argmin(-1) == i]).sum(0) / z.size for i in used])
    np.testing.assert_allclose(gradient["quantize"]["embedding"]["embedding"][used], wanted, rtol=1e-3, atol=1e-6)
    assert np.any(gradient["encoder"]["conv_in"]["kernel"]), "the gradient goes through, straight"


LATENT = {"unet": {"channels": "8", "unconditional": True}, "dit": {**DIT, "flip": True}}


@pytest.mark.parametrize("network", LATENT)
def test_latents_of_classes_and_of_none(digits, autoencoder, tmp_path, network):
    folder = tmp_path / "out"
    pipe, _ = trained("latent", digits, folder, vae=str(autoencoder[0]), **LATENT[network])
    again, _ = fdiff.DiffusionPipeline.from_pretrained(folder)
    assert again == pipe and type(pipe).__name__ == {"unet": "LDMPipeline", "dit": "DiTPipeline"}[network]
    kept = np.load(folder / "latents" / "latents.npy")
    expected = latents_of(autoencoder[1], autoencoder[2], data.find(digits).images)
    np.testing.assert_allclose(kept[:, 0], expected, atol=1e-5)
    assert kept.shape == (20, 2 if network == "dit" else 1, 4, 4, 2)
    if network == "dit":
        assert again.transformer.num_embeds_ada_norm == 1000 and again.id2label == ("0", "1", "2")


def test_latents_in_buckets(autoencoder, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        size = (8, 12) if i % 2 else (12, 8)
        Image.fromarray(RANDOM.integers(0, 256, size, np.uint8)).save(pictures / f"{i}.png")
    folder, model, params = autoencoder
    options = {"vae": str(folder), "size": 8, "buckets": "8x12,12x8", **LATENT["unet"]}
    trained("latent", pictures, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "latents").exists(), "they are made of each batch"
    settings, key = TASKS["latent"].settings(**{**TINY, **options}), jax.random.key(1)
    found = TASKS["latent"].recipe(settings, data.find(pictures), tmp_path / "out")
    images = RANDOM.integers(0, 256, (2, 12, 8, 1), np.uint8)
    of_latents = denoising.loss_of(settings, found.pipeline(found.params)[0].unet, jnp.asarray)
    wanted = of_latents(found.params, {"x0": latents_of(model, params, images)}, key)
    assert found.loss(found.params, found.collate({"image": images}), key) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize("network", LATENT)
def test_diffusers_draws_the_same(digits, autoencoder, tmp_path, network):
    diffusers = pytest.importorskip("diffusers")
    options = {"sample_every": 0, **LATENT[network]}
    pipe, params = trained("latent", digits, tmp_path / "out", vae=str(autoencoder[0]), **options)
    theirs = parity.quiet(diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out"))
    asked = {"class_labels": [2, 0]} if network == "dit" else {"batch_size": 2}
    options = {**asked, "num_inference_steps": 5, "output_type": "np"}
    wanted = theirs(generator=parity.generator(42), **options).images
    parity.assert_close(pipe(params, torch_seed=42, progress=False, **options).images, wanted)


def test_a_plan_is_learned(tmp_path):
    options = {"calls": 3, "timesteps": "999,700,300", "runs": 8, "run_steps": 8, "batch_size": 8, "steps": 30,
               "sample_every": 30}  # fmt: skip
    pipe, _ = trained("plan", None, tmp_path / "out", **options)
    learned = fdiff.load_plan(tmp_path / "out" / "plan.safetensors")
    assert len(learned) == 3 and pipe == fdiff.DiffusionPipeline.from_pretrained(tmp_path / "out")[0]
    lines = [json.loads(line) for line in (tmp_path / "out" / loop.METRICS).read_text().splitlines()]
    assert lines[-1]["distance"] < 0.9 * lines[0]["distance"]


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_a_table_of_few_calls_begins_as_the_scheduler(name):
    start = getattr(fdiff, name)().plan(4)
    table = few_calls.on_host(few_calls.table(start, few_calls.begin(start)))
    x = jnp.asarray(RANDOM.standard_normal((1, 6, 6, 1)), jnp.float32)
    network = jax.tree_util.Partial(lambda x, t: jnp.sin(3 * x) + t / 1000)
    wanted = fdiff.sample(network, start, start.start * x)
    np.testing.assert_allclose(fdiff.sample(network, table, table.start * x), wanted, rtol=1e-3, atol=1e-4)
    assert np.any(jax.grad(lambda free: fdiff.sample(network, few_calls.table(start, free), x).sum())(
        few_calls.begin(start)).combined)  # fmt: skip


@pytest.mark.parametrize(("name", "options", "words"), [
    ("unconditional", {"network": "transformer"}, "network is 'transformer'"),
    ("unconditional", {"patch": 2}, "a U-Net has no patches"),
    ("unconditional", {**DIT, "patch": 3}, "no whole patches of 3x3"),
    ("unconditional", {**DIT, "channels": "8,8"}, "a DiT takes one number"),
    ("unconditional", {"pairs": "optimal"}, "add --prediction flow"),
    ("unconditional", {"pairs": "best", "prediction": "flow"}, "pairs is 'best'"),
    ("vae", {"channels": "4,4,4,4,4"}, "cannot be halved 4 times"),
    ("vae", {"kind": "gan"}, "kind is 'gan'"),
    ("vae", {"kl_weight": -1.0}, "kl_weight is -1.0"),
    ("latent", {}, "vae is not given"),
    ("latent", {"vae": "DATA"}, "holds no config.json"),
    ("latent", {"vae": "AUTOENCODER", "size": 9}, "size 9x9 has no whole latents, 2 pixels wide"),
    ("latent", {"vae": "AUTOENCODER", "network": "dit", "buckets": "8x8"}, "a DiT and optimal pairs take one shape"),
    ("latent", {"vae": "AUTOENCODER", "channels": "8,8", "buckets": "8x6"}, "buckets has 8x6, .* multiples of 4"),
    ("unconditional", {"channels": "8,8", "buckets": "8x7"}, "buckets has 8x7, .* multiples of 2"),
    ("plan", {"model": "colored-digits"}, "a StableDiffusionPipeline; choose one of"),
    ("plan", {"begin_as": "Fast"}, "begin_as is 'Fast'"),
    ("plan", {"runs": 2}, "fewer than a batch"),
    ("plan", {"timesteps": "999,500"}, "timesteps are 2 numbers and calls is 5"),
    ("plan", {"begin_as": "DDPMScheduler"}, "must draw no noise"),
])  # fmt: skip
def test_settings_that_do_not_fit(digits, autoencoder, tmp_path, name, options, words):
    places = {"DATA": str(digits.parent), "AUTOENCODER": str(autoencoder[0])}
    with pytest.raises(ValueError, match=words):
        trained(name, digits, tmp_path / "out", **{key: places.get(value, value) for key, value in options.items()})
    assert not (tmp_path / "out").exists()


def test_data_without_classes_and_pictures_that_are_no_square(tmp_path):
    np.savez(tmp_path / "flat.npz", images=np.zeros((4, 8, 12), np.uint8))
    with pytest.raises(ValueError, match="8x12 is no square"):
        trained("unconditional", tmp_path / "flat.npz", tmp_path / "out", **DIT)
