"""PixArt-alpha and PixArt-Sigma: alone, and beside diffusers."""

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from fdiff.pipelines.binned import covering, nearest_shape
from tests.pipelines import joint, parity, transformers
from tests.reference import make_transformers

KEY = jax.random.key(0)
T5_FOLDER = "hub_configs/stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3"
VAE = {**transformers.VAE, **transformers.FOUR, "scaling_factor": 0.13025}
ALPHA = {**make_transformers.PIXART, "in_channels": 4, "out_channels": 8, "caption_channels": 36, "sample_size": 128}
SIGMA = {**ALPHA, "sample_size": 32, "interpolation_scale": 2, "use_additional_conditions": False}
AS_IS = {"height": 32, "width": 48, "use_resolution_binning": False, "num_inference_steps": 3}


def ours(kind=fdiff.PixArtAlphaPipeline, options=ALPHA):
    models = {"vae": fdiff.AutoencoderKL(**VAE), "transformer": fdiff.PixArtTransformer2DModel(**options)}
    pipe = kind(tokenizer=None, text_encoder=None, scheduler=fdiff.DPMSolverMultistepScheduler(), **models)
    return transformers.drawn(pipe, "vae", "transformer")


@pytest.fixture(scope="module")
def tiny():
    return ours()


def given():
    random = np.random.default_rng(1)
    return [(random.standard_normal((1, 5, 36)), np.array([[1, 1, 1, 0, 0]])) for _ in range(2)]


def test_guidance_and_what_the_network_is_told(tiny, tmp_path):
    pipe, params = tiny
    texts = given()
    options = {"prompt_embeds": texts[0], "negative_prompt_embeds": texts[1], "key": KEY, "progress": False, **AS_IS}
    run = pipe.steps(params, guidance_scale=4.0, **options)
    x, t = run.x, run.plan.t[0]
    size = np.array([[32, 48]], np.float32)
    positive, negative = (
        transformers.applied(pipe.transformer, params["transformer"], x, text, t, mask, size)[..., :4]
        for text, mask in texts
    )
    np.testing.assert_allclose(
        transformers.call(run.network, x, t), negative + 4 * (positive - negative), atol=1e-4
    )
    drawn = pipe(params, num_images_per_prompt=2, **options).images
    assert [picture.size for picture in drawn] == [(48, 32)] * 2
    pipe.save_pretrained(tmp_path, params)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == pipe


def test_shapes_of_training():
    assert nearest_shape(1024, 1024, 1024) == (1024, 1024)
    assert nearest_shape(1024, 720, 1280) == (768, 1344)
    assert nearest_shape(512, 3000, 100) == (1024, 256)
    assert nearest_shape(2048, 387, 100) == (3968, 1024)
    with pytest.raises(ValueError, match=r"squares of 64 pixels, .* pass use_resolution_binning=False"):
        nearest_shape(64, 64, 64)


@pytest.mark.parametrize("size", [(120, 160), (160, 120), (16, 24), (104, 144), (13, 31)])
def test_the_middle_fills_the_size_that_is_asked_for(size):
    """A slope stays one, its middle in the middle; rounding leaves no size a pixel short."""
    rows, columns = np.meshgrid(np.linspace(-1, 1, 104), np.linspace(-1, 1, 144), indexing="ij")
    found = np.asarray(covering(np.stack([rows, columns], -1)[None].astype(np.float32), size))
    assert found.shape == (1, *size, 2)
    scale = max(size[0] / 104, size[1] / 144)
    for axis, side in ((0, 104), (1, 144)):
        slope = np.diff(found[0, ..., axis], axis=axis)
        inner = slope[1:-1, 1:-1]
        np.testing.assert_allclose(inner, 2 / (side - 1) / scale, rtol=0.1, atol=1e-5)
        assert abs(found[0, ..., axis].mean()) < 2 / side / min(scale, 1)


def test_what_is_drawn_in_another_shape_is_cut(tiny):
    pipe, params = ours(fdiff.PixArtSigmaPipeline, SIGMA)
    texts = given()
    options = {"prompt_embeds": texts[0], "key": KEY, "progress": False, "guidance_scale": 0.0}
    options |= {"num_inference_steps": 1, "height": 60, "width": 100}
    drawn = pipe(params, output_type="array", **options).images
    latents = pipe(params, output_type="latent", **options).images
    assert (drawn.shape, latents.shape) == ((1, 60, 100, 3), (1, 24, 40, 4))
    whole = Image.fromarray(np.asarray(127.5 * (pipe.decode(params, latents)[0].clip(-1, 1) + 1)).astype(np.uint8))
    near = np.asarray(whole.resize((100, 60), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    assert np.abs(drawn[0] - near).mean() < 0.1 * near.std()


def test_what_is_wrong_is_told_in_a_sentence(tiny):
    pipe, params = tiny
    options = {"prompt_embeds": given()[0], "negative_prompt_embeds": given()[1], "key": KEY, **AS_IS}
    for match, changed in (
        ("PixArtAlphaPipeline has no text_encoder; pass prompt_embeds", {"prompt": "a", "prompt_embeds": None}),
        ("height is 40; it must be a multiple of 16", {"height": 40}),
        ("width is 0; it must be a multiple of 1", {"width": 0, "use_resolution_binning": True}),
        (r"negative_prompt_embeds have shape \(1, 3, 36\)", {"negative_prompt_embeds": np.zeros((1, 3, 36))}),
        (r"must be \(batch, number, 36\); it is \(1, 5, 7\)", {"prompt_embeds": np.zeros((1, 5, 7)),
                                                             "guidance_scale": 0.0}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            run = pipe.steps(params, **{**options, **changed})
            run.network(run.x, run.plan.t[0])


# -- beside diffusers --------------------------------------------------------------------------------------------------


def theirs(name, folder, options):
    import diffusers

    from tests.pipelines import checkpoints

    t5, tokenizer = joint.t5(folder)
    vae = checkpoints.seeded(lambda: diffusers.AutoencoderKL(**VAE), 2)
    transformer = make_transformers.build_of("PixArtTransformer2DModel", options)
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    return getattr(diffusers, name)(tokenizer, t5, vae, transformer, scheduler)


@pytest.fixture(scope="module")
def alpha(tmp_path_factory, shared_data):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("alpha")
    return parity.pair(folder, theirs("PixArtAlphaPipeline", shared_data / T5_FOLDER, ALPHA))


@pytest.fixture(scope="module")
def sigma(tmp_path_factory, shared_data):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("sigma")
    return parity.pair(folder, theirs("PixArtSigmaPipeline", shared_data / T5_FOLDER, SIGMA))


PLAIN = {"clean_caption": False}  # what diffusers else takes out of a prompt where BeautifulSoup and ftfy are there
PROMPTS = ["A cat, asleep ", "two cats that sleep"]


@pytest.mark.parity
def test_parity_of_alpha(alpha):
    theirs, ours, params = alpha
    for options in ({"num_images_per_prompt": 2}, {"negative_prompt": "Dogs", "guidance_scale": 3.0},
                    {"guidance_scale": 0.0, "max_sequence_length": 7}):  # fmt: skip
        options = {**AS_IS, **options}
        wanted = theirs(list(PROMPTS), generator=parity.generator(5), output_type="np", **options, **PLAIN).images
        drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 4)).astype(np.float32)
    wanted = parity.latents_of(theirs, list(PROMPTS), latents=parity.nchw(x), **AS_IS, **PLAIN)
    found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **AS_IS).images
    parity.assert_close(found, wanted)


@pytest.mark.parity
@pytest.mark.parametrize("size", [{}, {"height": 120, "width": 210}])
def test_parity_of_sigma_in_shapes_of_training(sigma, size):
    theirs, ours, params = sigma
    options = {**size, "num_inference_steps": 2}
    wanted = theirs("A cat", generator=parity.generator(5), output_type="np", **options, **PLAIN).images
    drawn = ours(params, "A cat", torch_seed=5, output_type="np", progress=False, **options).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_parity_of_shapes():
    pytest.importorskip("diffusers")
    from diffusers.image_processor import PixArtImageProcessor
    from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha, pipeline_pixart_sigma
    from diffusers.pipelines.sana import pipeline_sana

    tables = {side: getattr(pipeline_pixart_alpha, f"ASPECT_RATIO_{side}_BIN") for side in (256, 512, 1024)}
    tables[2048] = pipeline_pixart_sigma.ASPECT_RATIO_2048_BIN
    tables[4096] = pipeline_sana.ASPECT_RATIO_4096_BIN
    for side, table in tables.items():
        for height in range(100, 2100, 37):
            for width in range(100, 2100, 41):
                wanted = PixArtImageProcessor.classify_height_width_bin(height, width, table)
                assert nearest_shape(side, height, width) == wanted


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with_and_the_command_line_too(sigma, tmp_path):
    import diffusers

    theirs, ours, params = sigma
    ours.save_pretrained(tmp_path / "saved", params)
    again = parity.quiet(diffusers.PixArtSigmaPipeline.from_pretrained(tmp_path / "saved"))
    options = {"num_inference_steps": 2, "height": 64, "width": 64, **PLAIN}
    wanted, found = (
        pipe("a cat", generator=parity.generator(5), output_type="latent", **options).images for pipe in (theirs, again)
    )
    parity.assert_close(found, wanted, 1e-5)
    made = tmp_path / "cat.png"
    command = ["generate", str(tmp_path / "saved"), "a cat", "--height", "130", "--width", "150", "--steps", "2"]
    assert main([*command, "--seed", "1", "--out", str(made)]) == 0
    assert Image.open(made).size == (150, 130)


@pytest.mark.parity
def test_what_of_a_long_prompt_is_cut_off_is_told(alpha, caplog):
    _, ours, params = alpha
    ours.steps(params, "a " + 100 * "cat ", guidance_scale=0.0, max_sequence_length=20, key=KEY, **AS_IS)
    (said,) = caplog.messages
    assert "this is cut off: 'cat" in said
    text, mask = ours.encode_prompt(params, ["a cat", "A Cat"])
    assert (text.shape, mask.shape) == ((2, 120, 36), (2, 120))
    np.testing.assert_array_equal(text[0], text[1])
