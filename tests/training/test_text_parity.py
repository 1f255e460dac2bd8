"""Trainings that begin with a text-to-image model, beside torch, peft and diffusers: gradients, conditions, files."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import fdiff
from fdiff import keys
from fdiff.adapters import lora as adapters
from fdiff.training import data
from fdiff.training.loader import Prepare
from fdiff.training.tasks import TASKS, latents
from fdiff.training.tasks.lora import factors
from tests.pipelines import checkpoints, parity

pytestmark = pytest.mark.parity
RANDOM = np.random.default_rng(0)
TEXTS = ["a cat", "a red house"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("parity") / "sd"
    checkpoints.stable_diffusion("tiny").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    images = RANDOM.integers(0, 256, (2, 16, 16, 3), np.uint8)
    return Captioned(images)


class Captioned:
    classes = ()

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"image": self.images[i], "text": TEXTS[i]}

    def name(self, i):
        return f"picture {i}"


def begun(name, folder, source, out, **options):
    """(recipe, its parameters, none of them zero, a batch)."""
    task = TASKS[name]
    recipe = task.recipe(task.settings(model=str(folder), withhold=0.0, **options), source, out)
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.3 * random.standard_normal(x.shape).astype(np.float32), recipe.params)
    samples = [recipe.prepare(recipe.source[i], random) for i in range(len(source))]
    return recipe, params, recipe.collate({name: np.stack([one[name] for one in samples]) for name in samples[0]})


def theirs(folder):
    import diffusers

    return parity.quiet(diffusers.StableDiffusionPipeline.from_pretrained(folder))


def torch_loss(pipe, ours, params, batch, key, gamma=None):
    """What diffusers' training scripts compute, of the noise and the times that the key draws."""
    import torch

    key_latents, _, key = jax.random.split(key, 3)
    x0 = latents.latents(ours, params, batch, key_latents)
    key_shares, key_noise = keys.split(key)
    t = torch.from_numpy(np.array(ours.scheduler.times(1 - keys.uniform(key_shares, (len(x0),)))))
    noise, x0 = parity.nchw(keys.normal(key_noise, x0.shape)), parity.nchw(x0)
    with torch.no_grad():
        text = pipe.encode_prompt(TEXTS, "cpu", 1, False)[0]
    out = pipe.unet(pipe.scheduler.add_noise(x0, noise, t), t, text).sample
    error = ((out - noise) ** 2).mean((1, 2, 3))
    if gamma is not None:
        from diffusers.training_utils import compute_snr

        snr = compute_snr(pipe.scheduler, t)
        error = error * torch.minimum(snr, torch.tensor(gamma)) / snr
    return error.mean()


def assert_near(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


def test_gradients_of_the_whole_unet(folder, source, tmp_path):
    recipe, params, batch = begun("text-to-image", folder, source, tmp_path, weight="min-snr")
    key = jax.random.key(3)
    loss, gradient = jax.jit(jax.value_and_grad(recipe.loss))(params, batch, key)
    pipe, changed = recipe.pipeline(params)
    pipe.save_pretrained(tmp_path / "changed", changed)
    reference = theirs(tmp_path / "changed")
    expected = torch_loss(reference, pipe, changed, batch, key, 5.0)
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)
    found = adapters.parameters(gradient)
    for name, parameter in reference.unet.named_parameters():
        where, leaf = found[name.removesuffix(".weight")]
        assert_near(np.moveaxis(leaf, (-1, -2), (0, 1)) if where[-1] == "kernel" else leaf, parameter.grad.numpy())


def test_gradients_of_a_lora_and_its_file(folder, source, tmp_path):
    from peft import get_peft_model_state_dict

    options = {"rank": 2, "alpha": 3.0, "layers": "to_q,to_k,to_v,to_out.0,conv1"}
    recipe, params, batch = begun("lora", folder, source, tmp_path, **options)
    key = jax.random.key(3)
    loss, gradient = jax.jit(jax.value_and_grad(recipe.loss))(params, batch, key)
    recipe.beside(tmp_path / "mine", params)
    pipe = theirs(folder)
    pipe.load_lora_weights(tmp_path / "mine")
    for name, parameter in pipe.unet.named_parameters():
        parameter.requires_grad_("lora" in name)
    ours, base = fdiff.DiffusionPipeline.from_pretrained(folder)
    expected = torch_loss(pipe, ours, base, batch, key)
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)
    found = factors(gradient, 3.0)["unet"]
    for name, parameter in pipe.unet.named_parameters():
        if "lora" in name:
            layer, _, part = name.partition(".lora_")
            assert_near(found[layer].down if part.startswith("A") else found[layer].up, parameter.grad.numpy())

    state = get_peft_model_state_dict(pipe.unet, adapter_name=next(iter(pipe.unet.peft_config)))
    pipe.save_lora_weights(tmp_path / "theirs", unet_lora_layers=state)
    mine, other = (load_file(tmp_path / one / "pytorch_lora_weights.safetensors") for one in ("mine", "theirs"))
    assert mine.keys() == other.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], other[name])

    x = np.random.default_rng(2).standard_normal((1, 8, 8, 4), np.float32)
    drawn = parity.latents_of(pipe, "a cat", latents=parity.nchw(x), num_inference_steps=3)
    parity.assert_close(ours(recipe.pipeline(params)[1], "a cat", latents=x, num_inference_steps=3,
                             output_type="latent", key=key, progress=False).images, drawn)


def test_a_word_in_diffusers(folder, source, tmp_path):
    options = {"token": "<x>", "initializer": "a", "vectors": 2, "prompts": "a {}"}
    task = TASKS["textual-inversion"]
    bare = data.Arrays("two", source.images)
    recipe = task.recipe(task.settings(model=str(folder), **options), bare, tmp_path)
    rows = {"text_encoder": RANDOM.standard_normal(recipe.params["text_encoder"].shape).astype(np.float32)}
    pipe, params = recipe.pipeline(rows)
    recipe.beside(tmp_path / "word", rows)
    pipe.save_pretrained(tmp_path / "whole", params)
    x, key = np.random.default_rng(2).standard_normal((1, 8, 8, 4), np.float32), jax.random.key(0)
    options = {"latents": x, "num_inference_steps": 2, "output_type": "latent", "key": key, "progress": False}
    ours = pipe(params, "a <x> house", **options).images
    given, whole = theirs(folder), theirs(tmp_path / "whole")
    given.load_textual_inversion(tmp_path / "word")
    for one in (given, whole):
        drawn = parity.latents_of(one, "a <x> house", latents=parity.nchw(x), num_inference_steps=2)
        parity.assert_close(ours, drawn)


def test_what_sdxl_is_told(tmp_path, source):
    import torch

    pair = parity.pair(tmp_path / "xl", checkpoints.stable_diffusion_xl("tiny"))
    reference, pipe, params = pair
    wide = {"image": RANDOM.integers(0, 256, (40, 30, 3), np.uint8)}
    ids = Prepare((16, 16), told=True)(wide, RANDOM)["time_ids"]
    expected = reference._get_add_time_ids((40, 30), (2, 0), (16, 16), torch.float32, text_encoder_projection_dim=16)
    np.testing.assert_array_equal(ids[None], expected.numpy())
    encoded = latents.read(pipe, params, latents.tokens(pipe, TEXTS))
    condition = latents.told(pipe, encoded, {"time_ids": np.stack([ids, ids])})
    with torch.no_grad():
        text, _, pooled, _ = reference.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=False)
    assert_near(condition.text, text.numpy())
    assert_near(condition.added["text_embeds"], pooled.numpy())


@pytest.mark.parametrize("options", [{}, {"adapt": True, "layers": "to_q,conv1", "rank": 2}], ids=["whole", "changes"])
def test_the_loss_of_a_latent_consistency_model(folder, source, tmp_path, options):
    import diffusers
    import torch

    recipe, params, batch = begun("lcm", folder, source, tmp_path, **options)
    whole = not options
    other = jax.tree.map(lambda leaf: 0.9 * leaf, params) if whole else params  # changes agree with themselves
    key = jax.random.key(5)
    loss = jax.jit(recipe.loss)(params, batch, key, *([other] if whole else []))
    nets = []
    for i, tree in enumerate((params, other)):
        pipe, trees = recipe.pipeline(tree)
        pipe.unet.save_pretrained(tmp_path / f"net{i}", trees["unet"])
        nets.append(diffusers.UNet2DConditionModel.from_pretrained(tmp_path / f"net{i}"))
    student, target = nets
    reference, (ours, base) = theirs(folder), fdiff.DiffusionPipeline.from_pretrained(folder)

    key_latents, _, key_time, key_scale, key_noise = jax.random.split(key, 5)
    x0 = latents.latents(ours, base, batch, key_latents)
    index = torch.from_numpy(np.array(jax.random.randint(key_time, (2,), 0, 50))).long()
    noise, x0 = parity.nchw(keys.normal(key_noise, x0.shape)), parity.nchw(x0)
    w = torch.from_numpy(np.array(3.0 + 12.0 * keys.uniform(key_scale, (2,)))) - 1
    start = 20 * (index + 1) - 1
    end = (start - 20).clamp(min=0)
    cumulative = reference.scheduler.alphas_cumprod
    alpha, sigma = ((x**0.5)[:, None, None, None] for x in (cumulative[start], 1 - cumulative[start]))
    alpha_to, sigma_to = ((x**0.5)[:, None, None, None] for x in (cumulative[end], 1 - cumulative[end]))

    def bounded(net, x, t, alpha, sigma):
        told = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w, 256)
        eps = net(x, t, text, timestep_cond=told if whole else None).sample
        s = (10.0 * t)[:, None, None, None]
        return 0.25 / (s**2 + 0.25) * x + s / (s**2 + 0.25) ** 0.5 * (x - sigma * eps) / alpha

    with torch.no_grad():
        text, nothing = reference.encode_prompt(TEXTS, "cpu", 1, True)
        x = alpha * x0 + sigma * noise
        told, untold = (reference.unet(x, start, each).sample for each in (text, nothing))
        eps = told + w[:, None, None, None] * (told - untold)
        nearer = alpha_to * (x - sigma * eps) / alpha + sigma_to * eps
        error = bounded(student, x, start, alpha, sigma) - bounded(target, nearer, end, alpha_to, sigma_to)
        expected = ((error**2 + 0.001**2) ** 0.5 - 0.001).mean()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-3)
