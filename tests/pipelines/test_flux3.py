"""FLUX.3: alone, and beside diffusers."""

import json

import jax
import numpy as np
import pytest

import fdiff
from fdiff.pipelines.flux3 import cut, filled
from tests.pipelines import newer, parity, transformers
from tests.tokenizers import tiny

LAYERS = (0, 1, 2)
QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3, "text_encoder_out_layers": LAYERS}
KEY = jax.random.key(0)
LONG = "two cats that sleep, and a third one that does not, nor do the dogs"  # of two windows
TEXT = {"text_encoder_out_layers": LAYERS}


@pytest.fixture(scope="module", params=[False, True], ids=["base", "distilled"])
def tiny_pipe(tmp_path_factory, request):
    pipe = newer.our_flux3(tmp_path_factory.mktemp("tokenizer"), request.param)
    pipe, params = transformers.drawn(pipe, "vae", "text_encoder", "transformer")
    params["vae"]["bn"]["running_var"] = np.abs(params["vae"]["bn"]["running_var"]) + 0.5
    return pipe, params


def test_pictures_come_out_and_a_saved_pipeline_draws_them(tiny_pipe, tmp_path):
    """Whatever is drawn beside them."""
    pipe, params = tiny_pipe
    drawn = pipe(params, ["a cat", LONG], key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (2, 16, 24, 3)
    pipe.save_pretrained(tmp_path, params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path)
    assert again == pipe
    both = again.encode_prompt(loaded, "a cat", **TEXT)
    assert both[0].embeddings.shape == (1, 80, 48)
    given = {"prompt_embeds": both[0], "negative_prompt_embeds": both[1], **QUICK}
    alone = again(loaded, key=jax.random.fold_in(KEY, 0)[None], output_type="np", **given).images
    np.testing.assert_allclose(alone[0], drawn[0], atol=1e-5)


def test_what_the_network_is_told(tiny_pipe):
    """Pictures to keep to lie before the text on its axis; a distilled one is told where each step goes."""
    pipe, params = tiny_pipe
    kept = [transformers.photo(66, 70), transformers.photo(80, 64, 2)]
    run = pipe.steps(params, "a cat", kept, guidance_scale=2.5, key=KEY, **QUICK)
    x, t = run.x, run.plan.t
    vae = jax.jit(lambda x, method: pipe.vae.apply({"params": params["vae"]}, x, method=method), static_argnums=1)
    latents = [vae(vae(cut(one, 4), "encode").mean, "scale") for one in kept]
    assert [one.shape for one in latents] == [(1, 17, 16, 16), (1, 16, 20, 16)]
    ids = [[[0, row / 2, column / 2, place] for row in range(rows) for column in range(columns)]
           for place, rows, columns in ((0, 4, 6), (-1, 17, 16), (-2, 16, 20))]  # fmt: skip
    ids = [np.array(one, np.float32) for one in ids]
    words = np.array([[0, 0, 0, i] for i in range(80)], np.float32)
    references = np.concatenate([one.reshape(1, -1, 16) for one in latents], axis=1)
    texts = pipe.encode_prompt(params, "a cat", **TEXT)
    distilled = pipe.transformer.flow_map
    for row, goes_to in ((0, t[1] / 1000), (2, 0.0)):
        told = np.full(1, goes_to, np.float32) if distilled else None
        positive, negative = (
            transformers.applied(pipe.transformer, params["transformer"], x.reshape(1, 24, 16), text.embeddings,
                                 t[row] / 1000, ids[0], words, references, np.concatenate(ids[1:]), told)
            for text in texts
        )  # fmt: skip
        wanted = positive if distilled else negative + 2.5 * (positive - negative)
        found = transformers.call(fdiff.at_row(run.network, row), x, t[row])
        np.testing.assert_allclose(found, wanted.reshape(x.shape), atol=1e-4)


def test_pictures_to_keep_whole():
    array, box = filled(transformers.photo(70, 65), 4)
    assert array.shape == (1, 68, 72, 3) and box == (1, 66, 1, 71)
    np.testing.assert_array_equal(array[0, 0], array[0, 2])
    small, box = filled(transformers.photo(6, 3), 4)
    assert small.shape == (1, 64, 64, 3) and box == (30, 33, 29, 35)
    np.testing.assert_array_equal(small[0, 29], small[0, 30])
    large, _ = filled(transformers.photo(5000, 1300), 16)
    assert large.shape[1] % 16 == large.shape[2] % 16 == 0 and large.shape[1] * large.shape[2] <= 4 * 2**20
    with pytest.raises(ValueError, match="4096 are the most on each side"):
        filled(np.zeros((4, 4100, 3), np.uint8), 16)
    with pytest.raises(ValueError, match=r"image has shape \(64, 64, 1\)"):
        filled(np.zeros((64, 64), np.uint8), 4)
    with pytest.raises(ValueError, match="a picture to keep to must have 4 or more on each side"):
        cut(transformers.photo(24, 3), 4)


@pytest.fixture(scope="module", params=[False, True], ids=["base", "distilled"])
def pair(tmp_path_factory, request):
    """The parts are saved one by one, since diffusers' processor cannot be here."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("flux3")
    theirs = newer.flux3(folder / "tokenizer", request.param)
    theirs.set_progress_bar_config(disable=True)
    saved = folder / "saved"
    for name in ("scheduler", "vae", "text_encoder", "transformer"):
        getattr(theirs, name).save_pretrained(saved / name)
    tiny.qwen(saved / "tokenizer")
    parts = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "vae": ["diffusers", "AutoencoderKLFlux2"],
        "text_encoder": ["transformers", "Qwen3VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen3VLProcessor"], "transformer": ["diffusers", "Flux3Transformer2DModel"],
    }  # fmt: skip
    (saved / "model_index.json").write_text(json.dumps({"_class_name": "Flux3Pipeline", **parts}))
    return theirs, *fdiff.DiffusionPipeline.from_pretrained(saved)


@pytest.mark.parity
def test_parity(pair):
    theirs, ours, params = pair
    given = {"height": 16, "width": 24, "num_inference_steps": 3, **TEXT}
    against = {} if ours.transformer.flow_map else {"negative_prompt": "dogs"}
    more = {"num_images_per_prompt": 2, **against}
    wanted = theirs(prompt=LONG, generator=parity.generator(5), output_type="np", output="images", **given, **more)
    drawn = ours(params, LONG, torch_seed=5, output_type="np", progress=False, **given, **more).images
    parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((1, 4, 6, 16)).astype(np.float32)
    wanted = theirs(prompt="a cat", latents=parity.nchw(x), output_type="np", output="images", **given)
    parity.assert_close(ours(params, "a cat", latents=x, output_type="np", progress=False, **given).images, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("count", [1, 2])
def test_parity_of_pictures_to_keep_to(pair, count):
    """One comes out with its own size, of several the first one's."""
    theirs, ours, params = pair
    kept = [transformers.photo(70, 67), transformers.photo(90, 66, 2)][:count]
    given = {"num_inference_steps": 2, **TEXT}
    wanted = theirs(
        prompt="a cat", image=kept, generator=parity.generator(5), output_type="np", output="images", **given
    )
    drawn = ours(params, "a cat", kept, torch_seed=5, output_type="np", progress=False, **given).images
    assert drawn.shape[1:3] == ((67, 70) if count == 1 else (64, 68))
    parity.assert_close(drawn, wanted)
