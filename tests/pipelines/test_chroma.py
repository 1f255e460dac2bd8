"""Chroma: alone, and beside diffusers."""

import jax
import numpy as np
import pytest

import fdiff
from fdiff.cli import main
from fdiff.models.layers.patches import packed, unpacked
from tests.pipelines import joint, parity, transformers

KEY = jax.random.key(0)
T5_FOLDER = "hub_configs/stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3"
QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3}


@pytest.fixture(scope="module")
def tiny():
    return joint.our_chroma()


def given():
    random = np.random.default_rng(1)
    mask = np.array([[1, 1, 1, 0, 0]])
    return [(random.standard_normal((1, 5, 36)), mask) for _ in range(2)]


def test_guidance_and_what_lies_behind_a_prompt(tiny, tmp_path):
    """Numbers of the mask are added to scores, as in diffusers; or what is none is hidden, as it was in training."""
    pipe, params = tiny
    texts = given()
    options = {"prompt_embeds": texts[0], "negative_prompt_embeds": texts[1], "key": KEY, **QUICK}
    ids = np.array([[0, row, column] for row in range(4) for column in range(6)], np.float32)

    def said(text, x, t, kind):
        mask = np.concatenate([text[1], np.ones((1, 24))], axis=1).astype(kind)
        out = transformers.applied(pipe.transformer, params["transformer"], packed(x, 2), text[0], np.full(1, t) / 1000,
                                   ids, np.zeros((5, 3)), mask)  # fmt: skip
        return unpacked(out, 8, 12, 2)

    for hides, kind in ((False, np.float32), (True, bool)):
        run = pipe.steps(params, guidance_scale=4.0, hides_padding=hides, **options)
        x, t = run.x, run.plan.t[0]
        positive, negative = (said(text, x, t, kind) for text in texts)
        found = transformers.call(run.network, x, t)
        np.testing.assert_allclose(found, negative + 4 * (positive - negative), atol=2e-4)
    cut = {name: (text[:, :3], mask[:, :3]) for name, (text, mask) in zip(
        ("prompt_embeds", "negative_prompt_embeds"), texts, strict=True
    )}  # fmt: skip
    shorter = pipe.steps(params, guidance_scale=4.0, hides_padding=True, **{**options, **cut})
    np.testing.assert_allclose(transformers.call(shorter.network, x, t), found, atol=1e-4)
    drawn = pipe(params, num_images_per_prompt=2, **options).images
    assert [picture.size for picture in drawn] == [(24, 16)] * 2
    pipe.save_pretrained(tmp_path, params)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == pipe


def test_what_is_wrong_is_told_in_a_sentence(tiny):
    pipe, params = tiny
    options = {"prompt_embeds": given()[0], "negative_prompt_embeds": given()[1], "key": KEY, **QUICK}
    for match, changed in (
        ("ChromaPipeline has no text_encoder; pass prompt_embeds", {"prompt": "a", "prompt_embeds": None}),
        ("height is 14; it must be a multiple of 4", {"height": 14}),
        (r"negative_prompt_embeds have shape \(1, 3, 36\)", {"negative_prompt_embeds": np.zeros((1, 3, 36))}),
        (r"the mask of prompt_embeds has shape \(1, 4\)", {"prompt_embeds": (given()[0][0], np.ones((1, 4)))}),
    ):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{**options, **changed})


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory, shared_data):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("chroma")
    theirs = joint.chroma(shared_data / T5_FOLDER)
    parity.quiet(theirs).save_pretrained(folder)
    config = folder / "transformer" / "config.json"  # without what no file of Chroma says
    config.write_text(config.read_text().replace('"guidance_embeds": false,', ""))
    return theirs, *fdiff.DiffusionPipeline.from_pretrained(folder)


SIZE = {"height": 16, "width": 24, "num_inference_steps": 4, "max_sequence_length": 20}
PROMPTS = ["a cat", "two cats that sleep"]


@pytest.mark.parity
def test_parity(pair):
    theirs, ours, params = pair
    more = {"negative_prompt": "dogs", "guidance_scale": 3.0}
    for options in ({"num_images_per_prompt": 2}, more, {"guidance_scale": 0.0}):
        options = {**SIZE, **options}
        wanted = theirs(list(PROMPTS), generator=parity.generator(5), output_type="np", **{
            key: [value] * 2 if isinstance(value, str) else value for key, value in options.items()
        }).images  # fmt: skip
        drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((2, 8, 12, 16)).astype(np.float32)
    latents = theirs(
        list(PROMPTS), latents=theirs._pack_latents(parity.nchw(x), 2, 16, 8, 12), output_type="latent", **SIZE
    ).images
    found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **SIZE).images
    parity.assert_close(packed(found, 2), latents.numpy())


@pytest.mark.parity
def test_parity_of_pictures_redrawn_and_painted(pair):
    for name, given in (
        ("ChromaImg2ImgPipeline", {"image": transformers.photo()}),
        ("ChromaInpaintPipeline", {"image": transformers.photo(), "mask_image": transformers.mask()}),
    ):
        theirs, ours, params = parity.other(pair, name)
        options = {**SIZE, "strength": 0.5, "num_images_per_prompt": 2, **given}
        wanted = theirs("a cat", generator=parity.generator(5), output_type="np", **options).images
        drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with_and_the_command_line_too(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    ours.save_pretrained(tmp_path / "saved", params)
    again = parity.quiet(diffusers.ChromaPipeline.from_pretrained(tmp_path / "saved"))
    wanted, found = (
        pipe("a cat", generator=parity.generator(5), output_type="latent", **SIZE).images for pipe in (theirs, again)
    )
    parity.assert_close(found, wanted, 1e-5)
    made = tmp_path / "cat.png"
    command = ["generate", str(tmp_path / "saved"), "a cat", "--height", "16", "--width", "16", "--steps", "2"]
    assert main([*command, "--max-sequence-length", "20", "--seed", "1", "--out", str(made)]) == 0
    assert made.is_file()
