"""FLUX.1: alone, and beside diffusers."""

import jax
import numpy as np
import pytest
from jax.tree_util import Partial

import fdiff
from fdiff.models.layers.patches import packed, unpacked
from fdiff.pipelines.flux import FluxCondition, FluxDenoiser
from fdiff.pipelines.flux_edit import kept, sized
from fdiff.pipelines.text import Counts
from tests.pipelines import parity, transformers

QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3}
KEY = jax.random.key(0)
T5_FOLDER = "hub_configs/stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3"


def test_squares_of_latents_have_channels_outermost():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    squares = packed(x, 2)
    assert squares.shape == (2, 6, 12)
    assert squares[0, 1].tolist() == x[0, :2, 2:4].transpose(2, 0, 1).ravel().tolist()
    np.testing.assert_array_equal(unpacked(squares, 4, 6, 2), x)


def test_the_network_is_told_guidance_and_guided(tmp_path):
    """dev, of embeddings alone; a negative prompt acts above a scale of 1."""
    transformer = fdiff.FluxTransformer2DModel(**transformers.FLUX, guidance_embeds=True)
    vae, scheduler = fdiff.AutoencoderKL(**transformers.SHIFTED_VAE), fdiff.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True
    )
    pipe = fdiff.FluxPipeline(scheduler, vae, None, None, None, None, transformer)
    pipe, params = transformers.drawn(pipe, "vae", "transformer")
    random = np.random.default_rng(1)
    texts = [(random.standard_normal((1, 5, 6)), random.standard_normal((1, 16))) for _ in range(2)]
    given = {"prompt_embeds": texts[0], "negative_prompt_embeds": texts[1], "key": KEY, **QUICK}
    run = pipe.steps(params, true_cfg_scale=2.0, guidance_scale=4.5, **given)
    x, t = run.x, run.plan.t[0]
    assert x.shape == (1, 8, 12, 4)
    ids = np.array([[0, row, column] for row in range(4) for column in range(6)], np.float32)
    positive, negative = (
        unpacked(transformers.applied(transformer, params["transformer"], packed(x, 2), text, pooled, t / 1000, ids,
                                      np.zeros((5, 3)), np.full(1, 4.5)), 8, 12, 2)
        for text, pooled in texts
    )  # fmt: skip
    np.testing.assert_allclose(transformers.call(run.network, x, t), negative + 2 * (positive - negative), atol=1e-4)
    plain = pipe.steps(params, guidance_scale=4.5, **given)
    np.testing.assert_allclose(transformers.call(plain.network, x, t), positive, atol=1e-4)
    assert pipe(params, **given, num_images_per_prompt=2).images[1].size == (24, 16)
    pipe.save_pretrained(tmp_path, params)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == pipe
    for match, options in (
        ("FluxPipeline has no text_encoder; pass prompt_embeds", {"prompt": "a", "prompt_embeds": None}),
        (r"prompt_embeds must be a pair \(embeddings, pooled\)", {"prompt_embeds": texts[0][0]}),
        ("height is 14; it must be a multiple of 4", {"height": 14}),
        ("true_cfg_scale is 'x'", {"true_cfg_scale": "x"}),
    ):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{**given, **options})


def test_a_picture_to_keep_to_gets_a_size_that_kontext_knows():
    """And what is drawn an area, whatever its size."""
    vae = fdiff.AutoencoderKL(**{**transformers.SHIFTED_VAE, **transformers.FOUR})
    assert sized(vae, None, None, 1024 * 1024).size == (128, 128)
    assert sized(vae, 1080, 1920, 1024 * 1024).size == (96, 170)
    assert sized(vae, 512, 512, 1024 * 1024).size == (128, 128)
    with pytest.raises(ValueError, match="max_area"):
        sized(vae, 512, 512, 0)
    transformer = fdiff.FluxTransformer2DModel(**transformers.FLUX)
    told = FluxCondition(np.zeros((1, 5, 6)), np.zeros((1, 16)))

    def seen(params, image):
        network = Partial(FluxDenoiser(transformer), {"params": None})
        return kept(vae, params, network, (told, None), Counts(1, 1, "float32"), image, True).both[0].kept

    image = transformers.photo(1000, 650)
    assert jax.eval_shape(lambda params: seen(params, image), {"vae": vae.shapes()}).shape == (1, 78 * 52, 16)


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory, shared_data):
    pytest.importorskip("diffusers")
    return parity.pair(tmp_path_factory.mktemp("flux"), transformers.flux(shared_data / T5_FOLDER))


SIZE = {"height": 16, "width": 24, "num_inference_steps": 5, "max_sequence_length": 20}
PROMPTS = ["a cat", "two cats that sleep"]


@pytest.mark.parity
def test_parity(pair):
    theirs, ours, params = pair
    more = {"negative_prompt": "dogs", "negative_prompt_2": "rain", "true_cfg_scale": 2.5, "prompt_2": ["a", "b c"]}
    for options in ({"num_images_per_prompt": 2}, more):
        wanted = theirs(list(PROMPTS), generator=parity.generator(5), output_type="np", **SIZE, **{
            key: [value] * 2 if key.startswith("negative") else value for key, value in options.items()
        }).images  # fmt: skip
        drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **SIZE, **options).images
        parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((2, 8, 12, 4)).astype(np.float32)
    given = theirs._pack_latents(parity.nchw(x), 2, 4, 8, 12)
    latents = theirs(list(PROMPTS), latents=given, output_type="latent", **SIZE).images
    found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **SIZE).images
    parity.assert_close(packed(found, 2), latents.numpy())


@pytest.mark.parity
def test_parity_of_schnell(tmp_path, shared_data):
    theirs, ours, params = parity.pair(tmp_path, transformers.flux(shared_data / T5_FOLDER, guidance_embeds=False))
    wanted = theirs("a cat", generator=parity.generator(5), output_type="np", **SIZE).images
    drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, **SIZE).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_parity_of_pictures_redrawn_and_painted(pair):
    for name, given in (
        ("FluxImg2ImgPipeline", {"image": transformers.photo()}),
        ("FluxInpaintPipeline", {"image": transformers.photo(), "mask_image": transformers.mask()}),
    ):
        theirs, ours, params = parity.other(pair, name)
        options = {**SIZE, "strength": 0.5, **given}
        wanted = theirs("a cat", generator=parity.generator(5), output_type="np", **options).images
        drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_parity_of_the_part_around_a_mask(pair):
    theirs, ours, params = parity.other(pair, "FluxInpaintPipeline")
    mask = transformers.mask(48, 32)
    options = {**SIZE, "strength": 0.5, "image": transformers.photo(48, 32), "mask_image": mask, "padding_mask_crop": 2}
    wanted = theirs("a cat", generator=parity.generator(5), **options).images[0]
    drawn = ours(params, "a cat", torch_seed=5, progress=False, **options).images[0]
    assert drawn.size == wanted.size == (48, 32)
    difference = np.abs(np.asarray(drawn, np.float32) - np.asarray(wanted.convert("RGB"), np.float32))
    assert difference.max() <= 1


@pytest.mark.parity
def test_parity_of_kontext(pair):
    theirs, ours, params = parity.other(pair, "FluxKontextPipeline")
    photo = transformers.photo()
    for given in ({"image": transformers.photo(33, 18)}, {"image": photo, "negative_prompt": "dogs"}, {}):
        options = {**SIZE, "max_area": 24 * 16, "true_cfg_scale": 2.0, "num_images_per_prompt": 2, **given}
        wanted = theirs(
            prompt="a cat", generator=parity.generator(5), output_type="np", _auto_resize=False, **options
        ).images
        drawn = ours(
            params, "a cat", torch_seed=5, output_type="np", progress=False, auto_resize=False, **options
        ).images
        parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_parity_of_fill(tmp_path, shared_data):
    """A transformer that is given the latents, those of the rest and four numbers of the mask for each of them."""
    import diffusers

    base = transformers.flux(shared_data / T5_FOLDER, in_channels=48, out_channels=16)
    parts = {name: part for name, part in base.components.items() if part is not None}  # all but the vision model
    theirs, ours, params = parity.pair(tmp_path, diffusers.FluxFillPipeline(**parts))
    given = {"image": transformers.photo(), "mask_image": transformers.mask(), "num_images_per_prompt": 2}
    for strength in (1.0, 0.5):
        options = {**SIZE, **given, "strength": strength}
        wanted = theirs("a cat", generator=parity.generator(5), output_type="np", **options).images
        drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    ours.save_pretrained(tmp_path, params)
    again = parity.quiet(diffusers.FluxPipeline.from_pretrained(tmp_path))
    wanted, found = (
        pipe("a cat", generator=parity.generator(5), output_type="latent", **SIZE).images for pipe in (theirs, again)
    )
    parity.assert_close(found, wanted, 1e-5)
