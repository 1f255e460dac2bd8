"""Stable Diffusion that paints a part of a picture anew."""

import jax
import numpy as np
import pytest

import fdiff
from fdiff.pipelines import denoise
from tests.pipelines import checkpoints, inputs, parity

QUIET = {"output_type": "latent", "progress": False}


@pytest.fixture(scope="module")
def paint(sd):
    return fdiff.StableDiffusionInpaintPipeline.from_pipe(sd[0]), sd[1]


def test_reference(paint, drawn):
    pipe, params = paint
    options = {"strength": 0.7, "negative_prompt": "blurry", "num_inference_steps": 20}
    images = pipe(params, inputs.PROMPTS, inputs.picture(16), inputs.mask(16), torch_seed=42, **options, **QUIET).images
    parity.assert_close(images, drawn["inpaint"], 1e-4)


def test_what_is_not_painted_stays(paint):
    pipe, params = paint
    image, mask = inputs.picture(16, 2), np.zeros((16, 16), np.float32)
    mask[:8] = 1
    options = {"num_inference_steps": 2, "key": jax.random.key(0), "strength": 1.0}
    images = pipe(params, inputs.PROMPTS, image, mask, **options, **QUIET).images
    run = pipe.steps(params, inputs.PROMPTS, image, np.zeros_like(mask), **options)
    *_, (state, _) = run
    np.testing.assert_allclose(images[:, 4:], state.x[:, 4:], atol=1e-6)
    assert np.abs(images[:, :4] - state.x[:, :4]).max() > 0.1


def test_host_class_is_the_pure_function(paint):
    pipe, params = paint
    image, mask, key = inputs.picture(16, 2), inputs.mask(16), jax.random.key(1)
    both = [fdiff.Condition(one.embeddings) for one in pipe.encode_prompt(params, inputs.PROMPTS)]
    plan, masks = pipe.scheduler.plan(4, strength=0.5), np.stack([mask, mask])[..., None]
    pictures = fdiff.inpaint(pipe.unet, pipe.vae, params, plan, image, masks, *both, key, strength=0.5)
    options = {"strength": 0.5, "num_inference_steps": 4, "output_type": "array", "progress": False}
    images = pipe(params, inputs.PROMPTS, image, mask, key=key, **options).images
    np.testing.assert_allclose(images, pictures, atol=2e-4)


def test_an_inpainting_unet_is_told_the_mask_and_the_rest(paint):
    pipe, params = paint
    unet = pipe.unet.clone(in_channels=9)
    pipe, params = pipe.replace(unet=unet), {**params, "unet": inputs.zeros(unet)}
    image, mask = inputs.picture(16), inputs.mask(16)
    run = pipe.steps(params, "a", image, mask, key=jax.random.key(0), num_inference_steps=2)
    told = run.network.args[1].appended
    np.testing.assert_array_equal(told[0, ..., 0], mask[::2, ::2])
    assert told.shape == (1, 8, 8, 5) and run.after is None
    assert jax.eval_shape(run.network, run.x, run.plan.t[0]).shape == (1, 8, 8, 4)
    condition = denoise.Condition(pipe.encode_prompt(params, "a")[0].embeddings)
    pure = jax.eval_shape(
        lambda key: fdiff.inpaint(
            unet, pipe.vae, params, run.plan, image, mask[None, ..., None], condition, None, key, strength=0.5
        ),
        jax.random.key(0),
    )
    assert pure.shape == (1, 16, 16, 3)
    with pytest.raises(ValueError, match="image holds latents"):
        pipe.steps(params, "a", np.zeros((1, 8, 8, 4)), mask, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "mask_image is missing"),
        (np.ones((8, 8)), "mask_image is 8 x 8 with 1 channels, and the picture 16 x 16"),
        (np.ones((16, 16, 3)), "with 3 channels"),
        (np.ones((16, 16), np.uint8), "mask_image holds whole numbers of 1 at most, where white is 255"),
        (np.full((16, 16), np.nan), "mask_image holds numbers that are not finite"),
        (-np.ones((16, 16)), "mask_image holds numbers from -1 to -1; floats must lie within 0 and 1"),
        (np.ones((3, 16, 16, 1)), "3 pictures are given as mask_image for 1 prompts"),
    ],
)
def test_bad_masks_are_named(paint, mask, message):
    pipe, params = paint
    with pytest.raises(ValueError, match=message):
        pipe.steps(params, "a", inputs.picture(16), mask, key=jax.random.key(0))


def test_a_mask_may_be_of_booleans(paint):
    pipe, params = paint
    mask, options = inputs.mask(16), {"key": jax.random.key(0)}
    runs = [pipe.steps(params, "a", inputs.picture(16), form, **options) for form in (mask, mask > 0)]
    np.testing.assert_array_equal(*(run.after.args[0] for run in runs))


def test_an_inpainting_checkpoint_is_not_for_text_alone(sd):
    pipe, params = sd
    pipe = pipe.replace(unet=pipe.unet.clone(in_channels=9))
    with pytest.raises(ValueError, match="takes 9 channels and StableDiffusionPipeline gives it 4"):
        pipe.steps(params, "a", key=jax.random.key(0))


def compare(pair, strength, image=None):
    theirs, ours, params = pair
    image = inputs.picture()
    mask, options = inputs.mask(), {"strength": strength, "num_inference_steps": 20}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, image=parity.nchw(image), mask_image=parity.nchw(mask[None, ..., None]), height=128,
        width=128, generator=parity.generator(42), **options,
    )  # fmt: skip
    parity.assert_close(ours(params, inputs.PROMPTS, image, mask, torch_seed=42, **options, **QUIET).images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_parity_of_a_plain_unet(sd_pair, strength):
    compare(parity.other(sd_pair, "StableDiffusionInpaintPipeline"), strength)


@pytest.mark.parity
def test_parity_of_an_inpainting_unet(tmp_path):
    made = checkpoints.stable_diffusion(cls="StableDiffusionInpaintPipeline", in_channels=9)
    pair = parity.pair(tmp_path, made)
    compare(pair, 1.0)
    compare(pair, 0.6)
