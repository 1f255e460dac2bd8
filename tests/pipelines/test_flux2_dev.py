"""FLUX.2 dev: alone, and beside diffusers."""

import jax
import numpy as np
import pytest

import fdiff
from tests.models.compare import assert_names
from tests.pipelines import newer, parity, transformers

LAYERS = (0, 1, 2)
QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3, "text_encoder_out_layers": LAYERS,
         "max_sequence_length": 250}  # fmt: skip
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pipe = newer.our_flux2_dev(tmp_path_factory.mktemp("tokenizer"))
    pipe, params = transformers.drawn(pipe, "vae", "text_encoder", "transformer")
    params["vae"]["bn"]["running_var"] = np.abs(params["vae"]["bn"]["running_var"]) + 0.5
    return pipe, params


def test_pictures_come_out_and_a_saved_pipeline_draws_them(tiny, tmp_path):
    pipe, params = tiny
    drawn = pipe(params, ["a cat", "a dog"], key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (2, 16, 24, 3)
    pipe.save_pretrained(tmp_path, params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path)
    assert again == pipe
    text = again.encode_prompt(loaded, "a [IMG]cat", max_sequence_length=250, text_encoder_out_layers=LAYERS)
    assert text.shape == (1, 250, 30)
    keys = jax.random.fold_in(KEY, 0)[None]
    alone = again(loaded, prompt_embeds=text, key=keys, output_type="np", **QUICK).images
    np.testing.assert_allclose(alone[0], drawn[0], atol=1e-5)


def test_the_network_is_told_the_scale(tiny):
    pipe, params = tiny
    run = pipe.steps(params, "a cat", guidance_scale=2.5, key=KEY, **QUICK)
    x, t = run.x, run.plan.t[0]
    text = pipe.encode_prompt(params, "a cat", max_sequence_length=250, text_encoder_out_layers=LAYERS)
    ids = np.array([[0, row, column, 0] for row in range(4) for column in range(6)], np.float32)
    words = np.array([[0, 0, 0, i] for i in range(250)], np.float32)
    wanted = transformers.applied(
        pipe.transformer, params["transformer"], x.reshape(1, 24, 16), text, t / 1000, ids, words, np.full(1, 2.5)
    )
    np.testing.assert_allclose(transformers.call(run.network, x, t), wanted.reshape(x.shape), atol=1e-5)
    with pytest.raises(ValueError, match="guidance_scale has 3 numbers for 1 pictures"):
        pipe.steps(params, "a cat", guidance_scale=np.ones(3), key=KEY, **QUICK)
    with pytest.raises(ValueError, match="Flux2Pipeline has no tokenizer; pass prompt_embeds"):
        pipe.replace(tokenizer=None).steps(params, "a cat", key=KEY, **QUICK)
    with pytest.raises(ValueError, match="width is 22; it must be a multiple of 4"):
        pipe.steps(params, "a cat", key=KEY, **{**QUICK, "width": 22})


def test_names_and_shapes_of_the_real_checkpoint(shared_data):
    """Whose options are the class's."""
    assert_names(fdiff.Flux2Transformer2DModel(), shared_data / "manifests" / "flux2-dev-transformer.json.gz")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("dev")
    return parity.pair(folder / "saved", newer.flux2_dev(folder / "tokenizer"))


@pytest.mark.parity
def test_parity(pair):
    theirs, ours, params = pair
    assert ours.tokenizer.padding_side == "left"
    prompts, options = ["a cat", "two cats that sleep"], {key: QUICK[key] for key in QUICK if key != "progress"}
    more = {"guidance_scale": 2.5, "num_images_per_prompt": 2}
    wanted = theirs(prompt=prompts, generator=parity.generator(5), output_type="np", **options, **more).images
    drawn = ours(params, prompts, torch_seed=5, output_type="np", **QUICK, **more).images
    parity.assert_close(drawn, wanted)
    kept = [transformers.photo(70, 67), transformers.photo(90, 66, 2)]
    options = {key: options[key] for key in options if key not in ("height", "width")}
    wanted = theirs(image=kept, prompt="a cat", generator=parity.generator(5), output_type="np", **options).images
    drawn = ours(params, "a cat", kept, torch_seed=5, output_type="np", progress=False, **options).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_latents_and_what_we_save_diffusers_draws_with(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    options = {key: QUICK[key] for key in QUICK if key != "progress"}
    x = np.random.default_rng(1).standard_normal((1, 4, 6, 16)).astype(np.float32)
    wanted = parity.latents_of(theirs, prompt="a cat", latents=parity.nchw(x), **options)
    found = ours(params, "a cat", latents=x, output_type="latent", **QUICK).images
    parity.assert_close(found, wanted.swapaxes(1, 2).reshape(found.shape))  # which are tokens, channels being last
    ours.save_pretrained(tmp_path, params)
    again = parity.quiet(diffusers.Flux2Pipeline.from_pretrained(tmp_path))
    parity.assert_close(parity.latents_of(again, prompt="a cat", latents=parity.nchw(x), **options), wanted, 1e-5)
