"""Stable Diffusion that paints a part of a picture anew."""

import pytest

from tests.pipelines import checkpoints, inputs, parity

QUIET = {"output_type": "latent", "progress": False}


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
