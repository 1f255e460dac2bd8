"""Stable Diffusion from text: equal to diffusers, seeds stand alone, nothing compiles twice, bad input is named."""

import numpy as np
import pytest

from tests.pipelines import parity

PROMPTS = ["a photo of a cat", "an astronaut riding a horse"]
LATENTS = np.random.default_rng(0).normal(size=(2, 16, 16, 4)).astype(np.float32)


@pytest.mark.parity
class TestParity:
    """The pipeline of diffusers, live, on a medium random checkpoint."""

    def both(self, pair, **options):
        them, us, params = pair
        theirs = parity.latents_of(them, PROMPTS, latents=parity.nchw(LATENTS), **options)
        ours = us(params, PROMPTS, latents=LATENTS, output_type="latent", progress=False, **options)
        return ours.images, theirs

    def test_guided_and_decoded(self, sd_pair):
        them, us, params = sd_pair
        ours, theirs = self.both(sd_pair, negative_prompt=["blurry", "dog"], guidance_scale=7.5, num_inference_steps=20)
        parity.assert_close(ours, theirs)
        pictures = them.vae.decode(parity.nchw(theirs) / them.vae.config.scaling_factor).sample
        parity.assert_close(us.decode(params, ours), np.moveaxis(pictures.detach().numpy(), 1, -1))

    def test_rescaled_and_clip_skip(self, sd_pair):
        them, us, params = sd_pair
        ids = them.tokenizer(["", *PROMPTS], padding="max_length", return_tensors="pt").input_ids
        output = them.text_encoder(ids, output_hidden_states=True)
        skipped = them.text_encoder.final_layer_norm(output.hidden_states[-2])[1:].detach()
        nothing = output.last_hidden_state[[0, 0]].detach()
        options = {"guidance_scale": 5.0, "guidance_rescale": 0.7, "num_inference_steps": 20}
        embeddings = {"prompt_embeds": skipped, "negative_prompt_embeds": nothing}
        theirs = parity.latents_of(them, latents=parity.nchw(LATENTS), **embeddings, **options)
        ours = us(params, PROMPTS, latents=LATENTS, output_type="latent", progress=False, clip_skip=1, **options)
        parity.assert_close(ours.images, theirs)

    def test_unguided_with_embeddings(self, sd_pair):
        _, us, params = sd_pair
        embeddings, _ = us.encode_prompt(params, PROMPTS)
        ours, theirs = self.both(sd_pair, guidance_scale=1.0, num_inference_steps=20)
        parity.assert_close(ours, theirs)
        options = {"guidance_scale": 1.0, "num_inference_steps": 20, "output_type": "latent", "progress": False}
        from_embeddings = us(params, prompt_embeds=embeddings.embeddings, latents=LATENTS, **options)
        np.testing.assert_allclose(from_embeddings.images, ours, atol=1e-6)
