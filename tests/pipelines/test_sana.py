"""Sana and Sana-Sprint: alone, and beside diffusers."""

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from tests.models.compare import from_torch
from tests.pipelines import parity, transformers
from tests.reference.make_transformers import build_of

KEY = jax.random.key(0)
AS_IS = {"height": 32, "width": 64, "use_resolution_binning": False, "num_inference_steps": 3}
SHORT = ("Given a prompt, say more of it:", "User Prompt: ")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pipe = transformers.our_sana(tmp_path_factory.mktemp("tokenizer"))
    return transformers.drawn(pipe, "vae", "text_encoder", "transformer")


def test_guidance_and_what_of_a_text_the_network_sees(tiny, tmp_path):
    pipe, params = tiny
    told = {"max_sequence_length": 40, "complex_human_instruction": SHORT}
    options = {**AS_IS, "height": 16, "width": 24, "key": KEY, "progress": False}
    positive = pipe.encode_prompt(params, "A cat ", **told)
    negative = pipe.encode_prompt(params, "", **{**told, "complex_human_instruction": None})
    ids, mask = pipe.tokenizer.batch(["\n".join(SHORT) + "a cat"], 64)
    start = len(pipe.tokenizer.ids("\n".join(SHORT)))
    (states,) = transformers.applied(pipe.text_encoder, params["text_encoder"], ids, mask)
    seen = [0, *range(start, mask.sum())]
    np.testing.assert_allclose(positive.embeddings[:, : len(seen)], states[:, seen], atol=1e-5)
    assert (positive.mask.sum(), negative.mask.sum()) == (len(seen), 1)
    run = pipe.steps(params, "a cat", guidance_scale=4.0, **told, **options)
    x, t = run.x, run.plan.t[0]
    said = [
        transformers.applied(pipe.transformer, params["transformer"], x, side.embeddings, t, side.mask)
        for side in (positive, negative)
    ]
    np.testing.assert_allclose(transformers.call(run.network, x, t), said[1] + 4 * (said[0] - said[1]), atol=1e-4)
    pipe.save_pretrained(tmp_path, params)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == pipe


def test_what_is_wrong_is_told_in_a_sentence(tiny, caplog):
    pipe, params = tiny
    options = {"prompt": "a", "complex_human_instruction": None, "guidance_scale": 0.0, "key": KEY, **AS_IS}
    for match, changed in (
        ("SanaPipeline has no text_encoder; pass prompt_embeds", {}),
        ("width is 42; it must be a multiple of 4, such as 40", {"width": 42}),
        ("squares of 16 pixels, .* pass use_resolution_binning=False", {"use_resolution_binning": True}),
        ("max_sequence_length", {"max_sequence_length": 0}),
    ):
        with pytest.raises(ValueError, match=match):
            (pipe if changed else pipe.replace(text_encoder=None)).steps(params, **{**options, **changed})
    with pytest.raises(ValueError, match="sampled by SCMScheduler alone; replace DPMSolverMultistepScheduler"):
        fdiff.SanaSprintPipeline.from_pipe(pipe).steps(params, "a", key=KEY, height=32, use_resolution_binning=False)
    pipe.steps(params, **{**options, "prompt": "a " + 30 * "cat ", "max_sequence_length": 20})
    assert "this is cut off: ' cat" in caplog.messages[-1]


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sana(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("sana")
    return parity.pair(folder / "saved", transformers.sana(folder / "tokenizer"))


@pytest.fixture(scope="module")
def sprint(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("sprint")
    return parity.pair(folder / "saved", transformers.sana(folder / "tokenizer", sprint=True))


PROMPTS = ["A cat, asleep ", "two cats that sleep"]


@pytest.mark.parity
def test_parity(sana):
    theirs, ours, params = sana
    for prompts, options in (
        (PROMPTS, {}),
        ("A cat", {"num_images_per_prompt": 2, "negative_prompt": "Dogs", "guidance_scale": 3.0,
                   "complex_human_instruction": list(SHORT)}),
        (PROMPTS, {"guidance_scale": 0.0, "max_sequence_length": 7, "complex_human_instruction": None}),
    ):  # fmt: skip
        options = {**AS_IS, **options}
        wanted = theirs(prompts, generator=parity.generator(5), output_type="np", **options).images
        drawn = ours(params, prompts, torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((2, 8, 16, 4)).astype(np.float32)
    options = {**AS_IS, "num_inference_steps": 20}
    wanted = parity.latents_of(theirs, PROMPTS, latents=parity.nchw(x), **options)
    found = ours(params, PROMPTS, latents=x, output_type="latent", progress=False, **options).images
    parity.assert_close(found, wanted)


@pytest.mark.parity
def test_parity_of_sprint(sprint):
    theirs, ours, params = sprint
    for steps, prompts, options in (
        (2, PROMPTS, {}), (1, "A cat", {"num_images_per_prompt": 2, "guidance_scale": 3.0}), (4, PROMPTS, {}),
    ):  # fmt: skip
        options = {**AS_IS, **options, "num_inference_steps": steps}
        middle = {} if steps == 2 else {"intermediate_timesteps": None}
        wanted = theirs(prompts, generator=parity.generator(5), output_type="np", **options, **middle).images
        drawn = ours(params, prompts, torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)
    x = np.random.default_rng(1).standard_normal((1, 8, 16, 4)).astype(np.float32)
    options = {**AS_IS, "num_inference_steps": 1}
    wanted = parity.latents_of(theirs, "A cat", latents=parity.nchw(x), intermediate_timesteps=None, **options)
    found = ours(params, "A cat", latents=x, output_type="latent", progress=False, key=KEY, **options).images
    parity.assert_close(found, wanted)


@pytest.mark.parity
def test_parity_of_sprint_from_pictures(sprint):
    theirs, ours, params = parity.other(sprint, "SanaSprintImg2ImgPipeline")
    picture = transformers.photo(64, 32)
    for options in ({}, {"strength": 1.0, "num_images_per_prompt": 2}):
        options = {**AS_IS, "num_inference_steps": 4, **options}
        wanted = theirs("A cat", image=picture, generator=parity.generator(5), output_type="np",
                        intermediate_timesteps=None, **options).images  # fmt: skip
        drawn = ours(params, "A cat", picture, torch_seed=5, output_type="np", progress=False, **options).images
        parity.assert_close(drawn, wanted)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Sana-Sprint with latents of 32 pixels, so that it draws in the shapes of pictures in training."""
    pytest.importorskip("diffusers")
    folder, shape = tmp_path_factory.mktemp("deep"), {"dc": transformers.DEEP_DC, "sample_size": 32}
    return parity.pair(folder / "saved", transformers.sana(folder / "tokenizer", sprint=True, **shape))


@pytest.mark.parity
def test_parity_in_shapes_of_training(deep):
    theirs, ours, params = parity.other(deep, "SanaSprintImg2ImgPipeline")
    options = {"height": 500, "width": 720, "num_inference_steps": 1, "strength": 1.0}
    wanted = theirs("A cat", image=transformers.photo(90, 60), generator=parity.generator(5), output_type="np",
                    intermediate_timesteps=None, **options).images  # fmt: skip
    picture = transformers.photo(90, 60)
    drawn = ours(params, "A cat", picture, torch_seed=5, output_type="np", progress=False, **options).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_what_we_save_diffusers_draws_with_and_the_command_line_too(deep, tmp_path, capsys):
    import diffusers

    theirs, ours, params = deep
    ours.save_pretrained(tmp_path / "saved", params)
    again = parity.quiet(diffusers.SanaSprintPipeline.from_pretrained(tmp_path / "saved"))
    options = {"num_inference_steps": 2, "height": 64, "width": 64, "use_resolution_binning": False}
    wanted, found = (
        pipe("a cat", generator=parity.generator(5), output_type="latent", **options).images for pipe in (theirs, again)
    )
    parity.assert_close(found, wanted, 1e-5)
    made = tmp_path / "cat.png"
    command = ["generate", str(tmp_path / "saved"), "a cat", "--height", "130", "--width", "150", "--steps", "1"]
    assert main([*command, "--seed", "1", "--out", str(made)]) == 0
    assert Image.open(made).size == (150, 130)
    assert main(["inspect", str(tmp_path / "saved")]) == 0
    assert "SanaSprintPipeline" in capsys.readouterr().out


@pytest.mark.parity
def test_parity_of_controlnets(sana):
    import diffusers

    net = build_of("SanaControlNetModel", {**transformers.SANA, "num_layers": 1})
    module, tree = from_torch(fdiff.SanaControlNetModel, net)
    theirs, ours, params = parity.other(
        sana, "SanaControlNetPipeline", {"controlnet": tree}, {"controlnet": module}, {"controlnet": net}
    )
    assert isinstance(theirs, diffusers.SanaControlNetPipeline)
    picture, options = transformers.photo(64, 32), {**AS_IS, "num_images_per_prompt": 2}
    options |= {"complex_human_instruction": list(SHORT), "controlnet_conditioning_scale": 0.7}
    wanted = theirs("A cat", control_image=picture, generator=parity.generator(5), output_type="np", **options).images
    options |= {"torch_seed": 5, "output_type": "np", "progress": False}
    parity.assert_close(ours(params, "A cat", control_image=picture, **options).images, wanted)
    with pytest.raises(AssertionError, match="off by"):
        changed = {**options, "controlnet_conditioning_scale": 0.0}
        parity.assert_close(ours(params, "A cat", control_image=picture, **changed).images, wanted)
