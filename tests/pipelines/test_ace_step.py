"""ACE-Step 1.5: what comes out of it, and beside diffusers."""

import jax
import numpy as np
import pytest

import fdiff
from fdiff import audio
from fdiff.pipelines.ace_step import thirds, within
from fdiff.pipelines.ace_step_text import AceStepText, encode_ids
from fdiff.tokenizers.texts import Batch
from tests.pipelines import checkpoints, parity
from tests.reference import make_sound as cases

KEY = jax.random.key(0)
SIZES = {**cases.ACE_STEP, "hidden_size": 8, "intermediate_size": 12}
TRANSFORMER = {**SIZES, "num_hidden_layers": 2, "in_channels": 12, "audio_acoustic_hidden_dim": 4}
CONDITION = {
    **SIZES, "text_hidden_dim": 10, "timbre_hidden_dim": 4, "num_lyric_encoder_hidden_layers": 1,
    "num_timbre_encoder_hidden_layers": 1,
}  # fmt: skip
QWEN = {
    "vocab_size": 300, "hidden_size": 10, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4,
}  # fmt: skip
# 20 latents a second, so that the seconds of a timbre are short
OOBLECK = {**cases.OOBLECK, "sampling_rate": 160}
FLOW = {"num_train_timesteps": 1, "shift": 1.0}
QUICK = {"num_inference_steps": 2, "progress": False}


@pytest.fixture(scope="module")
def ace():
    models = {
        "vae": fdiff.AutoencoderOobleck(**OOBLECK), "text_encoder": fdiff.models.Qwen3ForCausalLM(**QWEN),
        "transformer": fdiff.AceStepTransformer1DModel(**TRANSFORMER),
        "condition_encoder": fdiff.AceStepConditionEncoder(**CONDITION),
    }  # fmt: skip
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler(**FLOW)
    pipe = fdiff.AceStepPipeline(tokenizer=None, scheduler=scheduler, **models)
    return pipe, {name: model.init_params(KEY) for name, model in models.items()}


@pytest.fixture(scope="module")
def told(ace):
    tokens = Batch(np.arange(12).reshape(2, 6) % 7, np.int32([[1] * 4 + [0] * 2, [1] * 5 + [0]]))
    return encode_ids(*ace, tokens, tokens)


def test_music(ace, told, tmp_path):
    pipe, params = ace
    assert told.text.shape == told.lyrics.shape == (2, 5, 10)
    heard = pipe(params, prompt_embeds=told, key=KEY, audio_duration=0.52, **QUICK)
    assert heard.audios.shape == (2, 2, 83) and heard.sampling_rate == 160  # of 11 latents
    np.testing.assert_allclose(np.abs(heard.audios).max((1, 2)), 10 ** (-1 / 20), rtol=1e-2)
    sound = audio.Sound(cases.normal(167, 1) * 0.1, 160)
    source = {"task_type": "repaint", "src_audio": sound, "repainting_start": 0.3, "repainting_end": 0.6}
    run = pipe.steps(params, prompt_embeds=told, key=KEY, **source)
    assert run.x.shape == (2, 20, 4)
    _, condition, *_ = run.network.args[0].args
    anew = np.asarray(condition.context[..., 4:])
    assert np.unique(anew).tolist() == [0, 1] and anew[:, 6:12].all() and anew.sum() == 2 * 6 * 4
    np.testing.assert_array_equal(condition.context[:, 6:12, :4], 0)  # the silence of fresh parameters
    assert np.abs(condition.context[:, :6, :4]).min() > 0
    pipe.save_pretrained(tmp_path, params)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == pipe
    for options, word in (
        ({"prompt": "a"}, "both prompt and prompt_embeds"), ({"task_type": "dance"}, "task_type is 'dance'; it can be"),
        ({"task_type": "lego"}, "task_type lego works on music; pass it as src_audio"),
        ({**source, "task_type": "cover"}, "which fdiff does not have"), ({"shift": 0}, "shift is 0"),
        ({**source, "src_audio": sound._replace(rate=80)}, "src_audio has 80 samples a second and the model 160"),
        ({**source, "src_audio": np.zeros((3, 9))}, r"src_audio has shape \(3, 9\); it must be \(2, n\)"),
        ({**source, "src_audio": np.zeros((2, 7))}, "src_audio lasts 0.04375 seconds; it must last 0.05 or more"),
        ({**source, "repainting_end": 0.2}, "repainting_end is 0.2; it must be above repainting_start"),
        ({**source, "repainting_start": 2}, "repainting_start is 2; it must be a number of seconds from 0 to 1"),
        ({"cfg_interval_start": 0.5, "cfg_interval_end": 0.2}, "they must rise"),
        ({"prompt_embeds": None, "prompt": "a"}, "has no tokenizer"), ({"audio_duration": 0.01}, "audio_duration is"),
        ({"prompt_embeds": told[:2]}, "four arrays"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            pipe.steps(params, **{"prompt_embeds": told, "key": KEY, **options})


def test_a_turbo_model_is_not_guided(ace, told):
    pipe, params = ace
    for turbo in ({"is_turbo": True}, {"model_version": "turbo"}):
        other = pipe.replace(transformer=pipe.transformer.clone(**turbo))
        assert other.steps(params, prompt_embeds=told, key=KEY, audio_duration=0.5).memory is None
    run = pipe.steps(params, prompt_embeds=told, key=KEY, audio_duration=0.5)
    assert run.memory[0].shape == run.x.shape == (2, 10, 4)
    options = {"prompt_embeds": told, "key": KEY, "audio_duration": 0.5, "cfg_interval_end": 0.9}
    runs = [pipe.steps(params, **options, num_inference_steps=4, cache=one)
            for one in (None, fdiff.TaylorSeer(2, depth=1, start=4))]  # fmt: skip
    plain, cached = (list(run) for run in runs)  # both remember the momentum; the cache, around it, what blocks add
    np.testing.assert_allclose(cached[-1][0].x, plain[-1][0].x, rtol=1e-4, atol=1e-5)


def test_parts_of_sounds():
    long = np.arange(16000)[:, None]
    assert thirds(long, 160)[[0, 1599, 1600, 3199, 3200, -1], 0].tolist() == [0, 1599, 5333, 6932, 14400, 15999]
    assert thirds(long[:100], 160).shape == (4800, 1)
    vae = fdiff.AutoencoderOobleck(**OOBLECK)
    assert within(20, vae, 0.99, None)[:, 0].tolist() == [0] * 19 + [1]


def test_texts_are_laid_out_as_the_model_reads_them(ace):
    seen = []

    class Ear:
        def batch(self, texts, length):
            seen.append((texts, length))
            return Batch(np.zeros((1, length), int), np.ones((1, length), int))

    pipe, params = ace
    read = pipe.replace(tokenizer=Ear()).encode_prompt(params, "a piano", "la", seconds=29.6, instruction="Do it")
    assert isinstance(read, AceStepText)
    metas = "- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n- duration: 29 seconds\n"
    assert seen == [
        ([f"# Instruction\nDo it:\n\n# Caption\na piano\n\n# Metas\n{metas}<|endoftext|>\n"], 256),
        (["# Languages\nen\n\n# Lyric\nla<|endoftext|>"], 2048),
    ]


# -- beside diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(shared_data, tmp_path_factory):
    import diffusers
    import torch
    import transformers
    from diffusers.pipelines.ace_step import AceStepConditionEncoder

    condition = checkpoints.seeded(lambda: AceStepConditionEncoder(**CONDITION), 1)
    torch.nn.init.normal_(condition.silence_latent)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        shared_data / "hub_configs" / "Tongyi-MAI" / "Z-Image-Turbo" / "tokenizer"
    )
    qwen = transformers.Qwen3Config(**{**QWEN, "vocab_size": len(tokenizer)})
    made = diffusers.AceStepPipeline(
        checkpoints.seeded(lambda: diffusers.AutoencoderOobleck(**OOBLECK), 0),
        checkpoints.seeded(lambda: transformers.Qwen3Model(qwen), 2), tokenizer,
        checkpoints.seeded(lambda: diffusers.AceStepTransformer1DModel(**TRANSFORMER), 3), condition,
        diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
    )  # fmt: skip
    return parity.pair(tmp_path_factory.mktemp("ace"), made)


@pytest.mark.parity
def test_diffusers_loads_what_is_saved(pair, tmp_path):
    import diffusers

    theirs, ours, params = pair
    ours.save_pretrained(tmp_path, params)
    again = parity.quiet(diffusers.AceStepPipeline.from_pretrained(tmp_path))
    assert type(again.text_encoder) is type(theirs.text_encoder)
    options = {"lyrics": "", "num_inference_steps": 1, "audio_duration": 0.2, "output_type": "np"}
    first, second = (pipe("rain", generator=parity.generator(0), **options).audios for pipe in (theirs, again))
    parity.assert_close(second, first)


SUNG = {"lyrics": ["[verse]\nla la", "[Instrumental]"], "bpm": 120, "keyscale": "C major", "timesignature": "4"}
TASKS = {
    "plain": {"guidance_scale": 1.0, "audio_duration": 0.5},
    "guided": {"audio_duration": 0.5, "num_inference_steps": 5, **SUNG},
    "in a part": {"audio_duration": 0.45, "cfg_interval_start": 0.2, "cfg_interval_end": 0.7, "shift": 1.0},
    "repaint": {"task_type": "repaint", "repainting_start": 0.3, "repainting_end": 0.7},
    "lego": {"task_type": "lego", "track_name": "vocals", "repainting_start": 0.4, "audio_duration": 30.0},
    "complete": {"task_type": "complete", "complete_track_classes": ["drums", "bass"]},
    "timbre": {"audio_duration": 0.3, "reference_audio": cases.normal(2, 5000, seed=5)},
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("name", TASKS)
def test_diffusers(pair, name):
    import torch

    theirs, ours, params = pair
    options = {"num_inference_steps": 3, "audio_duration": None, **TASKS[name]}
    if "task_type" in options:
        options["src_audio"] = cases.normal(2, 171, seed=4)
    if "task_type" in options or "reference_audio" in options:  # whose encoding takes torch's own random numbers
        options["latents"] = cases.normal(2, 21 if "task_type" in options else 6, 4, seed=6)
    prompts = ["a piano plays", "rain and drums"]
    given = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in options.items()
    }
    torch.manual_seed(3)
    generator = None if "latents" in options else parity.generator(3)
    wanted = theirs(prompts, generator=generator, output_type="np", **{"lyrics": ["", ""], **given}).audios
    heard = ours(params, prompts, torch_seed=3, progress=False, **options)
    parity.assert_close(heard.audios, wanted)
