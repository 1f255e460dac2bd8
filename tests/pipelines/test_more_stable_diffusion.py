"""Stable Diffusion that edits, enlarges, keeps to a depth or to an adapter's picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff.pipelines import denoise
from fdiff.pipelines.depth_to_image import cubic_weights, depth_channel
from fdiff.pipelines.instruct_pix2pix import guided_twice
from tests.pipelines import checkpoints, inputs, parity

QUIET = {"output_type": "latent", "progress": False}


def with_channels(sd, name, channels, **fields):
    """The tiny pipeline as another one, its U-Net with so many channels and without weights."""
    pipe, params = sd
    unet = pipe.unet.clone(in_channels=channels, **fields.pop("unet", {}))
    return getattr(fdiff, name).from_pipe(pipe, unet=unet, **fields), {**params, "unet": inputs.zeros(unet)}


def assert_runs(run, batch_size=2):
    assert jax.eval_shape(run.network, run.x, run.plan.t[0]).shape == (batch_size, 8, 8, 4)


def test_instruct_pix2pix_is_guided_twice():
    def says(x, t, c):
        return c.text[:, 0, 0][:, None, None, None] * x + c.appended

    positive, negative = denoise.Condition(jnp.full((1, 1, 1), 3.0)), denoise.Condition(jnp.full((1, 1, 1), 2.0))
    x, seen = jnp.ones((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 0.5)
    guided = guided_twice(says, positive, negative, seen, 7.0, 1.5)(x, 0.0)
    np.testing.assert_allclose(guided, 2.0 + 1.5 * (2.5 - 2.0) + 7.0 * (3.5 - 2.5), rtol=1e-5)


def test_instruct_pix2pix_runs(sd):
    pipe, params = with_channels(sd, "StableDiffusionInstructPix2PixPipeline", 8)
    image, options = inputs.picture(16), {"key": jax.random.key(0), "num_inference_steps": 2}
    assert_runs(pipe.steps(params, inputs.PROMPTS, image, **options))
    both = [denoise.Condition(one.embeddings) for one in pipe.encode_prompt(params, "a")]
    with pytest.raises(ValueError, match="image_guidance_scale is nan; it must be a number"):
        pipe.steps(params, "a", image, image_guidance_scale=np.nan, **options)
    pure = fdiff.pipelines.instruct
    arguments = (params, pipe.scheduler.plan(2), image, *both, jax.random.key(0))
    assert jax.eval_shape(lambda *a: pure(pipe.unet, pipe.vae, *a), *arguments).shape == (1, 16, 16, 3)


def test_upscale_runs(sd):
    fields = {"low_res_scheduler": fdiff.DDPMScheduler(), "unet": {"num_class_embeds": 400}}
    pipe, params = with_channels(sd, "StableDiffusionUpscalePipeline", 7, **fields)
    small, options = inputs.picture(16)[:, ::2, ::2], {"key": jax.random.key(0), "num_inference_steps": 2}
    assert_runs(pipe.steps(params, inputs.PROMPTS, small, **options))
    with pytest.raises(ValueError, match="noise_level is 351; it must be a whole number from 0 to 350"):
        pipe.steps(params, "a", small, noise_level=351, **options)
    with pytest.raises(ValueError, match="image has 1 channels; it must have 3"):
        pipe.steps(params, "a", small[..., :1], **options)
    both = [denoise.Condition(one.embeddings) for one in pipe.encode_prompt(params, "a")]
    arguments = (params, pipe.scheduler.plan(2), small, 20, *both, jax.random.key(0))
    pure = fdiff.pipelines.upscale
    shape = jax.eval_shape(lambda *a: pure(pipe.unet, pipe.vae, pipe.low_res_scheduler, *a), *arguments).shape
    assert shape == (1, 16, 16, 3)


def test_depth_runs(sd):
    pipe, params = with_channels(sd, "StableDiffusionDepth2ImgPipeline", 5)
    image, depth = inputs.picture(16), np.random.default_rng(0).uniform(size=(20, 30))
    run = pipe.steps(params, inputs.PROMPTS, image, depth, key=jax.random.key(0), num_inference_steps=4)
    assert_runs(run)
    with pytest.raises(ValueError, match="fdiff estimates no depth"):
        pipe.steps(params, "a", image, key=jax.random.key(0))
    with pytest.raises(ValueError, match="depth_map has shape"):
        pipe.steps(params, "a", image, depth[None, None], key=jax.random.key(0))


def test_depth_is_interpolated_and_brought_to_one():
    channel = depth_channel(np.linspace(5, 9, 32)[:, None] * np.ones((1, 16)), 8, 8)
    np.testing.assert_allclose(channel[0, [0, -1], 3, 0], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(np.diff(channel[0, 1:-1, 0, 0]), np.diff(channel[0, 1:3, 0, 0])[0], rtol=1e-4)
    np.testing.assert_allclose(cubic_weights(37, 8).sum(1), 1)
    with pytest.raises(ValueError, match="the same everywhere"):
        depth_channel(np.ones((4, 4)), 8, 8)


def test_adapters_run(sd):
    adapter = fdiff.T2IAdapter(channels=(8,), num_res_blocks=1, downscale_factor=2)
    trees = [jax.tree.map(lambda leaf, v=v: jnp.full(leaf.shape, v), adapter.shapes()) for v in (0.1, -0.2)]
    pipe = fdiff.StableDiffusionAdapterPipeline.from_pipe(sd[0], adapter=(adapter, adapter))
    image = inputs.picture(16) / 2 + 0.5
    options = {"key": jax.random.key(0), "adapter_conditioning_scale": [0.5, 0.3]}
    run = pipe.steps({**sd[1], "adapter": trees}, inputs.PROMPTS, [image, image], **options)
    features = run.network.args[1].features
    assert [level.shape for level in features] == [(2, 8, 8, 8)]
    parts = [adapter.apply({"params": tree}, image) for tree in trees]
    np.testing.assert_allclose(features[0][:1], 0.5 * parts[0][0] + 0.3 * parts[1][0], rtol=1e-4, atol=1e-5)
    assert_runs(run)
    with pytest.raises(ValueError, match="a list of 2 pictures"):
        pipe.steps({**sd[1], "adapter": trees}, "a", image, **options)


def test_latent_diffusion_reference(reference, drawn):
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(reference / "pipelines" / "ldm")
    options = {"batch_size": 2, "num_inference_steps": 20, "output_type": "np", "progress": False}
    parity.assert_close(pipe(params, torch_seed=42, **options).images, drawn["ldm"], 1e-4)


@pytest.mark.parity
def test_parity_of_instruct_pix2pix(tmp_path):
    made = checkpoints.stable_diffusion(
        cls="StableDiffusionInstructPix2PixPipeline", more={"image_encoder": None}, in_channels=8
    )
    theirs, ours, params = parity.pair(tmp_path, made)
    image = inputs.picture()
    options = {"num_inference_steps": 20, "image_guidance_scale": 1.7, "negative_prompt": ["blurry"] * 2}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(image), generator=parity.generator(42), **options
    )
    parity.assert_close(ours(params, inputs.PROMPTS, image, torch_seed=42, **options, **QUIET).images, wanted)


@pytest.mark.parity
def test_parity_of_upscale(tmp_path):
    import diffusers

    made = checkpoints.upscaler()
    theirs, ours, params = parity.pair(tmp_path, made)
    image = inputs.picture(size=16)
    options = {"num_inference_steps": 20, "noise_level": 50}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(np.concatenate([image] * 2)), generator=parity.generator(42), **options
    )
    got = ours(params, inputs.PROMPTS, np.concatenate([image] * 2), torch_seed=42, **options, **QUIET).images
    parity.assert_close(got, wanted)
    assert isinstance(made.low_res_scheduler, diffusers.DDPMScheduler)


@pytest.mark.parity
def test_parity_of_depth(sd_pair, tmp_path):
    import diffusers

    made = checkpoints.stable_diffusion(in_channels=5)
    theirs = diffusers.StableDiffusionDepth2ImgPipeline(
        **{name: getattr(made, name) for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        depth_estimator=None, feature_extractor=None,
    )  # fmt: skip
    theirs, ours, params = parity.pair(tmp_path, theirs)
    image, depth = inputs.picture(), np.random.default_rng(0).uniform(1, 9, size=(1, 50, 37)).astype(np.float32)
    options = {"strength": 0.7, "num_inference_steps": 20}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(image), parity.nchw(depth[..., None])[:, 0], generator=parity.generator(1),
        **options,
    )  # fmt: skip
    parity.assert_close(ours(params, inputs.PROMPTS, image, depth, torch_seed=1, **options, **QUIET).images, wanted)


@pytest.mark.parity
def test_parity_of_an_adapter(sd_pair, tmp_path):
    from diffusers import T2IAdapter

    net = checkpoints.seeded(lambda: T2IAdapter(channels=(32, 64), num_res_blocks=1, downscale_factor=8), 5)
    net.save_pretrained(tmp_path)
    module, tree = fdiff.T2IAdapter.from_pretrained(tmp_path)
    theirs, ours, params = parity.other(
        sd_pair, "StableDiffusionAdapterPipeline", {"adapter": tree}, {"adapter": module}, {"adapter": net}
    )
    image, latents = inputs.picture() / 2 + 0.5, inputs.latents()
    options = {"adapter_conditioning_scale": 0.7, "num_inference_steps": 20}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, parity.nchw(np.concatenate([image] * 2)), height=128, width=128,
        latents=parity.nchw(latents), **options,
    )  # fmt: skip
    parity.assert_close(ours(params, inputs.PROMPTS, image, latents=latents, **options, **QUIET).images, wanted)


@pytest.mark.parity
def test_parity_of_latent_diffusion(tmp_path):
    theirs, ours, params = parity.pair(tmp_path, checkpoints.latent_diffusion())
    wanted = theirs(batch_size=2, generator=parity.generator(5), num_inference_steps=20, output_type="np").images
    got = ours(params, batch_size=2, torch_seed=5, num_inference_steps=20, output_type="np", progress=False).images
    parity.assert_close(got, wanted)
