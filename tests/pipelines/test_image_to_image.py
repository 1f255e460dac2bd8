"""Stable Diffusion from a picture and text."""

import pytest

from tests.pipelines import inputs, parity

QUIET = {"output_type": "latent", "progress": False}


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
