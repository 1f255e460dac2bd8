"""Stable Diffusion that edits, enlarges, keeps to a depth or to an adapter's picture."""

import numpy as np
import pytest

import fdiff
from tests.pipelines import checkpoints, inputs, parity

QUIET = {"output_type": "latent", "progress": False}


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
