"""FLUX.2 klein: alone, and beside diffusers."""

import jax
import numpy as np
import pytest

import fdiff
from fdiff.pipelines.flux2 import places_of, reference
from fdiff.pipelines.plans import empirical_mu
from tests.pipelines import parity, transformers

LAYERS = (0, 1, 2)
QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3, "text_encoder_out_layers": LAYERS,
         "max_sequence_length": 64}  # fmt: skip
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pipe = transformers.our_klein(tmp_path_factory.mktemp("tokenizer"))
    pipe, params = transformers.drawn(pipe, "vae", "text_encoder", "transformer")
    params["vae"]["bn"]["running_var"] = np.abs(params["vae"]["bn"]["running_var"]) + 0.5
    return pipe, params


def test_the_shift_falls_above_4300_tokens():
    """And is what the makers' lines say at 10 and at 200 steps."""
    assert empirical_mu(4300, 4) == pytest.approx(2.31, abs=0.01)
    assert empirical_mu(4300, 10) == pytest.approx(8.73809524e-05 * 4300 + 1.89833333)
    assert empirical_mu(4300, 200) == pytest.approx(0.00016927 * 4300 + 0.45666666)
    assert empirical_mu(4301, 4) == empirical_mu(4301, 200) == pytest.approx(0.00016927 * 4301 + 0.45666666)


def test_pictures_come_out_and_a_saved_pipeline_draws_them(tiny, tmp_path):
    pipe, params = tiny
    pipe = pipe.replace(is_distilled=True)
    drawn = pipe(params, ["a cat", "a dog"], key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (2, 16, 24, 3)
    pipe.save_pretrained(tmp_path, params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path)
    assert again == pipe and again.is_distilled
    both = again.encode_prompt(loaded, "a cat", max_sequence_length=64, text_encoder_out_layers=LAYERS)
    assert [one.shape for one in both] == [(1, 64, 30)] * 2
    keys = jax.random.fold_in(KEY, 0)[None]
    alone = again(loaded, prompt_embeds=both[0], key=keys, output_type="np", **QUICK).images
    np.testing.assert_allclose(alone[0], drawn[0], atol=1e-5)


def test_pictures_to_keep_to(tiny):
    """Each at its place, of its own size, behind what is drawn; guided unless the checkpoint is distilled."""
    pipe, params = tiny
    kept = [transformers.photo(70, 65), np.asarray(transformers.photo(64, 80, 2))]
    run = pipe.steps(params, "a cat", kept, key=KEY, **{**QUICK, "height": None, "width": None})
    assert run.x.shape == (1, 16, 17, 16)  # of the first picture, cut to whole squares
    x, t = run.x, run.plan.t[0]
    texts = pipe.encode_prompt(params, "a cat", max_sequence_length=64, text_encoder_out_layers=LAYERS)
    vae = jax.jit(lambda x, method: pipe.vae.apply({"params": params["vae"]}, x, method=method), static_argnums=1)
    latents = [vae(vae(reference(one, 4), "encode").mean, "scale") for one in kept]
    assert [one.shape for one in latents] == [(1, 16, 17, 16), (1, 20, 16, 16)]
    tokens = np.concatenate([x.reshape(1, -1, 16), *(one.reshape(1, -1, 16) for one in latents)], axis=1)
    ids = np.concatenate([places_of(0, (16, 17)), places_of(10, (16, 17)), places_of(20, (20, 16))])
    assert ids[16 * 17 + 18].tolist() == [10, 1, 1, 0]
    words = np.array([[0, 0, 0, i] for i in range(64)], np.float32)
    positive, negative = (
        transformers.applied(pipe.transformer, params["transformer"], tokens, text, t / 1000, ids, words)
        for text in texts
    )
    positive, negative = (one[:, : 16 * 17].reshape(x.shape) for one in (positive, negative))
    np.testing.assert_allclose(transformers.call(run.network, x, t), negative + 4 * (positive - negative), atol=1e-4)
    size = {"height": 64, "width": 68}
    plain = pipe.replace(is_distilled=True).steps(params, "a cat", kept, key=KEY, **{**QUICK, **size})
    np.testing.assert_allclose(transformers.call(plain.network, x, t), positive, atol=1e-4)


def test_what_does_not_fit_is_told(tiny):
    pipe, params = tiny

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "key": KEY, **QUICK, **options})

    told("width is 22; it must be a multiple of 4", width=22)
    told("image is 40 x 64 pixels; a picture to keep to must have 64 or more", image=transformers.photo(40, 64))
    told("at most 8 times as long as wide", image=transformers.photo(640, 64))
    told(r"image has shape \(64, 64, 1\)", image=np.zeros((64, 64), np.uint8))
    told("Flux2KleinPipeline has no tokenizer; pass prompt_embeds", pipe.replace(tokenizer=None))
    told("hidden_layers 9 is not there", text_encoder_out_layers=(9,))
    assert reference(transformers.photo(2048, 1024), 4).shape == (1, 724, 1448, 3)


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("klein")
    return parity.pair(folder / "saved", transformers.klein(folder / "tokenizer"))


def squares(pipe, latents):
    """Latents of diffusers' pipeline, which gives them as its autoencoder has them, as the transformer has them."""
    import torch

    bn = pipe.vae.bn
    packed = pipe._patchify_latents(parity.nchw(latents))
    mean, std = bn.running_mean.view(1, -1, 1, 1), torch.sqrt(bn.running_var + pipe.vae.config.batch_norm_eps)
    return parity.nhwc((packed - mean) / std.view(1, -1, 1, 1))


@pytest.mark.parity
def test_parity(pair):
    theirs, ours, params = pair
    prompts, options = ["a cat", "two cats that sleep"], {key: QUICK[key] for key in QUICK if key != "progress"}
    for more in ({"guidance_scale": 1.0, "num_images_per_prompt": 2}, {"guidance_scale": 3.0}):
        wanted = theirs(prompt=prompts, generator=parity.generator(5), output_type="np", **options, **more).images
        drawn = ours(params, prompts, torch_seed=5, output_type="np", **QUICK, **more).images
        parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 16)).astype(np.float32)
    latents = parity.latents_of(theirs, prompt=prompts, latents=parity.nchw(x), **options)
    found = ours(params, prompts, latents=x, output_type="latent", **QUICK).images
    parity.assert_close(found, squares(theirs, latents))


@pytest.mark.parity
def test_parity_of_pictures_to_keep_to(pair):
    theirs, ours, params = pair
    kept = [transformers.photo(1100, 1000), transformers.photo(90, 66, 2)]
    options = {key: QUICK[key] for key in QUICK if key not in ("progress", "height", "width")}
    kept[0] = kept[0].resize((70, 67))
    wanted = theirs(image=kept, prompt="a cat", generator=parity.generator(5), output_type="np", **options).images
    drawn = ours(params, "a cat", kept, torch_seed=5, output_type="np", progress=False, **options).images
    parity.assert_close(drawn, wanted)
    large = theirs.image_processor._resize_to_target_area(transformers.photo(1500, 1000), 1024 * 1024)
    high, wide = large.size[1] // 4 * 4, large.size[0] // 4 * 4
    seen = theirs.image_processor.preprocess(large, height=high, width=wide, resize_mode="crop")
    np.testing.assert_allclose(reference(transformers.photo(1500, 1000), 4), parity.nhwc(seen), atol=1e-6)


@pytest.mark.parity
def test_parity_of_a_part_painted_anew(pair):
    theirs, ours, params = parity.other(pair, "Flux2KleinInpaintPipeline")
    theirs.register_to_config(is_distilled=False)
    options = {key: QUICK[key] for key in QUICK if key not in ("progress", "height", "width")}
    options |= {"num_images_per_prompt": 2, "num_inference_steps": 5}
    image, white = transformers.photo(26, 18), transformers.mask(24, 16)
    for more in ({}, {"image_reference": transformers.photo(70, 67, 3), "strength": 1.0}):
        given = {"prompt": "a cat", "image": image, "mask_image": white, "output_type": "np", **options, **more}
        wanted = theirs(generator=parity.generator(5), **given).images
        drawn = ours(params, torch_seed=5, progress=False, **given).images
        parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    ours.replace(is_distilled=True).save_pretrained(tmp_path, params)
    again = parity.quiet(diffusers.Flux2KleinPipeline.from_pretrained(tmp_path))
    assert again.config.is_distilled
    options = {key: QUICK[key] for key in QUICK if key != "progress"} | {"guidance_scale": 1.0}
    wanted = parity.latents_of(theirs, prompt="a cat", generator=parity.generator(5), **options)
    found = parity.latents_of(again, prompt="a cat", generator=parity.generator(5), **options)
    parity.assert_close(found, wanted, 1e-5)
