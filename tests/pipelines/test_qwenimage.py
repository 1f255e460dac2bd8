"""Qwen-Image: alone, and beside diffusers."""

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from tests.pipelines import parity, toy_qwenimage, transformers

QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3}
KEY = jax.random.key(0)
PROMPTS = ["a cat", "two cats that sleep, and a third one that does not"]


@pytest.fixture(scope="module")
def drawn_pipe(tmp_path_factory):
    return transformers.drawn(toy_qwenimage.ours(tmp_path_factory.mktemp("tokenizer")), "vae", "text_encoder",
                              "transformer")  # fmt: skip


def test_pictures_come_out_and_a_saved_pipeline_draws_them(drawn_pipe, tmp_path):
    """Also by the command, from a picture too; padding changes nothing."""
    pipe, params = drawn_pipe
    drawn = pipe(params, "a cat", key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (1, 16, 24, 3)
    pipe.save_pretrained(tmp_path / "model", params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again == pipe
    tokens, _ = again.encode_prompt(loaded, "a cat")
    longer = tokens._replace(embeddings=np.pad(tokens.embeddings, ((0, 0), (0, 32), (0, 0)), constant_values=3),
                             mask=np.pad(tokens.mask, ((0, 0), (0, 32))))  # fmt: skip
    found = again(loaded, prompt_embeds=longer, key=KEY, output_type="np", **QUICK).images
    np.testing.assert_allclose(found, drawn, atol=1e-5)
    asked = ["generate", str(tmp_path / "model"), "a cat", "--steps", "2"]
    assert main([*asked, "--height", "16", "--width", "24", "--out", str(tmp_path / "cat.png")]) == 0
    transformers.photo().save(tmp_path / "photo.png")
    assert main([*asked, "--image", str(tmp_path / "photo.png"), "--out", str(tmp_path / "again.png")]) == 0
    assert Image.open(tmp_path / "again.png").size == Image.open(tmp_path / "cat.png").size


def test_levels_and_guidance(drawn_pipe):
    """The levels end at shift_terminal; each square stays as long as what is said of the prompt."""
    pipe, params = drawn_pipe
    run = pipe.steps(params, "a cat", negative_prompt="dogs", guidance_scale=2.5, key=KEY, **QUICK)
    assert run.plan.t[2] == pytest.approx(20, rel=1e-5)
    x, t = run.x, run.plan.t[0]

    def squares(x):
        return np.asarray(x).reshape(1, 4, 2, 6, 2, 4).transpose(0, 1, 3, 5, 2, 4).reshape(1, 4, 6, 16)

    positive, negative = (
        transformers.applied(pipe.transformer, params["transformer"], squares(x), t / 1000, *tokens)
        for tokens in pipe.encode_prompt(params, "a cat", "dogs")
    )
    wanted = negative + 2.5 * (positive - negative)
    wanted *= np.linalg.norm(positive, axis=-1, keepdims=True) / np.linalg.norm(wanted, axis=-1, keepdims=True)
    np.testing.assert_allclose(squares(transformers.call(run.network, x, t)), wanted, atol=1e-4)
    plain = pipe.steps(params, "a cat", guidance_scale=2.5, key=KEY, **QUICK)  # for want of a negative prompt
    np.testing.assert_allclose(squares(transformers.call(plain.network, x, t)), positive, atol=1e-4)


def test_what_does_not_fit_is_told(drawn_pipe, caplog):
    pipe, params = drawn_pipe

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "key": KEY, **QUICK, **options})

    told("height is 18; it must be a multiple of 4", height=18)
    told("pass either prompt or prompt_embeds", prompt=None)
    told("QwenImagePipeline has no text_encoder; pass prompt_embeds", pipe.replace(text_encoder=None))
    told("max_sequence_length", max_sequence_length=0)
    told("guidance_scale is 'x'; it must be a number", guidance_scale="x")
    assert not caplog.messages
    pipe.steps(params, "a " + 20 * "cat", max_sequence_length=100, key=KEY, **QUICK)
    (said,) = caplog.messages
    assert "the text encoder reads 134; this is cut off: '" in said and "cat<|im_end|>" in said


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("qwenimage")
    return parity.pair(folder / "saved", toy_qwenimage.theirs(folder / "tokenizer"))


def both_ways(options):
    """What diffusers is asked, and what fdiff is."""
    return options, {"guidance_scale" if key == "true_cfg_scale" else key: one for key, one in options.items()}


@pytest.mark.parity
@pytest.mark.parametrize("prompts, options", [
    (PROMPTS[:1], {"num_images_per_prompt": 2}),  # of several prompts, diffusers mixes up which tokens are there
    (PROMPTS, {"negative_prompt": ["dogs", " "], "true_cfg_scale": 3.0, "max_sequence_length": 200}),
], ids=["plain", "guided"])  # fmt: skip
def test_parity(pair, prompts, options):
    pipe, mine, params = pair
    given = {"height": 16, "width": 24, "num_inference_steps": 4}
    options, asked = both_ways(options)
    wanted = pipe(prompts, generator=parity.generator(5), output_type="np", **given, **options).images
    drawn = mine(params, prompts, torch_seed=5, output_type="np", progress=False, **given, **asked).images
    parity.assert_close(drawn, wanted)
    if "negative_prompt" in options:
        x = np.random.default_rng(1).standard_normal((2, 8, 12, 4)).astype(np.float32)
        latents = parity.nchw(x)[:, None]
        latents = pipe._pack_latents(latents, 2, 4, 8, 12)
        wanted = pipe(prompts, latents=latents, output_type="latent", **given, **options).images
        wanted = pipe._unpack_latents(wanted, 16, 24, 2)[:, :, 0]
        found = mine(params, prompts, latents=x, output_type="latent", progress=False, **given, **asked).images
        parity.assert_close(found, parity.nhwc(wanted))


@pytest.mark.parity
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_parity_of_pictures_redrawn_and_painted_anew(pair, strength):
    image, white = transformers.photo(), transformers.mask()
    options = {"num_inference_steps": 4, "strength": strength, "height": 16, "width": 24, "negative_prompt": "dogs",
               "true_cfg_scale": 2.0, "num_images_per_prompt": 2}  # fmt: skip
    options, asked = both_ways(options)
    for name, given in (("Img2Img", {"image": image}), ("Inpaint", {"image": image, "mask_image": white})):
        pipe, mine, params = parity.other(pair, f"QwenImage{name}Pipeline")
        wanted = pipe("a cat", generator=parity.generator(5), output_type="np", **given, **options).images
        drawn = mine(params, "a cat", torch_seed=5, output_type="np", progress=False, **given, **asked).images
        parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with(pair, tmp_path):
    import diffusers

    pipe, mine, params = pair
    given = {"height": 16, "width": 24, "num_inference_steps": 2}
    again = mine.replace(text_encoder=None, tokenizer=None)
    again.save_pretrained(tmp_path, params)
    saved = parity.quiet(diffusers.QwenImagePipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None))
    embeds, mask = pipe.encode_prompt("a cat")
    wanted = pipe(prompt_embeds=embeds, prompt_embeds_mask=mask, generator=parity.generator(5), output_type="latent",
                  **given).images  # fmt: skip
    found = saved(prompt_embeds=embeds, prompt_embeds_mask=mask, generator=parity.generator(5), output_type="latent",
                  **given).images  # fmt: skip
    parity.assert_close(found, wanted, 1e-5)
