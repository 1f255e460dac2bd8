"""Z-Image: alone, and beside diffusers."""

import copy

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from tests.pipelines import parity, transformers

QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pipe = transformers.our_z_image(tmp_path_factory.mktemp("tokenizer"))
    return transformers.drawn(pipe, "vae", "text_encoder", "transformer")


def test_pictures_come_out_and_a_saved_pipeline_draws_them(tiny, tmp_path):
    pipe, params = tiny
    drawn = pipe(params, ["a cat", "two long cats"], key=KEY, guidance_scale=0.0, **QUICK).images
    assert [picture.size for picture in drawn] == [(24, 16)] * 2
    pipe.save_pretrained(tmp_path, params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path)
    assert again == pipe
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(np.arange(1, 2))
    alone = again(loaded, "two long cats", key=keys, guidance_scale=0.0, output_type="np", **QUICK).images
    np.testing.assert_allclose(alone[0], np.asarray(drawn[1]) / 255, atol=3e-3)


def test_guidance(tiny):
    """The formula, its limit and its end; time runs backwards in the network, which is told what is text."""
    pipe, params = tiny
    both = pipe.encode_prompt(params, "a cat", "dogs and dogs, more than a line of them")
    assert [tokens.embeddings.shape[1] for tokens in both] == [32, 64]
    given = dict(zip(("prompt_embeds", "negative_prompt_embeds"), both, strict=True))
    options = {**QUICK, **given, "key": KEY}

    def said(tokens, x, t):
        module, tree = pipe.transformer, params["transformer"]
        return -transformers.applied(module, tree, x, (1000 - t) / 1000, tokens.embeddings, tokens.mask)

    run = pipe.steps(params, guidance_scale=2.5, cfg_truncation=0.3, **options)
    longer = both[0]._replace(embeddings=np.pad(both[0].embeddings, ((0, 0), (0, 32), (0, 0))),
                              mask=np.pad(both[0].mask, ((0, 0), (0, 32))))  # fmt: skip
    assert [round(float(t)) for t in run.plan.t] == [1000, 857, 600]
    x, t = run.x, run.plan.t[0]
    positive, negative = (said(tokens, x, t) for tokens in (longer, both[1]))
    wanted = positive + 2.5 * (positive - negative)
    first, third = (transformers.call(fdiff.at_row(run.network, i), x, run.plan.t[i]) for i in (0, 2))
    np.testing.assert_allclose(first, wanted, atol=1e-4)
    np.testing.assert_allclose(third, said(longer, x, run.plan.t[2]), atol=1e-4)
    limited = transformers.call(pipe.steps(params, guidance_scale=2.5, cfg_normalization=0.5, **options).network, x, t)
    np.testing.assert_allclose(limited, wanted * 0.5 * np.linalg.norm(positive) / np.linalg.norm(wanted), atol=1e-4)
    plain = pipe.steps(params, guidance_scale=0, prompt_embeds=both[0], **QUICK, key=KEY).network
    np.testing.assert_allclose(transformers.call(plain, x, t), positive, atol=1e-4)


def test_what_does_not_fit_is_told(tiny, caplog):
    pipe, params = tiny

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "key": KEY, **QUICK, **options})

    told("height is 18; it must be a multiple of 4", height=18)
    told("pass either prompt or prompt_embeds", prompt=None)
    told("both negative_prompt and", negative_prompt="a", negative_prompt_embeds=np.zeros((1, 2, 3)))
    told("prompt_embeds must be an array", prompt=None, prompt_embeds=np.zeros((2, 3)))
    told("2 texts are given as negative_prompt for 1 prompts", negative_prompt=["a", "b"])
    told("cfg_normalization is 'x'; it must be a number", cfg_normalization="x")
    told("max_sequence_length", max_sequence_length=0)
    told("ZImagePipeline has no text_encoder; pass prompt_embeds", pipe.replace(text_encoder=None))
    told("num_images_per_prompt", num_images_per_prompt=0)
    assert not caplog.messages
    pipe.steps(params, "a " + 20 * "cat", max_sequence_length=20, guidance_scale=0.0, key=KEY, **QUICK)
    (said,) = caplog.messages
    assert "the text encoder reads 20; this is cut off: 'catcat" in said


def test_the_command(tiny, tmp_path, capsys):
    """`fdiff generate FOLDER PROMPT`, and its sibling for a picture."""
    pipe, params = tiny
    pipe.save_pretrained(tmp_path / "model", params)
    asked = ["generate", str(tmp_path / "model"), "a cat", "--steps", "2", "--guidance-scale", "0"]
    assert main([*asked, "--height", "16", "--width", "24", "--out", str(tmp_path / "cat.png")]) == 0
    transformers.photo().save(tmp_path / "photo.png")
    assert main([*asked, "--image", str(tmp_path / "photo.png"), "--out", str(tmp_path / "again.png")]) == 0
    assert Image.open(tmp_path / "again.png").size == Image.open(tmp_path / "cat.png").size
    assert main([*asked, "--height", "18", "--out", str(tmp_path / "no.png")]) == 2
    assert "height is 18; it must be a multiple of 4" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "model")]) == 0
    assert "memory: about 1 MB in float32 and 1 MB in bfloat16, for the parameters alone" in capsys.readouterr().out


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("z_image")
    return parity.pair(folder / "saved", transformers.z_image(folder / "tokenizer"))


PROMPTS = ["a cat", "two cats that sleep, and a third one that does not"]
SIZE = {"height": 16, "width": 24, "num_inference_steps": 5}


@pytest.mark.parity
@pytest.mark.parametrize("options", [
    {"guidance_scale": 0.0},
    {"negative_prompt": ["dogs", ""], "guidance_scale": 3.0, "num_images_per_prompt": 2},
    {"cfg_normalization": 0.7, "cfg_truncation": 0.4},
], ids=["turbo", "guided", "limited"])  # fmt: skip
def test_parity(pair, options):
    theirs, ours, params = pair
    copied = copy.deepcopy(options)  # since diffusers writes what its template makes of texts into their lists
    wanted = theirs(list(PROMPTS), generator=parity.generator(5), output_type="np", **SIZE, **copied).images
    drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **SIZE, **options).images
    parity.assert_close(drawn, wanted)
    if "negative_prompt" not in options:
        x = np.random.default_rng(1).standard_normal((2, 8, 12, 4)).astype(np.float32)
        latents = parity.latents_of(theirs, list(PROMPTS), latents=parity.nchw(x), **SIZE, **options)
        found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **SIZE, **options).images
        parity.assert_close(found, latents)


@pytest.mark.parity
def test_parity_of_a_shift_that_the_size_asks_for(pair):
    import diffusers

    theirs, ours, params = pair
    shifted = {"use_dynamic_shifting": True, "base_shift": 0.3, "max_shift": 4.0, "base_image_seq_len": 4}
    theirs = parity.quiet(diffusers.ZImagePipeline(**{
        **theirs.components, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**shifted)
    }))  # fmt: skip
    ours = ours.replace(scheduler=fdiff.FlowMatchEulerDiscreteScheduler(**shifted))
    wanted = parity.latents_of(theirs, "a cat", generator=parity.generator(5), **SIZE)
    found = ours(params, "a cat", torch_seed=5, output_type="latent", progress=False, **SIZE).images
    parity.assert_close(found, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_parity_of_a_picture_redrawn(pair, strength):
    theirs, ours, params = parity.other(pair, "ZImageImg2ImgPipeline")
    image = transformers.photo()
    options = {"num_inference_steps": 5, "strength": strength, "guidance_scale": 2.0, "num_images_per_prompt": 2}
    wanted = theirs("a cat", image, generator=parity.generator(5), output_type="np", **options).images
    drawn = ours(params, "a cat", image, torch_seed=5, output_type="np", progress=False, **options).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_parity_of_a_part_painted_anew(pair, strength):
    theirs, ours, params = parity.other(pair, "ZImageInpaintPipeline")
    image, white = transformers.photo(), transformers.mask()
    options = {"num_inference_steps": 5, "strength": strength, "guidance_scale": 2.0}
    wanted = theirs("a cat", image, white, generator=parity.generator(5), output_type="np", **options).images
    drawn = ours(params, "a cat", image, white, torch_seed=5, output_type="np", progress=False, **options).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with(pair, tmp_path):
    """And a text encoder without the layer that chooses words, as the Hub's index calls it."""
    import diffusers
    import transformers as hub

    theirs, ours, params = pair
    ours.save_pretrained(tmp_path / "ours", params)
    again = parity.quiet(diffusers.ZImagePipeline.from_pretrained(tmp_path / "ours"))
    given = {"height": 16, "width": 24, "num_inference_steps": 2}
    wanted = parity.latents_of(theirs, "a cat", generator=parity.generator(5), **given)
    parity.assert_close(parity.latents_of(again, "a cat", generator=parity.generator(5), **given), wanted, 1e-5)
    theirs.register_modules(text_encoder=theirs.text_encoder.model)
    theirs.save_pretrained(tmp_path / "theirs")
    assert isinstance(theirs.text_encoder, hub.Qwen3Model)
    bare, bare_params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "theirs")
    found = bare(bare_params, "a cat", torch_seed=5, output_type="latent", progress=False, **given).images
    parity.assert_close(found, wanted)
