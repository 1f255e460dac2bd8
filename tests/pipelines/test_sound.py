"""Pipelines that make sound: alone, and beside diffusers."""

import dataclasses

import jax
import numpy as np
import pytest

import fdiff
from fdiff.pipelines.sound import samples_of
from fdiff.windows import lay_windows
from tests.pipelines import checkpoints, parity
from tests.reference import make_sound as cases

KEY = jax.random.key(0)
QUICK = {"num_inference_steps": 2, "progress": False}
T5 = {"vocab_size": 32128, "d_model": 6, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
PROJECTION = {"text_encoder_dim": 6, "conditioning_dim": 10, "min_value": 0, "max_value": 512}
UNET = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": (8, 16), "attention_head_dim": 4, "norm_num_groups": 4,
    "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 6,
    "class_embeddings_concat": True,
}  # fmt: skip
VAE = {
    "in_channels": 1, "out_channels": 1, "block_out_channels": (4, 4), "latent_channels": 4, "norm_num_groups": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
VOCODER = {**cases.HIFIGAN, "normalize_before": False}


def drawn(pipe, *names):
    """The pipeline with fresh parameters."""
    return pipe, {name: getattr(pipe, name).init_params(KEY) for name in names}


@pytest.fixture(scope="module")
def dance():
    unet = fdiff.UNet1DModel.from_config({**cases.DANCE, "sample_size": 150})
    return drawn(fdiff.DanceDiffusionPipeline(unet, fdiff.IPNDMScheduler()), "unet")


@pytest.fixture(scope="module")
def stable():
    models = fdiff.AutoencoderOobleck(**cases.OOBLECK), None, fdiff.StableAudioProjectionModel(**PROJECTION), None
    transformer = fdiff.StableAudioDiTModel(**cases.STABLE)
    pipe = fdiff.StableAudioPipeline(*models, transformer, fdiff.CosineDPMSolverMultistepScheduler())
    return drawn(pipe, "vae", "projection_model", "transformer")


@pytest.fixture(scope="module")
def spectral():
    vae, vocoder = fdiff.AutoencoderKL(**VAE), fdiff.SpeechT5HifiGan(**VOCODER)
    unet = fdiff.UNet2DConditionModel(**UNET)
    return drawn(
        fdiff.AudioLDMPipeline(vae, None, None, unet, fdiff.DDIMScheduler(), vocoder), "vae", "unet", "vocoder"
    )


def test_dance_diffusion(dance, tmp_path):
    pipe, params = dance
    heard = pipe(params, key=KEY, batch_size=2, **QUICK)
    assert heard.audios.shape == (2, 2, 150) and heard.sampling_rate == 16000  # made of 152, and cut
    assert heard.audios.dtype == np.float32 and np.abs(heard.audios).max() <= 1
    assert pipe(params, key=KEY, audio_length_in_s=0.002, **QUICK).audios.shape == (1, 2, 32)
    alone = pipe(params, key=jax.random.fold_in(KEY, 1)[None], **QUICK).audios
    np.testing.assert_allclose(alone[0], heard.audios[1], atol=1e-5)
    pipe.save_pretrained(tmp_path, params)
    assert fdiff.DiffusionPipeline.from_pretrained(tmp_path)[0] == pipe
    for options, word in (
        ({"audio_length_in_s": 0.001}, "audio_length_in_s is 0.001; it must be a number of seconds from 0.0015"),
        ({"audio_length_in_s": "long"}, "audio_length_in_s is 'long'"),
        ({"output_type": "pil"}, "output_type is 'pil'; it can be np, array, latent"),
    ):
        with pytest.raises(ValueError, match=word):
            pipe(params, key=KEY, **{**QUICK, **options})


def test_stable_audio(stable):
    pipe, params = stable
    embeds = cases.normal(2, 5, 6)
    heard = pipe(params, prompt_embeds=embeds, key=KEY, audio_start_in_s=0.001, audio_end_in_s=0.006, **QUICK)
    assert heard.audios.shape == (2, 2, 80) and heard.sampling_rate == 16000
    latents = pipe(params, prompt_embeds=embeds[:1], key=KEY, num_waveforms_per_prompt=2, output_type="latent", **QUICK)
    assert latents.audios.shape == (2, 16, 4)
    sound = {"initial_audio_waveforms": cases.normal(2, 1, 40), "initial_audio_sampling_rate": 16000}
    assert pipe.steps(params, prompt_embeds=embeds, key=KEY, **sound).x.shape == (2, 16, 4)
    for options, word in (
        ({"audio_end_in_s": 600}, "audio_end_in_s is 600; it must be a number of seconds from 0 to 512"),
        ({"audio_end_in_s": 0.05, "overlap_in_s": 1}, "overlap_in_s is 1, and a window lasts 0.008 seconds"),
        ({"audio_start_in_s": -1}, "audio_start_in_s is -1; it must be a number of seconds from 0 to 512"),
        ({"prompt": "a"}, "both prompt and prompt_embeds are given"),
        ({"negative_prompt": "a"}, "has no text_encoder; pass prompt_embeds"),
        ({**sound, "initial_audio_sampling_rate": 8000}, "it must be 16000; see fdiff.audio.resample"),
        ({**sound, "initial_audio_waveforms": np.zeros((1, 3, 4))}, r"it must be \(b, 2, n\)"),
    ):
        with pytest.raises(ValueError, match=word):
            pipe.steps(params, **{"prompt_embeds": embeds, "key": KEY, **options})


def test_longer_than_the_model(dance, stable, spectral):
    """Windows overlap by as much as is asked for, and each is what the network says of it alone."""
    pipe, params = dance
    run = pipe.steps(params, key=KEY, audio_length_in_s=0.016, overlap_in_s=0.002)  # of 256 in windows of 152
    windows = lay_windows(256, 152, 32)
    assert windows.starts.tolist() == [0, 104]
    alone = jax.jit(lambda x: pipe.unet.apply({"params": params["unet"]}, x, 0.5))
    parts = [
        share[:, None] * alone(run.x[:, start : start + 152])
        for start, share in zip(windows.starts, windows.shares, strict=True)
    ]
    wanted = np.pad(parts[0], ((0, 0), (0, 104), (0, 0))) + np.pad(parts[1], ((0, 0), (104, 0), (0, 0)))
    np.testing.assert_allclose(jax.jit(run.network)(run.x, 0.5), wanted, atol=1e-5)

    pipe, params = stable
    # of 40 latents, in windows of 16 that overlap by 4
    run = pipe.steps(params, prompt_embeds=cases.normal(1, 5, 6), key=KEY, audio_start_in_s=100, audio_end_in_s=100.02)
    _, condition, *_ = run.network.args
    tree = params["projection_model"]
    for place, start in enumerate((100, 100.006, 100.012)):
        seconds = np.float32([start]), np.float32([100.02])
        told = pipe.projection_model.apply({"params": tree}, cases.normal(1, 5, 6), *seconds)
        np.testing.assert_allclose(condition.seconds[:, place, :, :10], told.start, atol=1e-5)
    assert jax.jit(run.network)(run.x, 0.5).shape == run.x.shape == (1, 40, 4)
    assert run.finish()(run.x).audios.shape == (1, 2, 320)

    pipe, params = spectral
    given = {"prompt_embeds": cases.normal(1, 6), "key": KEY, "guidance_scale": 1.0, "audio_length_in_s": 0.05}
    whole, parts = (pipe.steps(params, **given, **more) for more in ({}, {"overlap_in_s": 0.005}))
    assert parts.x.shape == whole.x.shape == (1, 40, 4, 4)
    first, said = (jax.jit(run.network)(x, 1.0) for run, x in ((whole, whole.x[:, :16]), (parts, whole.x)))
    np.testing.assert_allclose(said[:, :12], first[:, :12], atol=1e-5)  # then the next window begins


def test_audio_ldm(spectral):
    pipe, params = spectral
    embeds = {"prompt_embeds": cases.normal(2, 6), "negative_prompt_embeds": np.zeros((2, 6), np.float32)}
    heard = pipe(params, key=KEY, audio_length_in_s=0.0121, **embeds, **QUICK)
    assert heard.audios.shape == (2, 193) and heard.sampling_rate == 16000
    for options, word in (
        ({"negative_prompt_embeds": None}, "has no text_encoder; pass prompt_embeds, and negative_prompt_embeds"),
        ({"audio_length_in_s": 0.001}, "it must be a number of seconds from 0.00125"),
        ({"latents": np.zeros((1, 2, 3, 4))}, r"latents have shape \(1, 2, 3, 4\); it must be \(2, 16, 4, 4\)"),
    ):
        with pytest.raises(ValueError, match=word):
            pipe.steps(params, key=KEY, **{**embeds, **options})


def test_a_silent_sound_is_told(caplog):
    assert samples_of("src_audio", np.ones(3), 16000, 2).shape == (3, 2) and not caplog.text
    assert not samples_of("src_audio", np.zeros((2, 3)), 16000, 2).any()
    assert "src_audio is silent, all of its samples being 0" in caplog.text


# -- beside diffusers --------------------------------------------------------------------------------------------------

# What diffusers' test of DanceDiffusionPipeline expects of the last numbers, since before version 0.36 broke it.
OLD_SLICE = [-0.7265, 1.0000, -0.8388, 0.1175, 0.9498, -1.0000]


@pytest.mark.parity
def test_diffusers_old_slice_of_dance_diffusion_comes_back(tmp_path):
    import diffusers

    net = checkpoints.seeded(lambda: diffusers.UNet1DModel(**{**cases.DANCE, "sample_size": 512}), 0)
    made = diffusers.DanceDiffusionPipeline(net, diffusers.IPNDMScheduler())
    theirs, ours, params = parity.pair(tmp_path, made)
    wanted = theirs(generator=parity.generator(0), num_inference_steps=4).audios
    np.testing.assert_allclose(wanted[0, -2:, -3:].ravel(), OLD_SLICE, atol=1e-2)
    plan = ours.scheduler.plan(4)
    first = np.arange(len(plan))[:, None] == 0
    plan = dataclasses.replace(plan, x0_of=np.where(first, 0, plan.x0_of))  # as diffusers takes it there
    heard = ours(params, torch_seed=0, plan=plan, progress=False)
    parity.assert_close(heard.audios, wanted)
    assert heard.sampling_rate == 16000


@pytest.mark.parity
def test_stable_audio_live(shared_data, tmp_path):
    import diffusers
    import transformers

    folder = shared_data / "hub_configs" / "stabilityai" / "stable-diffusion-3-medium-diffusers" / "tokenizer_3"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=12)
    encoder = checkpoints.seeded(lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)), 0)
    made = diffusers.StableAudioPipeline(
        cases.build("oobleck_decode"), encoder, cases.build("stable_audio_projection"), tokenizer,
        cases.build("stable_audio"), diffusers.EDMDPMSolverMultistepScheduler(sigma_max=50.0, sigma_data=1.0),
    )  # fmt: skip
    theirs, ours, params = parity.pair(tmp_path, made)
    options = {"num_inference_steps": 5, "audio_end_in_s": 0.006, "output_type": "np"}
    prompts = ["a dog barks", "rain"]
    for more in ({}, {"negative_prompt": ["noise", ""]}, {"guidance_scale": 1.0}):
        wanted = theirs(prompts, generator=parity.generator(3), **options, **more).audios
        parity.assert_close(ours(params, prompts, torch_seed=3, progress=False, **options, **more).audios, wanted)
    sound = cases.normal(2, 2, 90)
    import torch

    more = {"initial_audio_waveforms": sound, "initial_audio_sampling_rate": 16000}
    given = {**more, "initial_audio_waveforms": torch.from_numpy(sound)}
    wanted = theirs(prompts, generator=parity.generator(3), **options, **given).audios
    parity.assert_close(ours(params, prompts, torch_seed=3, progress=False, **options, **more).audios, wanted)


@pytest.mark.parity
def test_audio_ldm_live(shared_data, tmp_path):
    import diffusers
    import transformers

    folder = shared_data / "hub_configs" / "cvssp" / "audioldm-s-full-v2" / "tokenizer"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=12)
    config = transformers.ClapTextConfig(**{**cases.CLAP, "vocab_size": 50265, "max_position_embeddings": 20})
    vocoder = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**VOCODER)).eval()
    made = diffusers.AudioLDMPipeline(
        checkpoints.seeded(lambda: diffusers.AutoencoderKL(**VAE), 0),
        checkpoints.seeded(lambda: transformers.ClapTextModelWithProjection(config), 0), tokenizer,
        checkpoints.seeded(lambda: diffusers.UNet2DConditionModel(**UNET), 0), diffusers.DDIMScheduler(), vocoder,
    )  # fmt: skip
    theirs, ours, params = parity.pair(tmp_path, made)
    for more in ({}, {"negative_prompt": ["noise", "hum"], "num_waveforms_per_prompt": 2}):
        options = {"num_inference_steps": 4, "audio_length_in_s": 0.0121, **more}
        wanted = theirs(["a dog barks", "rain"], generator=parity.generator(3), **options).audios
        heard = ours(params, ["a dog barks", "rain"], torch_seed=3, progress=False, **options)
        parity.assert_close(heard.audios, wanted)


def clap():
    """CLAP, with a small part that hears."""
    import transformers

    text = {**cases.CLAP, "vocab_size": 50265, "max_position_embeddings": 20}
    hearing = {
        "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16,
        "num_mel_bins": 16, "spec_size": 64, "window_size": 4,
    }  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=hearing, projection_dim=6)
    return checkpoints.seeded(lambda: transformers.ClapModel(config), 0)


@pytest.mark.parity
def test_audio_ldm2_and_music_ldm_live(shared_data, tmp_path):
    import diffusers
    import torch
    import transformers

    folder = shared_data / "hub_configs"
    tokenizer, tokenizer_2 = (
        transformers.AutoTokenizer.from_pretrained(folder / path, model_max_length=12)
        for path in (
            "cvssp/audioldm-s-full-v2/tokenizer", "stabilityai/stable-diffusion-3-medium-diffusers/tokenizer_3"
        )
    )  # fmt: skip
    vocoder = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**VOCODER)).eval()
    vae = checkpoints.seeded(lambda: diffusers.AutoencoderKL(**VAE), 0)
    shared = {"vae": vae, "text_encoder": clap(), "tokenizer": tokenizer, "vocoder": vocoder, "feature_extractor": None}
    told = {"text_encoder_dim": 6, "text_encoder_1_dim": 6, "langauge_model_dim": 8}
    made = diffusers.AudioLDM2Pipeline(
        **shared, tokenizer_2=tokenizer_2,
        text_encoder_2=checkpoints.seeded(lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)), 0),
        projection_model=checkpoints.seeded(lambda: diffusers.AudioLDM2ProjectionModel(**told), 0),
        language_model=checkpoints.seeded(
            lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**cases.GPT2, bos_token_id=0, eos_token_id=0)),
            0,
        ),
        unet=checkpoints.seeded(
            lambda: diffusers.AudioLDM2UNet2DConditionModel(
                **{**cases.LDM2, "cross_attention_dim": ((None, 8, 6), (None, 8, 6))}
            ), 0,
        ),
        scheduler=diffusers.DDIMScheduler(),
    )  # fmt: skip
    theirs, ours, params = parity.pair(tmp_path / "2", made)
    prompts = ["a dog barks", "rain falls on a roof"]
    options = {"num_inference_steps": 4, "audio_length_in_s": 0.0121}
    for more in ({}, {"negative_prompt": ["noise", "hum"]}):
        wanted = theirs(prompts, generator=parity.generator(3), max_new_tokens=8, **options, **more).audios
        heard = ours(params, prompts, torch_seed=3, progress=False, **options, **more)
        parity.assert_close(heard.audios, wanted)

    unet = checkpoints.seeded(lambda: diffusers.UNet2DConditionModel(**UNET), 0)
    made = diffusers.MusicLDMPipeline(**shared, unet=unet, scheduler=diffusers.DDIMScheduler())
    theirs, ours, params = parity.pair(tmp_path / "music", made)
    # With transformers 5 diffusers does not read prompts for this pipeline any more.
    tokens = tokenizer(prompts, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        embeds = theirs.text_encoder.get_text_features(**tokens).pooler_output
    given = {"negative_prompt_embeds": embeds.flip(0), **options}
    wanted = theirs(prompt_embeds=embeds, generator=parity.generator(3), **given).audios
    given["negative_prompt_embeds"] = given["negative_prompt_embeds"].numpy()
    parity.assert_close(ours(params, prompts, torch_seed=3, progress=False, **given).audios, wanted)
