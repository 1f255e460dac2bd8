"""Qwen-Image-2.1: alone, and beside diffusers."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from tests.pipelines import newer, parity, transformers
from tests.tokenizers import tiny

QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3}
KEY = jax.random.key(0)
PROMPTS = ["a cat", "two cats that sleep, and a third one that does not"]


@pytest.fixture(scope="module")
def drawn_pipe(tmp_path_factory):
    pipe = newer.our_qwenimage21(tmp_path_factory.mktemp("tokenizer"), sample_sigmas=(1.0, 0.75, 0.25))
    return transformers.drawn(pipe, "vae", "text_encoder", "transformer")


def test_pictures_come_out_and_a_saved_pipeline_draws_them(drawn_pipe, tmp_path):
    """With transparency, also by the command; padding changes nothing."""
    pipe, params = drawn_pipe
    drawn = pipe(params, "a cat", key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (1, 16, 24, 4)
    pipe.save_pretrained(tmp_path / "model", params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again == pipe and again.sample_sigmas == (1.0, 0.75, 0.25)
    tokens, _ = again.encode_prompt(loaded, "a cat")
    longer = tokens._replace(embeddings=np.pad(tokens.embeddings, ((0, 0), (0, 32), (0, 0)), constant_values=3),
                             mask=np.pad(tokens.mask, ((0, 0), (0, 32))))  # fmt: skip
    found = again(loaded, prompt_embeds=longer, key=KEY, output_type="np", **QUICK).images
    np.testing.assert_allclose(found, drawn, atol=1e-5)
    asked = ["generate", str(tmp_path / "model"), "a cat", "--steps", "2", "--height", "16", "--width", "24"]
    assert main([*asked, "--out", str(tmp_path / "cat.png")]) == 0
    assert Image.open(tmp_path / "cat.png").mode == "RGBA"


def test_levels_and_guidance(drawn_pipe):
    pipe, params = drawn_pipe
    run = pipe.steps(params, "a cat", negative_prompt="two dogs", guidance_scale=2.5, key=KEY, **QUICK)
    given = fdiff.FlowMatchEulerDiscreteScheduler(**newer.LINEAR).plan(
        3, sigmas=np.array([1.0, 0.75, 0.25]), mu=pipe.scheduler.mu(8 * 12)
    )
    np.testing.assert_allclose(run.plan.t[:3], given.t, rtol=1e-6)
    x, t = run.x, run.plan.t[0]
    positive, negative = (
        transformers.applied(pipe.transformer, params["transformer"], x, t / 1000, tokens.embeddings, tokens.mask,
                             np.array([tokens.mask.sum()]))
        for tokens in pipe.encode_prompt(params, "a cat", "two dogs")
    )  # fmt: skip
    np.testing.assert_allclose(transformers.call(run.network, x, t), negative + 2.5 * (positive - negative), atol=1e-4)
    plain = pipe.steps(params, "a cat", guidance_scale=2.5, key=KEY, **QUICK)  # for want of a negative prompt
    np.testing.assert_allclose(transformers.call(plain.network, x, t), positive, atol=1e-4)


def test_what_does_not_fit_is_told(drawn_pipe, caplog):
    pipe, params = drawn_pipe

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "key": KEY, **QUICK, **options})

    told("height is 18; it must be a multiple of 4", height=18)
    told("pass either prompt or prompt_embeds", prompt=None)
    told("QwenImage21Pipeline has no processor; pass prompt_embeds", pipe.replace(processor=None))
    pipe.steps(params, "a " + 20 * "cat", max_sequence_length=70, key=KEY, **QUICK)
    (said,) = caplog.messages
    assert "the text encoder reads 70; this is cut off: 'catcat" in said


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The parts are saved one by one, since diffusers' processor cannot be here."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("qwen")
    theirs = parity.quiet(newer.qwenimage21(folder / "tokenizer"))
    theirs.vae_scale_factor = 2  # which diffusers does not read of the config
    saved = folder / "saved"
    for name in ("scheduler", "vae", "text_encoder", "transformer"):
        getattr(theirs, name).save_pretrained(saved / name)
    tiny.qwen(saved / "processor")
    parts = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "vae": ["diffusers", "AutoencoderKLQwenImage21"],
        "text_encoder": ["transformers", "Qwen3VLForConditionalGeneration"],
        "processor": ["transformers", "Qwen3VLProcessor"],
        "transformer": ["diffusers", "QwenImage21Transformer2DModel"], "sample_sigmas": None,
    }  # fmt: skip
    (saved / "model_index.json").write_text(json.dumps({"_class_name": "QwenImage21Pipeline", **parts}))
    return theirs, *fdiff.DiffusionPipeline.from_pretrained(saved)


@pytest.mark.parity
@pytest.mark.parametrize("options", [
    {"num_images_per_prompt": 1}, {"negative_prompt": ["dogs", ""], "true_cfg_scale": 3.0},
], ids=["plain", "guided"])  # fmt: skip
def test_parity(pair, options):
    theirs, ours, params = pair
    given = {"height": 16, "width": 24, "num_inference_steps": 4}
    asked = {"guidance_scale" if key == "true_cfg_scale" else key: value for key, value in options.items()}
    wanted = theirs(PROMPTS, generator=parity.generator(5), output_type="np", **given, **options).images
    drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **given, **asked).images
    parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((2, 8, 12, 6)).astype(np.float32)
    latents = parity.nchw(x).flatten(2).transpose(1, 2)
    latents = parity.latents_of(theirs, PROMPTS, latents=latents, **given, **options)
    found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **given, **asked).images
    parity.assert_close(found, latents.swapaxes(1, 2).reshape(found.shape))


@pytest.mark.parity
def test_parity_of_levels_that_the_checkpoint_has(pair):
    theirs, ours, params = pair
    sigmas = [1.0, 0.7, 0.2]
    wanted = theirs("a cat", generator=parity.generator(5), output_type="np", height=16, width=24, sigmas=sigmas).images
    ours = dataclasses.replace(ours, sample_sigmas=tuple(sigmas))
    drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, height=16, width=24).images
    parity.assert_close(drawn, wanted)
