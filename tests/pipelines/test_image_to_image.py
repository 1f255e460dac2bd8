"""Stable Diffusion from a picture and text."""

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.pipelines import denoise, latent
from tests.pipelines import inputs, parity

QUIET = {"output_type": "latent", "progress": False}


@pytest.fixture(scope="module")
def redraw(sd):
    return fdiff.StableDiffusionImg2ImgPipeline.from_pipe(sd[0]), sd[1]


def test_reference(redraw, drawn):
    pipe, params = redraw
    options = {"strength": 0.7, "negative_prompt": "blurry", "num_inference_steps": 20}
    images = pipe(params, inputs.PROMPTS, inputs.picture(16), torch_seed=42, **options, **QUIET).images
    parity.assert_close(images, drawn["image"], 1e-4)


def test_host_class_is_the_pure_function(redraw):
    pipe, params = redraw
    image, key, plan = inputs.picture(16, 2), jax.random.key(1), pipe.scheduler.plan(4, strength=0.5)
    both = pipe.encode_prompt(params, inputs.PROMPTS)
    conditions = (denoise.Condition(one.embeddings) for one in both)
    pictures = fdiff.image_to_image(pipe.unet, pipe.vae, params, plan, image, *conditions, key)
    options = {"strength": 0.5, "num_inference_steps": 4, "output_type": "array", "progress": False}
    np.testing.assert_allclose(pipe(params, inputs.PROMPTS, image, key=key, **options).images, pictures, atol=2e-4)


def test_pictures_come_in_many_forms(redraw):
    pipe, params = redraw
    image = np.round((inputs.picture(16)[0] + 1) * 127.5)
    latents = latent.encoded(pipe.vae, params["vae"], image[None] / 127.5 - 1, np.zeros((1, 8, 8, 4), np.float32))
    forms = [Image.fromarray(image.astype(np.uint8)), image.astype(np.uint8), image / 127.5 - 1, [image / 127.5 - 1]]
    starts = [pipe.steps(params, "a", form, key=jax.random.key(0)).x for form in forms]
    for x in starts[1:]:
        np.testing.assert_allclose(x, starts[0], atol=1e-5)
    assert pipe.steps(params, "a", latents, key=jax.random.key(0)).x.shape == (1, 8, 8, 4)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (None, {}, "image is missing"),
        (inputs.picture(16)[0, :12], {}, "height is 12; it must be a multiple of 8"),
        (np.zeros((16, 16, 5), np.float32), {}, "image has 5 channels; it must have 3"),
        (np.zeros((16, 16, 3), np.int64), {}, "image holds int64 numbers"),
        ([np.zeros((16, 16, 3)), np.zeros((8, 8, 3))], {}, "several sizes"),
        (inputs.picture(16, 3), {}, "3 pictures are given as image for 2 prompts"),
        (inputs.picture(16, 3), {"num_images_per_prompt": 3}, "3 pictures are given as image for 2 prompts, 6 to draw"),
        (np.zeros((16, 16, 4), np.uint8), {}, "image has 4 channels; convert it to RGB"),
        (inputs.picture(16) * 127 + 127, {}, "image holds numbers from .*; floats must lie within -1 and 1"),
        (inputs.picture(16) * np.nan, {}, "image holds numbers that are not finite"),
        (inputs.picture(16) + 0j, {}, "image holds complex64 numbers"),
        (np.zeros((0, 16, 16, 3)), {}, "so it holds no picture"),
        ("cat.png", {}, "image is the path 'cat.png'; open it first"),
        (inputs.picture(16), {"strength": "half"}, "strength is 'half'"),
        (inputs.picture(16), {"strength": 1.5}, "strength is 1.5"),
        (inputs.picture(16), {"strength": 0.0}, "strength 0.0 leaves none"),
    ],
)
def test_bad_input_is_named(redraw, image, options, message):
    pipe, params = redraw
    with pytest.raises(ValueError, match=message):
        pipe.steps(params, inputs.PROMPTS, image, key=jax.random.key(0), num_inference_steps=4, **options)


@pytest.mark.parity
@pytest.mark.parametrize(("strength", "batch"), [(0.6, 1), (1.0, 2)])
def test_parity_with_torch_seed(sd_pair, strength, batch):
    theirs, ours, params = parity.other(sd_pair, "StableDiffusionImg2ImgPipeline")
    image = inputs.picture(batch_size=batch)
    options = {"strength": strength, "num_inference_steps": 20}
    wanted = parity.latents_of(
        theirs, inputs.PROMPTS, image=parity.nchw(image), generator=parity.generator(42), **options
    )
    parity.assert_close(ours(params, inputs.PROMPTS, image, torch_seed=42, **options, **QUIET).images, wanted)
