"""Stable Diffusion 3 and 3.5: alone, and beside diffusers."""

import jax
import numpy as np
import pytest

import fdiff
from fdiff.cli import main
from tests.pipelines import joint, parity, transformers

KEY = jax.random.key(0)
T5_FOLDER = "hub_configs/stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3"
QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 5}


@pytest.fixture(scope="module")
def tiny():
    return joint.our_sd3()


def given(count=2):
    random = np.random.default_rng(1)
    return [(random.standard_normal((1, 5, 36)), random.standard_normal((1, 32))) for _ in range(count)]


def test_guidance(tiny, tmp_path):
    """The formula; blocks are left out in a part of the run."""
    pipe, params = tiny
    texts = given()
    options = {"prompt_embeds": texts[0], "negative_prompt_embeds": texts[1], "key": KEY, **QUICK}
    run = pipe.steps(params, guidance_scale=4.0, skip_guidance_layers=[1], skip_layer_guidance_stop=0.5, **options)

    def said(text, x, t, out=()):
        skipped = np.isin(np.arange(3), out)[None]
        return transformers.applied(pipe.transformer, params["transformer"], x, *text, np.full(1, t), (), skipped)

    x, t = run.x, run.plan.t
    for row in range(5):
        positive, negative = (said(text, x, t[row]) for text in texts)
        wanted = negative + 4 * (positive - negative)
        if row in (1, 2):
            wanted += 2.8 * (positive - said(texts[0], x, t[row], [1]))
        found = transformers.call(fdiff.at_row(run.network, row), x, t[row])
        np.testing.assert_allclose(found, wanted, atol=2e-4)
    plain = pipe.steps(params, guidance_scale=1.0, **options)
    np.testing.assert_allclose(transformers.call(plain.network, x, t[0]), said(texts[0], x, t[0]), atol=1e-4)


def test_a_saved_pipeline_draws(tiny, tmp_path):
    pipe, params = tiny
    options = {"prompt_embeds": given()[0], "negative_prompt_embeds": given()[1], "key": KEY, **QUICK}
    drawn = pipe(params, num_images_per_prompt=2, **options).images
    assert [picture.size for picture in drawn] == [(24, 16)] * 2
    pipe.save_pretrained(tmp_path, params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path)
    assert again == pipe
    found, wanted = (tree["transformer"]["pos_embed"]["pos_embed"] for tree in (loaded, params))
    assert np.array_equal(found, wanted)


def test_a_call_compiles_whole(tiny):
    pipe, params = tiny
    texts = given()

    @jax.jit
    def drawn(params, texts, scale, key):
        options = {"prompt_embeds": texts[0], "negative_prompt_embeds": texts[1], "guidance_scale": scale, **QUICK}
        return pipe(params, skip_guidance_layers=[1], output_type="latent", key=key, **options).images

    options = {"prompt_embeds": texts[0], "negative_prompt_embeds": texts[1], "guidance_scale": 4.0, **QUICK}
    alone = pipe(params, skip_guidance_layers=[1], output_type="latent", key=KEY, **options).images
    np.testing.assert_allclose(drawn(params, texts, 4.0, KEY), alone, atol=1e-4)


def test_a_part_around_a_mask_is_painted_at_full_size(tiny):
    pipe, params = fdiff.StableDiffusion3InpaintPipeline.from_pipe(tiny[0]), tiny[1]
    options = {"prompt_embeds": given()[0], "guidance_scale": 1.0, "key": KEY, **QUICK}
    photo, mask = transformers.photo(48, 32), transformers.mask(48, 32)
    drawn = pipe(params, image=photo, mask_image=mask, padding_mask_crop=2, **options).images[0]
    before, after, white = (np.asarray(one) for one in (photo, drawn, mask))
    assert np.array_equal(after[white == 0], before[white == 0])
    assert not np.array_equal(after, before)
    with pytest.raises(ValueError, match="mask_image is black, so there is nothing to paint"):
        pipe(params, image=photo, mask_image=mask.point(lambda _: 0), padding_mask_crop=2, **options)


def test_what_is_wrong_is_told_in_a_sentence(tiny):
    pipe, params = tiny
    options = {"prompt_embeds": given()[0], "guidance_scale": 1.0, "key": KEY, **QUICK}
    for match, changed in (
        ("StableDiffusion3Pipeline has no text_encoder; pass prompt_embeds", {"prompt": "a", "prompt_embeds": None}),
        (r"prompt_embeds must be a pair \(embeddings, pooled\)", {"prompt_embeds": given()[0][0]}),
        ("height is 14; it must be a multiple of 4", {"height": 14}),
        ("40 x 12 latents cannot be cut into patches of 2 x 2, 8 along a side at most", {"height": 80}),
        (r"skip_guidance_layers is \[3\]; it must be a list of blocks, from 0 to 2", {"skip_guidance_layers": [3]}),
        ("skip_layer_guidance_scale is 'x'", {"skip_guidance_layers": [1], "skip_layer_guidance_scale": "x"}),
    ):
        with pytest.raises(ValueError, match=match):
            pipe(params, **{**options, **changed})


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory, shared_data):
    pytest.importorskip("diffusers")
    return parity.pair(tmp_path_factory.mktemp("sd3"), joint.sd3(shared_data / T5_FOLDER))


SIZE = {"height": 16, "width": 24, "num_inference_steps": 4, "max_sequence_length": 20}
PROMPTS = ["a cat", "two cats that sleep"]


@pytest.mark.parity
def test_parity(pair):
    theirs, ours, params = pair
    texts = {"negative_prompt": "dogs", "prompt_2": "a hat", "negative_prompt_3": "rain", "prompt_3": ["a", "b c"]}
    skipping = {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.7, "num_inference_steps": 6}
    for options in ({"num_images_per_prompt": 2}, texts, {"clip_skip": 1, **skipping}, {"guidance_scale": 0.0}):
        options = {**SIZE, **options}
        wanted = theirs(list(PROMPTS), generator=parity.generator(5), output_type="np", **{
            key: [value] * 2 if isinstance(value, str) else value for key, value in options.items()
        }).images  # fmt: skip
        drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((2, 8, 12, 16)).astype(np.float32)
    latents = parity.latents_of(theirs, list(PROMPTS), latents=parity.nchw(x), **SIZE)
    found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **SIZE).images
    parity.assert_close(found, latents)


@pytest.mark.parity
def test_parity_without_t5_and_with_a_shift_by_the_size(tmp_path, shared_data):
    base = joint.sd3(shared_data / T5_FOLDER, use_dynamic_shifting=True)
    base.register_modules(text_encoder_3=None, tokenizer_3=None)
    theirs, ours, params = parity.pair(tmp_path, base)
    assert ours.text_encoder_3 is None
    wanted = theirs("a cat", generator=parity.generator(5), output_type="np", **SIZE).images
    drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, **SIZE).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_t5_may_be_left_out_when_loading(pair, tmp_path, caplog):
    _, ours, params = pair
    ours.save_pretrained(tmp_path, params)
    less, fewer = fdiff.DiffusionPipeline.from_pretrained(tmp_path, text_encoder_3=None, tokenizer_3=None)
    assert less.text_encoder_3 is None
    assert "text_encoder_3" not in fewer
    embeddings, _ = less.encode_prompt(fewer, "a cat" * 100, max_sequence_length=20)
    assert "this is cut off" in caplog.text
    assert "shorten it" in caplog.text
    ours.encode_prompt(params, "a cat " * 30, max_sequence_length=20)
    assert "T5 reads more" in caplog.text
    assert "the text encoder reads 19" in caplog.text
    assert embeddings.shape == (1, 77 + 20, 36)
    assert not np.any(embeddings[:, 77:])


@pytest.mark.parity
def test_parity_of_pictures_redrawn_and_painted(pair):
    for name, given in (
        ("StableDiffusion3Img2ImgPipeline", {"image": transformers.photo()}),
        ("StableDiffusion3InpaintPipeline", {"image": transformers.photo(), "mask_image": transformers.mask()}),
    ):
        theirs, ours, params = parity.other(pair, name)
        for strength in (0.5, 1.0):  # latents, since diffusers' inpainting forgets the shift when it decodes
            options = {**SIZE, "strength": strength, "num_images_per_prompt": 2, **given}
            wanted = parity.latents_of(theirs, "a cat", generator=parity.generator(5), **options)
            drawn = ours(params, "a cat", torch_seed=5, output_type="latent", progress=False, **options).images
            parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with_and_the_command_line_too(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    ours.save_pretrained(tmp_path / "saved", params)
    again = parity.quiet(diffusers.StableDiffusion3Pipeline.from_pretrained(tmp_path / "saved"))
    wanted, found = (
        pipe("a cat", generator=parity.generator(5), output_type="latent", **SIZE).images for pipe in (theirs, again)
    )
    parity.assert_close(found, wanted, 1e-5)
    made = tmp_path / "cat.png"
    command = ["generate", str(tmp_path / "saved"), "a cat", "--height", "16", "--width", "16", "--steps", "2"]
    assert main([*command, "--max-sequence-length", "20", "--seed", "1", "--out", str(made)]) == 0
    assert made.is_file()
