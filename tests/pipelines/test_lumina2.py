"""Lumina 2: alone, and beside diffusers."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff import guidance
from fdiff.cli import main
from fdiff.pipelines.lumina2 import START, SYSTEM
from fdiff.registry import find_component
from tests.pipelines import newer, parity, transformers

QUICK = {"height": 32, "width": 48, "progress": False, "num_inference_steps": 4}
KEY = jax.random.key(0)
PROMPTS = ["a cat", "two cats that sleep, and a third one that does not"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pipe = newer.our_lumina2(tmp_path_factory.mktemp("tokenizer"))
    return transformers.drawn(pipe, "vae", "text_encoder", "transformer")


def test_pictures_come_out_and_a_saved_pipeline_draws_them(tiny, tmp_path):
    """Also by the command, and under the pipeline's older name; a picture does not depend on what is beside it."""
    pipe, params = tiny
    drawn = pipe(params, PROMPTS, key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (2, 32, 48, 3)
    pipe.save_pretrained(tmp_path / "model", params)
    index = tmp_path / "model" / "model_index.json"
    index.write_text(index.read_text().replace('"Lumina2Pipeline"', '"Lumina2Text2ImgPipeline"'))
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again == pipe
    both = again.encode_prompt(loaded, "a cat")
    given = {"prompt_embeds": both[0], "negative_prompt_embeds": both[1]}
    alone = again(loaded, key=jax.random.fold_in(KEY, 0)[None], output_type="np", **given, **QUICK).images
    np.testing.assert_allclose(alone[0], drawn[0], atol=1e-5)
    asked = ["generate", str(tmp_path / "model"), "a cat", "--steps", "2", "--width", "48"]
    assert main([*asked, "--out", str(tmp_path / "cat.png")]) == 0
    assert Image.open(tmp_path / "cat.png").size[0] == 1.5 * Image.open(tmp_path / "cat.png").size[1]


def test_guidance_and_what_is_read(tiny):
    """Rows are as long as the prompt's, for the first part of the run; the system's words go with the prompt alone."""
    pipe, params = tiny
    both = pipe.encode_prompt(params, "a cat", "dogs", system_prompt="see")
    assert [int(tokens.mask.sum()) - 1 for tokens in both] == [
        len(pipe.tokenizer.ids(text)) for text in (f"see{START}a cat", "dogs")
    ]
    given = {"prompt_embeds": both[0], "negative_prompt_embeds": both[1], "guidance_scale": 2.5, "key": KEY, **QUICK}
    run = pipe.steps(params, cfg_trunc_ratio=0.5, **given)
    x, t = run.x, run.plan.t[0]
    positive, negative = (
        -transformers.applied(pipe.transformer, params["transformer"], x, 1 - t / 1000, tokens.embeddings, tokens.mask)
        for tokens in both
    )
    whole = negative + 2.5 * (positive - negative)
    rows = [np.linalg.norm(one, axis=2, keepdims=True) for one in (positive, whole)]
    for row, wanted in ((1, whole * rows[0] / rows[1]), (2, positive)):
        np.testing.assert_allclose(transformers.call(fdiff.at_row(run.network, row), x, t), wanted, atol=1e-4)
    plain = pipe.steps(params, cfg_normalization=False, **given).network
    np.testing.assert_allclose(transformers.call(plain, x, t), whole, atol=1e-4)
    limited = pipe.steps(params, guider=guidance.norm_limited, **given).network
    shares = np.linalg.norm(positive) / np.linalg.norm(whole)
    np.testing.assert_allclose(transformers.call(limited, x, t), whole * min(1, shares), atol=1e-4)


def test_what_does_not_fit_is_told(tiny, caplog):
    pipe, params = tiny

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "key": KEY, **QUICK, **options})

    told("height is 18; it must be a multiple of 16", height=18)
    told("pass either prompt or prompt_embeds", prompt=None)
    told("max_sequence_length", max_sequence_length=0)
    told("cfg_trunc_ratio is 'x'; it must be a number", cfg_trunc_ratio="x")
    told("Lumina2Pipeline has no text_encoder; pass prompt_embeds", pipe.replace(text_encoder=None))
    pipe.steps(params, "a " + 200 * "cat", guidance_scale=1.0, key=KEY, **QUICK)
    (said,) = caplog.messages
    assert "the text encoder reads 255; this is cut off: 'cat" in said, said


def test_the_first_step_at_full_size(shared_data):
    """Of the Hub's configs, traced, without weights; the tokenizer's file is not among them."""
    folder = shared_data / "hub_configs" / "neta-art" / "Neta-Lumina"
    index = json.loads((folder / "model_index.json").read_text())
    assert find_component(index["tokenizer"][1], folder) is fdiff.GemmaTokenizer
    parts = ("vae", "text_encoder", "transformer")
    loaded = {part: find_component(index[part][1], folder).from_config(
        json.loads((folder / part / "config.json").read_text())) for part in parts}  # fmt: skip
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    pipe = getattr(fdiff, index["_class_name"])(scheduler=scheduler, tokenizer=None, **loaded)
    shapes = {part: module.shapes() for part, module in loaded.items()}

    def first_step(params):
        ids = np.zeros((1, 40), np.int32)
        states = pipe.text_encoder.apply({"params": params["text_encoder"]}, ids, hidden_layers=(-2,))
        given = {"prompt_embeds": states[0], "guidance_scale": 1.0, "width": 768}
        run = pipe.steps(params, num_inference_steps=4, key=KEY, **given)
        return run.network(run.plan.c_in[0] * run.x, run.plan.t[0]), pipe.decode(params, run.x)

    out, picture = jax.eval_shape(first_step, shapes)
    assert (out.shape, picture.shape) == ((1, 128, 96, 16), (1, 1024, 768, 3))


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("lumina2")
    return parity.pair(folder / "saved", newer.lumina2(folder / "tokenizer"))


@pytest.mark.parity
@pytest.mark.parametrize("options", [
    {"guidance_scale": 1.0, "system_prompt": "see", "num_images_per_prompt": 2},
    {"negative_prompt": ["dogs", ""], "cfg_trunc_ratio": 0.6, "num_inference_steps": 30},
    {"cfg_normalization": False, "max_sequence_length": 40},
], ids=["plain", "guided", "not_normalized"])  # fmt: skip
def test_parity(pair, options):
    theirs, ours, params = pair
    # of one length where there are several pictures, since diffusers gives their masks to other prompts
    prompts = ["a cat", "b cat"] if "num_images_per_prompt" in options else PROMPTS
    given = {key: QUICK[key] for key in QUICK if key != "progress"} | options
    wanted = theirs(list(prompts), generator=parity.generator(5), output_type="np", **given).images
    drawn = ours(params, prompts, torch_seed=5, output_type="np", progress=False, **given).images
    parity.assert_close(drawn, wanted)
    if "negative_prompt" in options:
        x = np.random.default_rng(1).standard_normal((2, 4, 6, 4)).astype(np.float32)
        latents = parity.latents_of(theirs, list(prompts), latents=parity.nchw(x), **given)
        found = ours(params, prompts, latents=x, output_type="latent", progress=False, **given).images
        parity.assert_close(found, latents)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    ours.save_pretrained(tmp_path, params)
    again = parity.quiet(diffusers.Lumina2Pipeline.from_pretrained(tmp_path))
    assert theirs.system_prompt == SYSTEM
    given = {"height": 32, "width": 48, "num_inference_steps": 2}
    wanted = parity.latents_of(theirs, "a cat", generator=parity.generator(5), **given)
    parity.assert_close(parity.latents_of(again, "a cat", generator=parity.generator(5), **given), wanted, 1e-5)
