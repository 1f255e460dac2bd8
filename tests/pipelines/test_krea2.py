"""Krea 2: alone, and beside diffusers."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.cli import main
from fdiff.pipelines.krea2 import TOKENS_BEHIND
from fdiff.pipelines.qwenimage import BEFORE, BEHIND, DROPPED
from fdiff.registry import find_component
from tests.pipelines import newer, parity, transformers

QUICK = {"height": 16, "width": 24, "progress": False, "num_inference_steps": 3, "max_sequence_length": 300}
KEY = jax.random.key(0)
PROMPTS = ["a cat", "two cats that sleep, and a third one that does not"]


@pytest.fixture(scope="module")
def drawn_pipe(tmp_path_factory):
    pipe = newer.our_krea2(tmp_path_factory.mktemp("tokenizer"))
    return transformers.drawn(pipe, "vae", "text_encoder", "transformer")


def test_pictures_come_out_and_a_saved_pipeline_draws_them(drawn_pipe, tmp_path):
    """Also by the command, whatever is drawn beside them."""
    pipe, params = drawn_pipe
    drawn = pipe(params, PROMPTS, key=KEY, output_type="np", **QUICK).images
    assert drawn.shape == (2, 16, 24, 3)
    pipe = pipe.replace(is_distilled=True)
    pipe.save_pretrained(tmp_path / "model", params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert again == pipe and again.text_encoder_select_layers == newer.TAPPED
    again = again.replace(is_distilled=False)
    both = again.encode_prompt(loaded, "a cat", max_sequence_length=300)
    assert both[0].embeddings.shape[2:] == (3, 16)
    given = {"prompt_embeds": both[0], "negative_prompt_embeds": both[1], **QUICK}
    alone = again(loaded, key=jax.random.fold_in(KEY, 0)[None], output_type="np", **given).images
    np.testing.assert_allclose(alone[0], drawn[0], atol=1e-5)
    asked = ["generate", str(tmp_path / "model"), "a cat", "--steps", "2", "--height", "16", "--width", "24"]
    assert main([*asked, "--guidance-scale", "0", "--out", str(tmp_path / "cat.png")]) == 0
    assert Image.open(tmp_path / "cat.png").size[0] == 1.5 * Image.open(tmp_path / "cat.png").size[1]


def test_guidance_and_the_shift(drawn_pipe):
    pipe, params = drawn_pipe
    run = pipe.steps(params, "a cat", negative_prompt="dogs", guidance_scale=2.5, key=KEY, **QUICK)
    assert run.plan.t[1] == pytest.approx(fdiff.FlowMatchEulerDiscreteScheduler(**newer.LINEAR).plan(
        3, sigmas=np.linspace(1, 1 / 3, 3), mu=pipe.scheduler.mu(4 * 6)).t[1])  # fmt: skip
    x, t = run.x, run.plan.t[0]
    both = pipe.encode_prompt(params, "a cat", "dogs", max_sequence_length=300)
    tokens = np.asarray(x).reshape(1, 4, 2, 6, 2, 4).transpose(0, 1, 3, 5, 2, 4).reshape(1, 24, 16)
    ids = np.array([[0, row, column] for row in range(4) for column in range(6)], np.float32)
    said = [
        transformers.applied(pipe.transformer, params["transformer"], tokens, text.embeddings, t / 1000, ids,
                             np.zeros((text.mask.shape[1], 3), np.float32), text.mask)
        for text in both
    ]  # fmt: skip
    wanted = (said[0] + 2.5 * (said[0] - said[1])).reshape(1, 4, 6, 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    np.testing.assert_allclose(transformers.call(run.network, x, t), wanted.reshape(x.shape), atol=1e-4)
    steep = pipe.replace(is_distilled=True).steps(params, "a cat", guidance_scale=0, key=KEY, **QUICK)
    assert steep.plan.t[1] == pytest.approx(1000 * np.exp(1.15) / (np.exp(1.15) + 0.5))


def test_what_does_not_fit_is_told(drawn_pipe, caplog):
    pipe, params = drawn_pipe

    def told(match, pipe=pipe, **options):
        with pytest.raises(ValueError, match=match):
            pipe.steps(params, **{"prompt": "a cat", "key": KEY, **QUICK, **options})

    told("height is 18; it must be a multiple of 4", height=18)
    told("pass either prompt or prompt_embeds", prompt=None)
    told(r"must be an array \(batch, tokens, 3, channels\)", prompt=None, prompt_embeds=np.ones((1, 4, 8)))
    told("Krea2Pipeline has no text_encoder; pass prompt_embeds", pipe.replace(text_encoder=None))
    pipe.steps(params, "a cat", guidance_scale=0, key=KEY, **{**QUICK, "max_sequence_length": 150})
    assert not caplog.messages
    pipe.steps(params, "a " + 100 * "cat", guidance_scale=0, key=KEY, **{**QUICK, "max_sequence_length": 200})
    (said,) = caplog.messages
    assert "this is cut off: 'catcat" in said


def test_the_first_step_at_full_size(shared_data):
    """Of the Hub's configs, traced, without weights; its vocabulary is Z-Image's, its autoencoder Qwen-Image's."""
    configs = shared_data / "hub_configs"
    folder = configs / "krea" / "Krea-2-Raw"
    index = json.loads((folder / "model_index.json").read_text())
    loaded = {}
    for part in ("text_encoder", "transformer"):
        config = json.loads((folder / part / "config.json").read_text())
        loaded[part] = find_component(index[part][1], folder).from_config(config)
    loaded["vae"] = find_component(index["vae"][1], folder)()
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    tokenizer = fdiff.Qwen2Tokenizer.from_folder(configs / "Tongyi-MAI" / "Z-Image-Turbo" / "tokenizer")
    assert [len(tokenizer.ids(text)) for text in (BEFORE, BEHIND)] == [DROPPED, TOKENS_BEHIND]
    pipe = getattr(fdiff, index["_class_name"])(scheduler=scheduler, tokenizer=tokenizer, **loaded)
    assert pipe.text_encoder_select_layers == tuple(index["text_encoder_select_layers"])
    shapes = {part: module.shapes() for part, module in loaded.items()}

    def first_step(params):
        run = pipe.steps(params, "a cat", key=KEY, height=512, width=768, num_inference_steps=4)
        return run.network(run.plan.c_in[0] * run.x, run.plan.t[0]), pipe.decode(params, run.x)

    out, picture = jax.eval_shape(first_step, shapes)
    assert (out.shape, picture.shape) == ((1, 64, 96, 16), (1, 512, 768, 3))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("krea2")
    return parity.pair(folder / "saved", newer.krea2(folder / "tokenizer"))


@pytest.mark.parity
@pytest.mark.parametrize("options", [
    {"guidance_scale": 0.0, "num_images_per_prompt": 2}, {"negative_prompt": ["dogs", ""], "guidance_scale": 3.0},
], ids=["plain", "guided"])  # fmt: skip
def test_parity(pair, options):
    theirs, ours, params = pair
    given = {key: QUICK[key] for key in QUICK if key != "progress"} | options
    wanted = theirs(PROMPTS, generator=parity.generator(5), output_type="np", **given).images
    drawn = ours(params, PROMPTS, torch_seed=5, output_type="np", progress=False, **given).images
    parity.assert_close(drawn, wanted)


@pytest.mark.parity
def test_parity_of_a_distilled_checkpoint_and_what_we_save_diffusers_draws_with(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    given = {key: QUICK[key] for key in QUICK if key != "progress"} | {"guidance_scale": 0.0}
    theirs.register_to_config(is_distilled=True)
    wanted = theirs("a cat", generator=parity.generator(5), output_type="np", **given).images
    ours = ours.replace(is_distilled=True)
    drawn = ours(params, "a cat", torch_seed=5, output_type="np", progress=False, **given).images
    theirs.register_to_config(is_distilled=False)
    parity.assert_close(drawn, wanted)
    ours.save_pretrained(tmp_path, params)
    again = parity.quiet(diffusers.Krea2Pipeline.from_pretrained(tmp_path))
    found = again("a cat", generator=parity.generator(5), output_type="np", **given).images
    parity.assert_close(found, wanted, 1e-5)
