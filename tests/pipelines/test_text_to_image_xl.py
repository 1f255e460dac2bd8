"""SDXL: its two text encoders, what it is told of sizes, base and refiner, painting anew, few steps."""

import jax
import numpy as np
import pytest

import fdiff
from fdiff.pipelines import plans
from fdiff.pipelines.stable_diffusion_xl import time_ids
from tests.pipelines import checkpoints, inputs, parity

PROMPTS = inputs.PROMPTS
QUIET = {"output_type": "latent", "progress": False}


def test_reference(xl, drawn):
    pipe, params = xl
    micro = fdiff.MicroConditions(crops_coords_top_left=(3, 4))
    options = {"num_inference_steps": 20, "denoising_end": 0.7, "micro_conditions": micro}
    parity.assert_close(pipe(params, PROMPTS, torch_seed=42, **options, **QUIET).images, drawn["xl"], 1e-4)


def test_prompts_of_both_encoders(xl):
    pipe, params = xl
    same, nothing = pipe.encode_prompt(params, "a cat")
    other, _ = pipe.encode_prompt(params, "a cat", prompt_2="a dog")
    np.testing.assert_array_equal(other.embeddings[..., :16], same.embeddings[..., :16])
    assert np.abs(other.embeddings[..., 16:] - same.embeddings[..., 16:]).max() > 1e-3
    assert np.abs(other.pooled - same.pooled).max() > 1e-3
    assert not np.any(nothing.embeddings) and not np.any(nothing.pooled)
    assert np.any(pipe.encode_prompt(params, "a cat", "")[1].embeddings)
    with pytest.raises(ValueError, match=r"must be a pair \(embeddings, pooled\)"):
        pipe.steps(params, prompt_embeds=same.embeddings, key=jax.random.key(0))


def test_sizes_that_the_model_is_told(xl):
    told = fdiff.MicroConditions((100, 120), (3, 4), None, (64, 64))
    assert time_ids(xl[0], told, (32, 48)) == ((100, 120, 3, 4, 32, 48), (64, 64, 0, 0, 32, 48))
    assert time_ids(xl[0], told._replace(negative_original_size=None), (8, 8))[1] == (100, 120, 3, 4, 8, 8)
    refiner = fdiff.StableDiffusionXLImg2ImgPipeline.from_pipe(xl[0], requires_aesthetics_score=True)
    assert time_ids(refiner, fdiff.MicroConditions(), (32, 48)) == ((32, 48, 0, 0, 6.0), (32, 48, 0, 0, 2.5))


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_base_and_refiner_share_the_run(xl, name, share):
    scheduler = getattr(fdiff, name).from_config(xl[0].scheduler)
    whole = scheduler.plan(20)
    first = plans.until(whole, scheduler, share)
    second = plans.planned_in_part(scheduler, 20, None, None, 0.3, share).plan
    if name == "HeunDiscreteScheduler":  # whose steps are two calls: the one that is cut is done anew
        assert len(first) + len(second) in (len(whole), len(whole) + 1)
    else:
        np.testing.assert_array_equal(np.concatenate([first.t, second.t]), whole.t)
    assert len(plans.planned_in_part(scheduler, 20, None, None, 0.3).plan) < len(whole)


def test_a_unet_that_is_told_other_numbers_is_named(xl):
    pipe = fdiff.StableDiffusionXLImg2ImgPipeline.from_pipe(xl[0], requires_aesthetics_score=True)
    with pytest.raises(ValueError, match="is told 64 numbers of the picture and gets 56"):
        pipe.steps(xl[1], "a", inputs.picture(16), key=jax.random.key(0))
    without = fdiff.StableDiffusionXLPipeline.from_pipe(xl[0], text_encoder=None, text_encoder_2=None)
    with pytest.raises(ValueError, match="has no text encoder"):
        without.steps(xl[1], "a", key=jax.random.key(0))


def test_a_checkpoint_that_is_not_sdxl_is_named(xl, sd):
    pipe = fdiff.StableDiffusionXLPipeline.from_pipe(sd[0])
    pair = (np.zeros((1, 77, 16), np.float32), np.zeros((1, 32), np.float32))
    with pytest.raises(ValueError, match="so it is none of SDXL; StableDiffusionXLPipeline cannot use it"):
        pipe.steps(sd[1], prompt_embeds=pair, guidance_scale=1.0, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "micro_conditions must be fdiff.MicroConditions, not dict"),
        (fdiff.MicroConditions((8,)), "original_size of micro_conditions is .*; it must be two numbers"),
        (fdiff.MicroConditions(target_size=(8, np.nan)), "target_size of micro_conditions is"),
        (fdiff.MicroConditions(aesthetic_score="6"), "aesthetic_score of micro_conditions is '6'; it must be a number"),
    ],
)
def test_bad_micro_conditions_are_named(xl, given, message):
    with pytest.raises(ValueError, match=message):
        xl[0].steps(xl[1], "a", micro_conditions=given, key=jax.random.key(0))


def test_pooled_embeddings_of_another_batch_are_named(xl):
    pipe, params = xl
    positive, _ = pipe.encode_prompt(params, "a")
    assert pipe.steps(params, prompt_embeds=list(positive), key=jax.random.key(0)).x.shape[0] == 1
    with pytest.raises(ValueError, match=r"the second of prompt_embeds has shape \(2, .*as many as the first, 1"):
        pooled = np.concatenate([positive.pooled] * 2)
        pipe.steps(params, prompt_embeds=(positive.embeddings, pooled), key=jax.random.key(0))


def test_shares_must_rise(xl):
    refiner = fdiff.StableDiffusionXLImg2ImgPipeline.from_pipe(xl[0])
    with pytest.raises(ValueError, match=r"denoising_end 0.3 must be above denoising_start, 0.8"):
        refiner.steps(xl[1], "a", inputs.picture(16), denoising_start=0.8, denoising_end=0.3, key=jax.random.key(0))


@pytest.mark.parametrize("share", [0.0, 1.2, "x"])
def test_bad_shares_are_named(xl, share):
    with pytest.raises(ValueError, match="denoising_end is"):
        xl[0].steps(xl[1], "a", denoising_end=share, key=jax.random.key(0))


def test_told_guidance_needs_no_negative(xl):
    pipe, params = xl
    unet = pipe.unet.clone(time_cond_proj_dim=8)
    params = {**params, "unet": inputs.zeros(unet)}
    run = pipe.replace(unet=unet).steps(params, PROMPTS, guidance_scale=8.0, key=jax.random.key(0))
    assert run.network.args[1].scale.shape == (2, 8)
    assert jax.eval_shape(run.network, run.x, run.plan.t[0]).shape == (2, 8, 8, 4)


@pytest.mark.parity
class TestParity:
    """SDXL of diffusers, live, on medium random checkpoints."""

    def test_base_and_refiner(self, xl_pair, tmp_path):
        them, us, params = xl_pair
        latents = inputs.latents()
        options = {"num_inference_steps": 20, "denoising_end": 0.7, "latents": parity.nchw(latents)}
        told = {"original_size": (100, 120), "crops_coords_top_left": (3, 4)}
        base = parity.latents_of(them, PROMPTS, prompt_2=["a dog"] * 2, **options, **told)
        positive, negative = us.encode_prompt(params, PROMPTS, prompt_2="a dog")
        embeddings = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
        options["latents"] = latents
        ours = us(params, **embeddings, micro_conditions=fdiff.MicroConditions(**told), **options, **QUIET).images
        parity.assert_close(ours, base)

        made = checkpoints.stable_diffusion_xl(cls="StableDiffusionXLImg2ImgPipeline", refiner=True)
        them, us, params = parity.pair(tmp_path, made)
        options = {"num_inference_steps": 20, "denoising_start": 0.7}
        refined = parity.latents_of(them, PROMPTS, image=parity.nchw(base), negative_prompt=["x"] * 2, **options)
        ours = us(params, PROMPTS, base, negative_prompt="x", **options, **QUIET).images
        parity.assert_close(ours, refined)

    def test_sizes_of_the_negative_side_and_turbo(self, xl_pair):
        them, us, params = xl_pair
        latents = inputs.latents(1)
        told = {"negative_original_size": (64, 64), "negative_target_size": (32, 32)}
        few = {"num_inference_steps": 2, "guidance_scale": 0.0}
        for options, sizes in (({"num_inference_steps": 20}, told), (few, {})):
            wanted = parity.latents_of(them, PROMPTS[0], latents=parity.nchw(latents), **options, **sizes)
            micro = fdiff.MicroConditions(**sizes)
            ours = us(params, PROMPTS[0], latents=latents, micro_conditions=micro, **options, **QUIET).images
            parity.assert_close(ours, wanted)

    def test_inpainting(self, xl_pair):
        them, us, params = parity.other(xl_pair, "StableDiffusionXLInpaintPipeline")
        image, mask, options = inputs.picture(), inputs.mask(), {"strength": 0.9, "num_inference_steps": 20}
        wanted = parity.latents_of(
            them, PROMPTS, image=parity.nchw(image), mask_image=parity.nchw(mask[None, ..., None]), height=128,
            width=128, generator=parity.generator(42), **options,
        )  # fmt: skip
        parity.assert_close(us(params, PROMPTS, image, mask, torch_seed=42, **options, **QUIET).images, wanted)

    def test_consistency_model(self, tmp_path):
        from diffusers import LCMScheduler

        scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        made = checkpoints.stable_diffusion_xl(scheduler=scheduler, time_cond_proj_dim=32)
        them, us, params = parity.pair(tmp_path, made)
        options = {"num_inference_steps": 4, "guidance_scale": 8.0}
        wanted = parity.latents_of(them, PROMPTS, generator=parity.generator(42), **options)
        parity.assert_close(us(params, PROMPTS, torch_seed=42, **options, **QUIET).images, wanted)
