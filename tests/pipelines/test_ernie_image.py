"""ERNIE-Image: alone, and beside diffusers."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from fdiff.registry import find_component
from tests.pipelines import newer, parity, transformers

QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3}
KEY = jax.random.key(0)
PROMPTS = ["a cat", "two cats that sleep, and a third one that does not"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pipe = newer.our_ernie_image(tmp_path_factory.mktemp("tokenizer"))
    pipe, params = transformers.drawn(pipe, "vae", "text_encoder", "transformer")
    params["vae"]["bn"]["running_var"] = np.abs(params["vae"]["bn"]["running_var"])
    return pipe, params


def test_pictures_come_out_and_a_saved_pipeline_draws_them(tiny, tmp_path):
    """Also by the command, and a picture does not depend on the prompts beside it."""
    pipe, params = tiny
    drawn = pipe(params, PROMPTS, key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (2, 16, 24, 3)
    pipe.save_pretrained(tmp_path / "model", params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again == pipe
    both = again.encode_prompt(loaded, "a cat")
    given = {"prompt_embeds": both[0], "negative_prompt_embeds": both[1]}
    alone = again(loaded, key=jax.random.fold_in(KEY, 0)[None], output_type="np", **given, **QUICK).images
    np.testing.assert_allclose(alone[0], drawn[0], atol=1e-5)
    asked = ["generate", str(tmp_path / "model"), "a cat", "--steps", "2", "--height", "16", "--width", "24"]
    assert main([*asked, "--out", str(tmp_path / "cat.png")]) == 0
    assert Image.open(tmp_path / "cat.png").size[0] == 1.5 * Image.open(tmp_path / "cat.png").size[1]


def test_guidance_and_the_decoder(tiny):
    pipe, params = tiny
    run = pipe.steps(params, "a cat", negative_prompt="two dogs", guidance_scale=2.5, key=KEY, **QUICK)
    x, t = run.x, run.plan.t[0]
    both = pipe.encode_prompt(params, "a cat", "two dogs")
    positive, negative = (
        transformers.applied(pipe.transformer, params["transformer"], x, t, tokens.embeddings, tokens.mask)
        for tokens in both
    )
    np.testing.assert_allclose(transformers.call(run.network, x, t), negative + 2.5 * (positive - negative), atol=1e-4)
    other = pipe.replace(vae=pipe.vae.clone(batch_norm_eps=0.5))  # what no ERNIE-Image goes by
    np.testing.assert_array_equal(pipe.decode(params, x), other.decode(params, x))


def test_what_does_not_fit_is_told(tiny, caplog):
    pipe, params = tiny

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "key": KEY, **QUICK, **options})

    told("height is 18; it must be a multiple of 4", height=18)
    told("pass either prompt or prompt_embeds", prompt=None)
    told("max_sequence_length", max_sequence_length=0)
    told("ErnieImagePipeline has no text_encoder; pass prompt_embeds", pipe.replace(text_encoder=None))
    pipe.steps(params, "a " + 20 * "cat", max_sequence_length=20, guidance_scale=1.0, key=KEY, **QUICK)
    (said,) = caplog.messages
    assert "the text encoder reads 19; this is cut off: 'catcat" in said


def test_the_first_step_at_full_size(shared_data):
    """Of the Hub's configs, traced, without weights; the tokenizer's file is not among them."""
    folder = shared_data / "hub_configs" / "baidu" / "ERNIE-Image"
    index = json.loads((folder / "model_index.json").read_text())
    assert find_component(index["tokenizer"][1], folder) is fdiff.PreTrainedTokenizerFast
    parts = ("vae", "text_encoder", "transformer")
    loaded = {part: find_component(index[part][1], folder).from_config(
        json.loads((folder / part / "config.json").read_text())) for part in parts}  # fmt: skip
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    pipe = getattr(fdiff, index["_class_name"])(scheduler=scheduler, tokenizer=None, **loaded)
    shapes = {part: module.shapes() for part, module in loaded.items()}

    def first_step(params):
        ids = np.zeros((1, 40), np.int32)
        states = pipe.text_encoder.apply({"params": params["text_encoder"]}, ids, hidden_layers=(-2,))
        given = {"prompt_embeds": states[0], "guidance_scale": 1.0, "height": 512, "width": 768}
        run = pipe.steps(params, num_inference_steps=4, key=KEY, **given)
        return run.network(run.plan.c_in[0] * run.x, run.plan.t[0]), pipe.decode(params, run.x)

    out, picture = jax.eval_shape(first_step, shapes)
    assert (out.shape, picture.shape) == ((1, 32, 48, 128), (1, 512, 768, 3))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("ernie")
    return parity.pair(folder / "saved", newer.ernie_image(folder / "tokenizer"))


@pytest.mark.parity
@pytest.mark.parametrize("options", [
    {"guidance_scale": 1.0, "num_images_per_prompt": 2}, {"negative_prompt": ["dogs", ""], "guidance_scale": 3.0},
], ids=["plain", "guided"])  # fmt: skip
def test_parity(pair, options):
    theirs, ours, params = pair
    given = {key: QUICK[key] for key in QUICK if key != "progress"} | options
    wanted = theirs(PROMPTS, generator=parity.generator(5), output_type="np", **given).images
    drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **given).images
    parity.assert_close(drawn, wanted)
    if "negative_prompt" in options:
        x = np.random.default_rng(1).standard_normal((2, 4, 6, 16)).astype(np.float32)
        latents = parity.latents_of(theirs, PROMPTS, latents=parity.nchw(x), **given)
        found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **given).images
        parity.assert_close(found, latents)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    ours.save_pretrained(tmp_path, params)
    again = parity.quiet(diffusers.ErnieImagePipeline.from_pretrained(tmp_path))
    given = {"height": 16, "width": 24, "num_inference_steps": 2}
    wanted = parity.latents_of(theirs, "a cat", generator=parity.generator(5), **given)
    parity.assert_close(parity.latents_of(again, "a cat", generator=parity.generator(5), **given), wanted, 1e-5)
