"""Qwen-Image's transformer, its ControlNet, and the autoencoder that it has of Wan."""

import json

import jax
import numpy as np
import pytest

import fdiff
from convert import layout
from fdiff.models import (
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    QwenImageControlNetModel,
    QwenImageTransformer2DModel,
)
from fdiff.models.tiling import decode_frames, encode_frames
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_qwenimage as cases

LAYERED = {"use_additional_t_cond": True}


def output_of(model, params, arrays):
    return jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays))(params, arrays)


def test_stored_outputs(reference):
    folder = reference / "qwenimage"
    model, params = QwenImageTransformer2DModel.from_pretrained(folder / "kept_still", dtype="float32")
    assert_close(output_of(model, params, cases.inputs("kept_still")), read(folder / "kept_still.npz")["output"])
    assert QwenImageTransformer2DModel.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.TRANSFORMERS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model = cases.build(name)
    model, params = from_torch(QwenImageTransformer2DModel, torch_model)
    arrays = cases.inputs(name)
    assert_close(output_of(model, params, arrays), cases.run(torch_model, arrays))


@pytest.mark.parity
def test_controlnet_live():
    diffusers = pytest.importorskip("diffusers")
    theirs = cases.built(diffusers.QwenImageControlNetModel, cases.CONTROLNET)
    model, params = from_torch(QwenImageControlNetModel, theirs)
    arrays = cases.control_inputs()
    assert_close(np.stack(output_of(model, params, arrays)), cases.run_controlnet(theirs, arrays))


def test_wrong_inputs_of_a_controlnet_are_told():
    def told(match, **changes):
        with pytest.raises(ValueError, match=match):
            model = QwenImageControlNetModel(**cases.CONTROLNET)
            jax.eval_shape(lambda: model.init(jax.random.key(0), **{**cases.control_inputs(), **changes}))

    told(r"sample must be \(batch, height, width, 8\)", sample=np.zeros((2, 12, 8)))
    told(r"controlnet_cond must be \(2, 3, 4, 11\)", controlnet_cond=np.zeros((2, 3, 4, 8)))
    told(r"encoder_hidden_states must be \(batch, number, 12\)", encoder_hidden_states=np.zeros((2, 7, 10)))


def test_a_text_is_the_same_whatever_lies_behind_it(reference):
    model, params = QwenImageTransformer2DModel.from_pretrained(reference / "qwenimage/kept_still", dtype="float32")
    arrays = jax.tree.map(lambda array: array[:1], cases.inputs("kept_still"))
    masked = output_of(model, params, arrays)
    arrays["encoder_hidden_states"] = arrays["encoder_hidden_states"][:, :5]
    del arrays["encoder_hidden_states_mask"]
    np.testing.assert_allclose(masked, output_of(model, params, arrays), atol=1e-5)


def test_wrong_options_and_inputs_are_told():
    def told(match, changes=(), **options):
        with pytest.raises(ValueError, match=match):
            model = QwenImageTransformer2DModel(**{**cases.TRANSFORMER, **options})
            arrays = {**cases.inputs("kept"), **dict(changes)}
            jax.eval_shape(lambda: model.init(jax.random.key(0), **arrays))

    told(r"axes_dims_rope \(2, 2, 2\) must add up to attention_head_dim, 10", axes_dims_rope=(2, 2, 2))
    told(r"axes_dims_rope \(2, 3, 5\) must be even", axes_dims_rope=(2, 3, 5))
    told("guidance_embeds must be false", guidance_embeds=True)
    told(r"sample must be \(batch, height, width, 8\)", {"sample": np.zeros((2, 12, 8))})
    told(r"kept must be \(batch, height, width, 8\)", {"kept": [np.zeros((2, 4, 4, 6))]})
    told(r"encoder_hidden_states must be \(batch, number, 12\)", {"encoder_hidden_states": np.zeros((2, 7, 10))})
    told("takes no additional_t_cond", {"additional_t_cond": np.zeros(2, int)})
    told("needs additional_t_cond", **LAYERED)


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [("Qwen-Image", "qwen-image-transformer"), ("Qwen-Image-Edit", "qwen-image-edit-transformer")],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, folder, manifest):
    folder = shared_data / "hub_configs" / "Qwen" / folder / "transformer"
    model = QwenImageTransformer2DModel.from_config(json.loads((folder / "config.json").read_text()))
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")
    paths, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
    names = {layout.torch_name(tuple(entry.key for entry in path)) for path, _ in paths}
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert names == set(index["weight_map"])


def run(model, params, x, method):
    return jax.jit(lambda params, x: model.apply({"params": params}, x, method=method))(params, x)


def compare(model, params, video, expected):
    found = run(model, params, video, "encode")
    assert_close(found.mean, expected["mean"])
    assert_close(found.logvar, expected["logvar"])
    decoded = run(model, params, found.mean / 10, "decode")
    assert_close(decoded, expected["decoded"])
    assert 0.01 < np.abs(decoded).mean() < 0.9  # not all at the bounds


def test_stored_videos(reference):
    model, params = AutoencoderKLQwenImage.from_pretrained(reference / "qwenimage/vae", dtype="float32")
    compare(model, params, cases.video(), read(reference / "qwenimage/vae.npz"))
    assert AutoencoderKLQwenImage.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.AUTOENCODERS)
@pytest.mark.parametrize("frames", [1, 5])
def test_videos_live(name, frames):
    diffusers = pytest.importorskip("diffusers")
    cls, options = cases.AUTOENCODERS[name]
    theirs = cases.built(getattr(diffusers, cls), options)
    model, params = from_torch(getattr(fdiff, cls), theirs)
    video = cases.video(model.in_channels, frames)
    if name == "wan":  # which is given three of the four channels back
        assert model.channels() == (4, 3)
    compare(model, params, video, cases.run_autoencoder(theirs, video))


def test_a_picture_is_a_video_of_one_frame_and_the_first_frame_knows_no_other(reference):
    model, params = AutoencoderKLQwenImage.from_pretrained(reference / "qwenimage/vae", dtype="float32")
    video = cases.video(frames=5)
    whole, first = run(model, params, video, "moments"), run(model, params, video[:, 0], "moments")
    np.testing.assert_allclose(whole[:, 0], first, atol=1e-5)
    latents = first[..., :3]
    np.testing.assert_allclose(run(model, params, latents[:, None], "decode")[:, 0],
                               run(model, params, latents, "decode"), atol=1e-6)  # fmt: skip


def test_long_videos_go_part_by_part(reference):
    model, params = AutoencoderKLQwenImage.from_pretrained(reference / "qwenimage/vae", dtype="float32")
    stored = read(reference / "qwenimage/vae.npz")
    found = jax.jit(lambda params, x: encode_frames(model, params, x))(params, cases.video())
    assert_close(found.mean, stored["mean"])
    assert found.kl().shape == (2,)
    decoded = jax.jit(lambda params, z: decode_frames(model, params, z))(params, found.mean / 10)
    assert_close(decoded, stored["decoded"])
    np.testing.assert_allclose(decode_frames(model, params, found.mean[:, :1]).shape, (2, 1, 8, 12, 3))


def test_latents_are_scaled_by_the_config():
    model = AutoencoderKLQwenImage(**cases.VAE)
    latents = np.random.default_rng(1).standard_normal((1, 2, 2, 3)).astype(np.float32)
    scaled = model.apply({}, latents, method="scale")
    np.testing.assert_allclose(scaled[..., 2], latents[..., 2] / 2, atol=1e-6)
    np.testing.assert_allclose(scaled[..., 0], (latents[..., 0] - 0.5) / 3, atol=1e-6)
    np.testing.assert_allclose(model.apply({}, scaled, method="unscale"), latents, atol=1e-6)


def test_wrong_options_and_videos_are_told():
    def told(match, shape=(1, 5, 8, 8, 3), cls=AutoencoderKLWan, method="encode", **options):
        with pytest.raises(ValueError, match=match):
            cls(**{**cases.VAE, **options}).apply({"params": {}}, np.zeros(shape), method=method)

    told("is_residual must be false", is_residual=True)
    told("patch_size null", patch_size=2)
    told("attn_scales .* must be empty", attn_scales=(1.0,))
    told("temperal_downsample must be one shorter than dim_mult, which has 3", temperal_downsample=(True,))
    told("latents_mean must hold a number for each channel, of which z_dim says 6", z_dim=6)
    told("9 channels of the decoder cannot be halved|cannot be halved", decoder_base_dim=3)
    told("A video of 4 frames must have one, or one and a multiple of 4", (1, 4, 8, 8, 3))
    told(r"height and width multiples of 4; they are \(1, 6, 8, 3\)", (1, 6, 8, 3), AutoencoderKLQwenImage)
    told(r"Latents must be \(batch, frames, height, width, 3\)", (1, 2, 2, 4), method="decode")
    with pytest.raises(ValueError, match="A video of 4 frames"):
        encode_frames(AutoencoderKLQwenImage(**cases.VAE), {}, cases.video(frames=4))


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [("Qwen/Qwen-Image", "qwen-image-vae"), ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan21-vae")],
)
def test_names_and_shapes_of_real_autoencoders(shared_data, folder, manifest):
    config = json.loads((shared_data / "hub_configs" / folder / "vae/config.json").read_text())
    model = getattr(fdiff, config["_class_name"]).from_config(config)
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")
    assert (model.frames_of_latent, model.latent_channels, len(model.block_out_channels)) == (4, 16, 4)
