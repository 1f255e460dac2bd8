"""Sounds as spectrograms: what comes out, what is begun from and kept, encoding, and diffusers' own numbers."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import audio
from fdiff.cli import main
from fdiff.models import UNet2DModel
from fdiff.pipelines import AudioDiffusionPipeline, ClassConditionalSoundPipeline

MEL = audio.Mel(x_res=16, y_res=16, sample_rate=8000, n_fft=256, hop_length=64, n_iter=2)
BLOCKS = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,),
          "layers_per_block": 1, "norm_num_groups": 4, "add_attention": False}  # fmt: skip
SOUND = audio.Sound((np.sin(np.arange(2100) * 0.3) * np.linspace(1, 0.1, 2100)).astype(np.float32)[:, None], 8000)


@pytest.fixture(scope="module")
def made():
    unet = UNet2DModel(sample_size=16, in_channels=1, out_channels=1, **BLOCKS)
    pipe = AudioDiffusionPipeline(unet, MEL, fdiff.DDIMScheduler())
    return pipe, {"unet": unet.init_params(jax.random.key(0))}


def drawn(made, **options):
    pipe, params = made
    return pipe(params, **{"key": jax.random.key(1), "num_inference_steps": 4, "progress": False, **options})


def test_sounds_from_nothing(made, tmp_path):
    pipe, params = made
    output = drawn(made, batch_size=2)
    assert output.audios.shape == (2, 1, 15 * 64) and output.audios.dtype == np.float32
    assert output.sampling_rate == 8000 and [one.size for one in output.images] == [(16, 16)] * 2
    pipe.save_pretrained(tmp_path / "saved", params)
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert again == pipe
    np.testing.assert_array_equal(drawn((again, loaded), batch_size=2).audios, output.audios)


def test_longer_and_shorter_than_the_model(made):
    whole = drawn(made, audio_length_in_s=0.1).audios  # of 800 samples, 120 of them left out
    assert whole.shape == (1, 1, 800)
    np.testing.assert_array_equal(whole, drawn(made).audios[..., :800])
    output = drawn(made, audio_length_in_s=0.5, overlap_in_s=0.04)
    assert output.audios.shape == (1, 1, 4000) and output.images[0].size == (64, 16)
    run = made[0].steps(made[1], key=jax.random.key(1), audio_length_in_s=0.5)
    alone = made[0].unet.apply({"params": made[1]["unet"]}, run.x[:, :, :16], 3)
    np.testing.assert_allclose(run.network(run.x, 3)[:, :, :12], alone[:, :, :12], atol=1e-5)  # then the next begins


def test_what_is_kept_of_a_sound_comes_out_as_it_was(made):
    pictured = np.asarray(jnp.floor(MEL.pixels(MEL.slices(SOUND))[1] + 0.5))
    frames = int(0.04 * 8000 / 64)
    got = np.asarray(drawn(made, audio=SOUND, slice=1, mask_start_secs=0.04, mask_end_secs=0.04).images[0], float)
    np.testing.assert_array_equal(got[:, :frames], pictured[:, :frames])
    np.testing.assert_array_equal(got[:, -frames:], pictured[:, -frames:])
    assert np.abs(got - pictured)[:, frames:-frames].max() > 10


def test_silence_elsewhere_in_the_sound_is_no_matter(made):
    pipe, params = made
    half = SOUND._replace(samples=np.where(np.arange(2100)[:, None] < 1000, SOUND.samples, 0))
    options = {"key": jax.random.key(1), "num_inference_steps": 4, "start_step": 3, "audio": half}
    assert pipe.steps(params, **options).x.shape == (1, 16, 16, 1)
    with pytest.raises(ValueError, match="piece 1 of 2 of the sound is silent"):
        pipe.steps(params, slice=1, **options)


def test_the_fewer_steps_the_nearer_to_the_sound(made):
    pictured = np.asarray(MEL.pixels(MEL.slices(SOUND))[0])
    steps = [drawn(made, audio=SOUND, num_inference_steps=20, start_step=start) for start in (0, 19)]
    off = [np.abs(np.asarray(one.images[0], float) - pictured).mean() for one in steps]
    assert off[1] < 8 < off[0]


def test_encoding_is_undone_by_drawing(made):
    pipe = made[0].replace(scheduler=fdiff.DDIMScheduler(clip_sample=False, beta_end=0.002))
    picture = fdiff.images.to_pil(MEL.pixels(MEL.slices(SOUND)[:1])[..., None] / 127.5 - 1)
    noise = pipe.encode(made[1], picture, 100)
    again = drawn((pipe, made[1]), noise=noise, key=None, num_inference_steps=100).images[0]
    assert np.abs(np.asarray(again, float) - np.asarray(picture[0], float)).mean() < 2
    assert np.abs(noise - fdiff.images.from_pil(picture, "L")).mean() > 0.1


@pytest.mark.parametrize(("options", "words"), [
    ({"start_step": 4, "audio": SOUND}, "start_step is 4"), ({"start_step": 1}, "no audio"),
    ({"mask_start_secs": 0.1}, "none is given"), ({"audio": SOUND, "slice": 2}, "slice is 2"),
    ({"audio": SOUND, "mask_start_secs": 1}, "keep less"), ({"audio": SOUND, "mask_end_secs": -1}, "mask_end_secs"),
    ({"audio": SOUND._replace(rate=16000)}, "16000 samples a second"), ({"encoding": np.zeros((1, 2, 3))}, "encoding"),
    ({"audio": SOUND, "audio_length_in_s": 1}, "leave one out"), ({"audio_length_in_s": 0}, "audio_length_in_s is 0"),
    ({"overlap_in_s": 0.2}, "overlap by less"), ({"output_type": "pil"}, "output_type"),
    ({"noise": np.zeros((1, 8, 8, 1))}, "latents have shape"),
])
def test_what_cannot_be_asked(made, options, words):
    with pytest.raises(ValueError, match=words):
        drawn(made, **options)


def test_sounds_of_classes_by_the_command(tmp_path):
    unet = UNet2DModel(sample_size=16, in_channels=1, out_channels=1, num_class_embeds=3, **BLOCKS)
    pipe = ClassConditionalSoundPipeline(unet, fdiff.DDIMScheduler(), ("yes", "no"), 2, 1.5, mel=MEL)
    pipe.save_pretrained(tmp_path / "words", {"unet": unet.init_params(jax.random.key(0))})
    run = [sys.executable, "-m", "fdiff", "generate", str(tmp_path / "words"), "--class", "no,yes", "--num-images", "2"]
    done = subprocess.run([*run, "--out", str(tmp_path / "no.wav")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and f"{tmp_path / 'no.wav'} and {tmp_path / 'no.png'}" in done.stdout, done.stderr
    assert audio.read(tmp_path / "no.wav").samples.shape == (2 * 15 * 64 + 2000, 1)
    assert 'Class: "no, yes"' in (fdiff.images.read_text(tmp_path / "no.png") or "")
    long = ["--seconds", "0.3", "--steps", "1", "--out", str(tmp_path / "long.wav")]
    assert main(["generate", str(tmp_path / "words"), "--class", "no", *long]) == 0
    assert audio.read(tmp_path / "long.wav").samples.shape == (2400, 1)
    done = subprocess.run([*run, "--out", str(tmp_path / "no.png")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "makes sounds" in done.stderr


def test_bad_sounds_are_one_sentence_of_the_command(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made[0].save_pretrained("model", made[1])
    (tmp_path / "picture.wav").write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    audio.write("fast.wav", SOUND._replace(rate=16000))
    audio.write("silent.wav", audio.Sound(np.zeros(2100, np.float32), 8000))
    for arguments, words in (
        (["--audio", "picture.wav"], "picture.wav holds no sound, whatever its name says"),
        (["--audio", "fast.wav"], "16000 samples a second and the model 8000"),
        (["--audio", "silent.wav"], "piece 0 of 2 of the sound is silent"),
        (["--audio", "silent.wav", "--seconds", "1"], "leave one out"),
        (["--seconds", "-1"], "audio_length_in_s is -1"),
        (["--seconds", "1", "--overlap", "0.5"], "overlap by less"),
    ):
        assert main(["generate", "model", "--steps", "1", "--out", "out.wav", *arguments]) == 2
        error = capsys.readouterr().err.strip().split("\n")[-1]
        assert error.startswith("fdiff: ") and words in error, error
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fast.wav", "model", "picture.wav", "silent.wav"]


@pytest.mark.parity
def test_diffusers(made, tmp_path):
    import torch
    from diffusers import AudioDiffusionPipeline as Theirs
    from diffusers import DDIMScheduler, Mel
    from diffusers import UNet2DModel as TheirUNet

    pipe, params = made
    pipe.save_pretrained(tmp_path / "saved", params)
    # piece by piece, as their from_pretrained does not find the Mel of any model_index.json
    theirs = Theirs(None, TheirUNet.from_pretrained(tmp_path / "saved", subfolder="unet"),
                    Mel.from_pretrained(tmp_path / "saved", subfolder="mel"),
                    DDIMScheduler.from_pretrained(tmp_path / "saved", subfolder="scheduler"))
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(generator=torch.Generator("cpu").manual_seed(0), steps=4, batch_size=2)
    got = drawn(made, key=None, torch_seed=0, batch_size=2)
    for ours, other in zip(got.images, expected.images, strict=True):
        assert np.abs(np.asarray(ours, int) - np.asarray(other, int)).max() <= 1
    assert got.audios.shape == expected.audios.shape
    theirs.mel.load_audio(raw_audio=SOUND.mono())
    seen = np.asarray(theirs.mel.audio_slice_to_image(1), int)
    assert np.abs(seen - np.floor(MEL.pixels(MEL.slices(SOUND))[1] + 0.5)).max() <= 1
    noise = theirs.encode([got.images[0]], steps=4)
    np.testing.assert_allclose(pipe.encode(params, [got.images[0]], 4)[..., 0], noise.numpy()[:, 0], atol=1e-3)
    middle = Theirs.slerp(noise, torch.flip(noise, (2,)), 0.3)
    ours = fdiff.slerp(jnp.asarray(noise.numpy()[0]), jnp.asarray(noise.numpy()[0, :, ::-1]), 0.3)
    np.testing.assert_allclose(ours, middle.numpy()[0], atol=1e-4)
