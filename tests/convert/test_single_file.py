"""Single files of Stable Diffusion: names, families, and what comes out of a tiny one."""

import gzip
import json
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from convert import safetensors, single_file, weights
from convert.tensors import Tensor
from fdiff import conversion
from fdiff.schedulers.scheduler import Scheduler
from fdiff.single_file import ANYWHERE, find, load
from tests.convert import original_names as original

V1, V2, XL = "cond_stage_model.transformer.", "cond_stage_model.model.", "conditioner.embedders."


def manifest(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    with gzip.open(folder / "manifests" / f"{name}.json.gz") as stream:
        return {key: tuple(shape) for key, shape in json.load(stream)["tensors"].items()}


def widen(shape):
    return (*shape, 1, 1)


def openclip(shapes):
    return original.openclip(shapes, lambda three: (3 * three[0][0], *three[0][1:]), lambda shape: shape[::-1])


def prefixed(prefix, names):
    return {prefix + name: value for name, value in names.items()}


def on_file(shapes):
    """Tensors of those shapes, in no file."""
    return {name: Tensor(Path("none"), 0, np.dtype(np.float16), shape) for name, shape in shapes.items()}


def shapes_of(part):
    return {name.removeprefix("text_model."): tensor.shape for name, tensor in part.items()}


def full_size(folder: Path, kind: str) -> tuple[dict, dict]:
    """(the tensors of an original file, those of its components today), as shapes."""
    unet_name = {"sd15": "sd15-unet", "inpaint": "sd15-inpaint-unet", "sd21": "sd21-unet"}.get(kind, f"{kind}-unet")
    today = {"unet": manifest(folder, unet_name)}
    if kind in ("sdxl", "sdxl-refiner"):
        today["text_encoder_2"] = manifest(folder, "sdxl-text-encoder-2")
    if kind in ("sd15", "inpaint", "sdxl"):
        today["text_encoder"] = manifest(folder, "sd15-text-encoder")
    vaes = {"sd21": "sd21-vae", "sd15": "sd15-vae", "inpaint": "sd15-vae"}
    today["vae"] = manifest(folder, vaes.get(kind, "sdxl-vae"))
    full = prefixed("model.diffusion_model.", original.unet(today["unet"]))
    full |= prefixed("first_stage_model.", original.vae(today["vae"], widen))
    if kind == "sdxl-refiner":
        full |= prefixed(f"{XL}0.model.", openclip(today["text_encoder_2"]))
    elif kind == "sdxl":
        full |= prefixed(f"{XL}1.model.", openclip(today["text_encoder_2"]))
        full |= prefixed(f"{XL}0.transformer.text_model.", today["text_encoder"])
    elif kind != "sd21":
        full |= prefixed(f"{V1}text_model.", today["text_encoder"])
    return full, today


EXTRAS = {
    "betas": (1000,), "alphas_cumprod_prev": (1000,), "sqrt_recipm1_alphas_cumprod": (1000,), "logvar": (1000,),
    "posterior_log_variance_clipped": (1000,), "log_one_minus_alphas_cumprod": (1000,), "model_ema.decay": (),
    "model_ema.diffusion_modelout2weight": (4, 320, 3, 3), "first_stage_model.loss.logvar": (),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77), "denoiser.sigmas": (1000,),
    "cond_stage_model.model.logit_scale": (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "pipeline"),
    [
        ("sd15", "StableDiffusionPipeline"),
        ("inpaint", "StableDiffusionInpaintPipeline"),
        ("sd21", "StableDiffusionPipeline"),
        ("sdxl", "StableDiffusionXLPipeline"),
        ("sdxl-refiner", "StableDiffusionXLImg2ImgPipeline"),
    ],
)
def test_names_of_full_size_checkpoints(shared_data, kind, pipeline):
    full, today = full_size(shared_data, kind)
    found = on_file(full | EXTRAS)
    parts = single_file.parts(found, file="x.safetensors")
    assert {name: shapes_of(part) for name, part in parts.items()} == {
        name: {key.removeprefix("text_model."): shape for key, shape in part.items()} for name, part in today.items()
    }
    family = single_file.family(found, parts, file="x.safetensors")
    assert family.pipeline == pipeline
    assert family.models.keys() == today.keys()


def test_a_text_encoder_of_sd2_loses_its_last_layer():
    shapes = {"positional_embedding": (77, 1024), "text_projection": (1024, 1024), "ln_final.weight": (1024,)}
    shapes |= {f"transformer.resblocks.{i}.attn.in_proj_weight": (3072, 1024) for i in range(24)}
    parts = single_file.parts(on_file(prefixed(V2, shapes)), file="x")["text_encoder"]
    assert len(parts) == 2 + 3 * 23
    assert parts["text_model.encoder.layers.22.self_attn.v_proj.weight"].offset == 2 * 2**21


def test_names_of_a_controlnet(shared_data):
    today = manifest(shared_data, "controlnet-v11p-sd15-canny")
    names = original.unet(today)
    for full in (names, prefixed("control_model.", names)):
        found = on_file(full)
        parts = single_file.parts(found, file="x.pth")
        assert shapes_of(parts["controlnet"]) == today
        family = single_file.family(found, parts, file="x.pth")
        assert family.pipeline is None
        assert family.models["controlnet"][0] == "ControlNetModel"


@pytest.mark.parametrize(
    ("kind", "repository"),
    [
        ("sd15", "runwayml/stable-diffusion-v1-5"),
        ("inpaint", "runwayml/stable-diffusion-inpainting"),
        ("sd21", "stabilityai/stable-diffusion-2-1"),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("sdxl-refiner", "stabilityai/stable-diffusion-xl-refiner-1.0"),
    ],
)
def test_configs_are_those_of_the_hub(shared_data, kind, repository):
    full, _ = full_size(shared_data, kind)
    found = on_file(full)
    family = single_file.family(found, single_file.parts(found, file="x"), file="x")
    for name, (kind_of_model, config) in family.models.items():
        cls = getattr(fdiff, kind_of_model)
        folder = shared_data / "hub_configs" / repository / name
        if not folder.is_dir():  # the copy of the refiner has it under another name
            folder = folder.with_name("text_encoder")
        hub = cls.from_config(json.loads((folder / "config.json").read_text())).config()
        ours = cls.from_config(config).config()
        for field in hub.keys() - {"sample_size", "upcast_attention"}:  # which no network computes with
            assert ours[field] == hub[field], (name, field)


def test_the_prediction_type():
    unet = {"conv_in.weight": (320, 4, 3, 3), "x.attn2.to_k.weight": (320, 1024)}
    found = on_file(prefixed("model.diffusion_model.", unet))
    parts = single_file.parts(found, file="x")

    def predicts(**options):
        return single_file.family(found, parts, file="x", **options).scheduler.get("prediction_type", "epsilon")

    assert predicts() == "v_prediction"
    assert predicts(prediction_type="epsilon") == "epsilon"
    with pytest.raises(ValueError, match="must be epsilon or v_prediction"):
        predicts(prediction_type="v")
    found |= on_file({"v_pred": (), "ztsnr": ()})
    unet["x.attn2.to_k.weight"] = (320, 2048)
    parts = single_file.parts(on_file(prefixed("model.diffusion_model.", unet)), file="x")
    scheduler = single_file.family(found, parts, file="x").scheduler
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["rescale_betas_zero_snr"]


XL_UNET = {
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
}  # fmt: skip


def said(folder, markers, **options):
    """The family of SDXL's U-Net and VAE with those markers, which lie in a file."""
    arrays = {name: np.asarray(value, np.float32) for name, value in markers.items()}
    written = {name: safetensors.Array(x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items()}
    safetensors.write(folder / "x.safetensors", written)
    found = on_file(XL_UNET) | safetensors.read(folder / "x.safetensors")
    return single_file.family(found, single_file.parts(found, file="x"), file="x", **options)


def test_the_latents_and_noise_levels_of_playground(shared_data, tmp_path):
    """As the Hub has them for the same model."""
    folder = shared_data / "hub_configs" / "playgroundai" / "playground-v2.5-1024px-aesthetic"
    config = json.loads((folder / "vae" / "config.json").read_text())
    mean, std = (np.reshape(config[name], (1, 4, 1, 1)) for name in ("latents_mean", "latents_std"))
    family = said(tmp_path, {"edm_mean": mean, "edm_std": std})
    vae = fdiff.AutoencoderKL.from_config(family.models["vae"][1])
    hub = fdiff.AutoencoderKL.from_config(config)
    np.testing.assert_allclose([vae.latents_mean, vae.latents_std], [hub.latents_mean, hub.latents_std], rtol=1e-6)
    assert vae.clone(latents_mean=None, latents_std=None) == hub.clone(latents_mean=None, latents_std=None)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert Scheduler.from_config(family.scheduler) == Scheduler.from_config(scheduler)


def test_the_noise_levels_of_cosxl(tmp_path):
    """What diffusers says to use with it: EDM on velocities, of data with deviation 1, exponential levels."""
    family = said(tmp_path, {"edm_vpred.sigma_max": 120.0, "edm_vpred.sigma_min": 0.002, "v_pred": np.zeros(0)})
    scheduler = Scheduler.from_config(family.scheduler)
    assert isinstance(scheduler, fdiff.EDMEulerScheduler)
    assert scheduler.sigma_max == 120 and scheduler.sigma_min == pytest.approx(0.002)
    assert (scheduler.sigma_data, scheduler.sigma_schedule) == (1.0, "exponential")
    assert scheduler.prediction_type == "v_prediction"
    only = said(tmp_path, {"edm_vpred.sigma_max": 80.0}, prediction_type="epsilon").scheduler
    assert (only["sigma_max"], only["sigma_min"], only["prediction_type"]) == (80.0, 0.002, "epsilon")


@pytest.mark.parametrize(
    ("markers", "words"),
    [
        ({"edm_mean": [0, 0, 0, 0]}, "x lacks edm_std, without which its other markers mean nothing"),
        ({"edm_mean": [0, 0, 0, 0], "edm_std": [1, 1, 1, 0]}, r"edm_std in x is \[.*\], which are no positive numbers"),
        ({"edm_mean": [0, 0, 0], "edm_std": [1, 1, 1]}, r"edm_mean in x has shape \(3,\), not 4 numbers"),
        ({"edm_vpred.sigma_min": 0.1}, "x lacks edm_vpred.sigma_max"),
        ({"edm_vpred.sigma_max": np.nan}, r"edm_vpred.sigma_max in x is \[nan\], which are no positive"),
        ({"edm_vpred.sigma_max": 0.001}, r"noise goes from 0.002 to 0.001"),
    ],
)
def test_markers_that_are_damaged(tmp_path, markers, words):
    with pytest.raises(ValueError, match=words):
        said(tmp_path, markers)


@pytest.mark.parametrize(
    "name",
    ["alphas_cumprod_next", "denoiser.weights", "model_ema.diffusion_model.out.2.bias",
     "edm_other", "v_prediction", "embedding_manager.other", "cond_stage_model.extra.weight", "scaled_fp8"],
)  # fmt: skip
def test_what_is_dropped_is_known_by_name(name):
    found = on_file(XL_UNET)
    single_file.parts(found | on_file(EXTRAS), file="x")
    with pytest.raises(ValueError, match=rf"x holds {name}, which is no part of Stable Diffusion"):
        single_file.parts(found | on_file({name: (1,)}), file="x")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{V2}transformer.resblocks.0.attn.in_proj_weight", (3073, 1024)),
        (f"{V2}transformer.resblocks.0.attn.in_proj_bias", ()),
        (f"{XL}1.model.text_projection", (1280,)),
        ("first_stage_model.encoder.mid.attn_1.q.weight", (512, 512, 1, 3)),
    ],
)
def test_shapes_that_cannot_be_laid_anew(name, shape):
    with pytest.raises(ValueError, match=rf"{name} in x has shape .*, which it cannot have; download it again\.$"):
        single_file.parts(on_file({**XL_UNET, name: shape}), file="x")


def test_a_component_that_is_there_twice():
    twice = {**XL_UNET, "vae.encoder.conv_in.weight": (128, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"x holds encoder.conv_in.weight of the vae twice, also as vae.encoder.conv"):
        single_file.parts(on_file(twice), file="x")


@pytest.mark.parametrize("place", ["cond_stage_model.", f"{XL}0."])
@pytest.mark.parametrize(
    "extra", ["text_projection", "transformer.text_projection.weight", "text_projection.weight", "logit_scale"]
)
def test_a_projection_beside_the_first_text_encoder(place, extra):
    """Merging programs write one, and no pipeline reads it."""
    plain = on_file({**XL_UNET, f"{place}transformer.text_model.final_layer_norm.weight": (768,)})
    wanted = single_file.parts(plain, file="x")
    assert single_file.parts(plain | on_file({place + extra: (768, 768)}), file="x") == wanted


def test_files_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match=r"x holds double_blocks.0.weight, which is no part of Stable Diffusion"):
        single_file.parts(on_file({"double_blocks.0.weight": (1,)}), file="x")
    found = on_file({"model.diffusion_model.x.attn2.to_k.weight": (320, 777)})
    parts = single_file.parts(found, file="x")
    with pytest.raises(ValueError, match="attends to 777 numbers"):
        single_file.family(found, parts, file="x")
    with pytest.raises(ValueError, match="no averaged weights of model"):
        single_file.parts(found, file="x", ema=True)


TINY_UNET = {
    "block_out_channels": [8, 16], "layers_per_block": 2, "norm_num_groups": 4, "attention_head_dim": 2,
    "cross_attention_dim": 12, "use_linear_projection": True, "sample_size": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
TINY_VAE = {
    "block_out_channels": [4, 4, 4, 8], "layers_per_block": 1, "norm_num_groups": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
TINY_TEXT = {
    "vocab_size": 50, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "hidden_act": "gelu", "architectures": ["CLIPTextModel"],
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, reference):
    """(a file as of SD 2.x, a folder with its configs and a tokenizer, modules, params)."""
    folder = tmp_path_factory.mktemp("tiny")
    built = {
        "unet": fdiff.UNet2DConditionModel.from_config(TINY_UNET),
        "vae": fdiff.AutoencoderKL.from_config(TINY_VAE),
        "text_encoder": fdiff.CLIPTextModel.from_config(TINY_TEXT),
    }
    rng = np.random.default_rng(0)
    params = {
        name: jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), model.shapes())
        for name, model in built.items()
    }
    arrays = {
        name: {key: array.make() for key, array in weights.arrays(tree).items()} for name, tree in params.items()
    }
    full = prefixed("model.diffusion_model.", original.unet(arrays["unet"]))
    full |= prefixed("first_stage_model.", original.vae(arrays["vae"], lambda x: x[..., None, None]))
    full |= prefixed(V2, original.openclip(arrays["text_encoder"], np.concatenate, np.transpose))
    full |= {"model_ema." + name.removeprefix("model.").replace(".", ""): x + 1 for name, x in full.items()}
    file = folder / "tiny.safetensors"
    safetensors.write(file, {name: safetensors.Array(x.shape, x.dtype, lambda x=x: x) for name, x in full.items()})
    configs = folder / "configs"
    for name, model in built.items():
        (configs / name).mkdir(parents=True)
        (configs / name / "config.json").write_text(json.dumps(model.config()))
    (configs / "scheduler").mkdir()
    fdiff.DDIMScheduler(prediction_type="v_prediction").save_pretrained(configs / "scheduler")
    (configs / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (configs / "tokenizer").symlink_to(reference / "clip" / "tokenizer")
    return file, configs, built, params


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_loading(tiny):
    file, configs, built, params = tiny
    loaded = load(file, config=configs)
    assert loaded.models == built
    assert equal(loaded.params, params)
    assert loaded.scheduler.prediction_type == "v_prediction"
    assert loaded.tokenizers["tokenizer"].pad_token == "!"
    averaged = load(file, config=configs, ema=True, dtype="float16").params
    assert equal(averaged["unet"], jax.tree.map(lambda x: (x + 1).astype(np.float16), params["unet"]))
    assert equal(averaged["vae"], jax.tree.map(lambda x: x.astype(np.float16), params["vae"]))


def test_without_a_vocabulary(tiny, tmp_path, monkeypatch):
    file, configs, *_ = tiny
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no vocabulary, and .*; pass tokenizer=") as error:
        load(file, config=configs, tokenizer=tmp_path / "empty")
    assert str(error.value).count(". ") == 0


def test_a_pipeline_from_a_single_file(tiny):
    file, configs, _, params = tiny
    pipe, found = fdiff.DiffusionPipeline.from_single_file(file, config=configs)
    assert type(pipe) is fdiff.StableDiffusionPipeline
    assert pipe.scheduler == fdiff.DDIMScheduler(prediction_type="v_prediction")
    assert equal(found, params)
    with pytest.raises(ValueError, match="has no controlnet"):
        fdiff.StableDiffusionControlNetPipeline.from_single_file(file, config=configs)


def test_converting(tiny, tmp_path):
    file, configs, built, params = tiny
    seen = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    conversion.convert(file, tmp_path / "out", config=configs, dtype="bfloat16", progress=progress)
    for name, model in built.items():
        found, tree = type(model).from_pretrained(tmp_path / "out", subfolder=name)
        assert found == model
        assert equal(tree, jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params[name]))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == 2 * sum(x.size for x in jax.tree.leaves(params))
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["text_encoder"] == ["transformers", "CLIPTextModel"]
    assert index["tokenizer"] == ["transformers", "CLIPTokenizer"]
    assert (tmp_path / "out" / "scheduler" / "scheduler_config.json").is_file()
    assert fdiff.CLIPTokenizer.from_pretrained(tmp_path / "out", subfolder="tokenizer").pad_token == "!"


def test_nothing_is_written_where_a_tensor_is_missing(tiny, tmp_path):
    file, configs, *_ = tiny
    tensors = dict(safetensors.read(file))
    del tensors["model.diffusion_model.out.2.bias"]
    short = tmp_path / "short.safetensors"
    safetensors.write(
        short, {name: safetensors.Array(x.shape, x.dtype, x.read) for name, x in tensors.items()}
    )
    with pytest.raises(ValueError, match=r"short.safetensors lacks conv_out.bias"):
        conversion.convert(short, tmp_path / "out", config=configs)
    assert not (tmp_path / "out").exists()


def part_of(tiny, file, *prefixes):
    """A file of those tensors of the tiny one that begin so."""
    found = {name: x for name, x in safetensors.read(tiny[0]).items() if name.startswith(prefixes)}
    safetensors.write(file, {name: safetensors.Array(x.shape, x.dtype, x.read) for name, x in found.items()})
    return file


@pytest.mark.parametrize("prefix", ["model_ema.", "nothing."])
def test_files_without_weights_of_a_model(tiny, tmp_path, prefix):
    file = part_of(tiny, tmp_path / "junk.safetensors", prefix)
    with pytest.raises(ValueError, match=r"junk.safetensors holds no weights of a Stable Diffusion model; "):
        conversion.convert(file, tmp_path / "out")
    with pytest.raises(ValueError, match="holds no weights"):
        single_file.parts(on_file({"betas": (1000,)}), file="x")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_whole_pipeline(tiny, tmp_path):
    """A U-Net alone is written as a model; more than that without a VAE is refused."""
    _, configs, built, params = tiny
    unet = part_of(tiny, tmp_path / "unet.safetensors", "model.")
    for config in (configs, configs / "unet"):
        assert conversion.convert(unet, tmp_path / "unet", config=config) == "UNet2DConditionModel"
        model, tree = fdiff.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
        assert model == built["unet"] and equal(tree, params["unet"])
    short = part_of(tiny, tmp_path / "short.safetensors", "model.", "cond_stage")
    words = "short.safetensors has no vae, which StableDiffusionPipeline needs; load its parts with"
    for read in (fdiff.DiffusionPipeline.from_single_file, partial(conversion.convert, folder=tmp_path / "out")):
        with pytest.raises(ValueError, match=words):
            read(short, config=configs)
    assert not (tmp_path / "out").exists()


def test_pipelines_of_another_family(tiny):
    file, configs, *_ = tiny
    with pytest.raises(ValueError, match=r"is a StableDiffusionPipeline, .*; load it with fdiff.StableDiffusionPip"):
        fdiff.StableDiffusionXLPipeline.from_single_file(file, config=configs)
    pipe, _ = fdiff.StableDiffusionImg2ImgPipeline.from_single_file(file, config=configs, prediction_type="epsilon")
    assert pipe.scheduler.prediction_type == "epsilon"


def test_one_model_alone(tiny, tmp_path):
    file, configs, built, params = tiny
    tensors = {name.removeprefix("first_stage_model."): x for name, x in safetensors.read(file).items()}
    tensors = {name: x for name, x in tensors.items() if name.startswith(("encoder", "decoder", "quant", "post"))}
    vae = tmp_path / "vae.safetensors"
    safetensors.write(vae, {name: safetensors.Array(x.shape, x.dtype, x.read) for name, x in tensors.items()})
    conversion.convert(vae, tmp_path / "vae", config=configs)
    model, tree = fdiff.AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert model == built["vae"]
    assert equal(tree, params["vae"])


def test_a_ckpt_of_torch_becomes_what_diffusers_makes_of_it(reference):
    folder = reference / "single_file"
    found = weights.tensors(folder / "tiny.ckpt")
    parts = single_file.parts(found, file="tiny.ckpt")
    expected = json.loads((folder / "expected.json").read_text())
    sums = {
        name: {key: [*x.shape, zlib.crc32(np.ascontiguousarray(x.read()).tobytes())] for key, x in part.items()}
        for name, part in parts.items()
    }
    assert sums == expected
    loaded = load(folder / "tiny.ckpt", config=folder / "configs", tokenizer=reference / "clip" / "tokenizer")
    assert loaded.tokenizers["tokenizer"].pad_token == "<|endoftext|>"
    assert loaded.params["unet"]["conv_in"]["kernel"].dtype == jnp.float16


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("a/b/c.safetensors", ("a/b", None, "c.safetensors")),
        ("https://huggingface.co/a/b/blob/main/d/c.ckpt", ("a/b", "main", "d/c.ckpt")),
        ("https://hf.co/a/b/resolve/v2/c.ckpt", ("a/b", "v2", "c.ckpt")),
    ],
)
def test_files_on_the_hub(monkeypatch, source, want):
    asked = []
    monkeypatch.setattr("fdiff.hub.fetch", lambda place, file: asked.append((place.name, place.revision, file)))
    find(source, ANYWHERE)
    assert asked == [want]


def test_a_file_that_is_not_there():
    for source in ("nothing.safetensors", "owner/name"):
        with pytest.raises(FileNotFoundError, match="is not there; check its name"):
            load(source)


@pytest.mark.parity
def test_diffusers_reads_what_is_written(reference, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    folder = reference / "single_file"
    options = {"config": folder / "configs", "tokenizer": reference / "clip" / "tokenizer", "dtype": "float32"}
    conversion.convert(folder / "tiny.ckpt", tmp_path / "out", **options)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    params = load(folder / "tiny.ckpt", **options).params
    ours = {name: {key: x.make() for key, x in weights.arrays(tree).items()} for name, tree in params.items()}
    for name, tensors in ours.items():
        theirs = getattr(pipe, name).state_dict()
        assert len(theirs) == len(tensors)
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(theirs[key.removeprefix("text_model.")], tensor)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["v1", "v2", "xl", "refiner", "controlnet"])
def test_against_the_converters_of_diffusers(kind, tmp_path):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    from diffusers.loaders import single_file_utils as utils
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    tall = {"block_out_channels": (8, 8, 16), "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2)}
    tall |= {"up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"), "transformer_layers_per_block": (1, 2, 3)}
    tall |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    tall |= {"projection_class_embeddings_input_dim": 24}
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in TINY_UNET.items() if k != "sample_size"}
    config |= {"use_linear_projection": kind != "v1"} | (tall if kind in ("xl", "refiner") else {})
    if kind == "controlnet":
        config.pop("up_block_types")
        model = diffusers.ControlNetModel(**config)
        torch.nn.init.normal_(model.controlnet_mid_block.weight)
        full = prefixed("control_model.", original.unet(model.state_dict()))
        theirs = {"controlnet": utils.convert_controlnet_checkpoint(dict(full), dict(model.config))}
        states = {"controlnet": model.state_dict()}
    else:
        unet, vae = diffusers.UNet2DConditionModel(**config), diffusers.AutoencoderKL(**TINY_VAE)
        text = {k: v for k, v in TINY_TEXT.items() if k != "architectures"}
        clip = CLIPTextModelWithProjection(CLIPTextConfig(**text, projection_dim=12))
        full = prefixed("model.diffusion_model.", original.unet(unet.state_dict()))
        full |= prefixed("first_stage_model.", original.vae(vae.state_dict(), lambda x: x[..., None, None]))
        states = {"unet": unet.state_dict(), "vae": vae.state_dict(), "text_encoder": clip.state_dict()}
        prefix = {"v1": V1, "v2": V2, "xl": f"{XL}1.model.", "refiner": f"{XL}0.model."}[kind]
        if kind == "v1":
            full |= prefixed(prefix, clip.state_dict())
            encoder = utils.convert_ldm_clip_checkpoint(dict(full))
        else:
            full |= prefixed(prefix, original.openclip(clip.state_dict(), torch.cat, lambda x: x.T.contiguous()))
            encoder = utils.convert_open_clip_checkpoint(clip, dict(full), prefix=prefix)
        name = "text_encoder" if kind in ("v1", "v2") else "text_encoder_2"
        if kind in ("v1", "v2"):  # CLIPTextModel, the class of SD 1.x and 2.x, has no projection
            states["text_encoder"].pop("text_projection.weight")
            encoder.pop("text_projection.weight", None)  # which diffusers passes over as it loads
        states[name] = states.pop("text_encoder")
        theirs = {
            "unet": utils.convert_ldm_unet_checkpoint(dict(full), dict(unet.config)),
            "vae": utils.convert_ldm_vae_checkpoint(dict(full), dict(vae.config)),
            name: encoder,
        }
    torch.save({"state_dict": full}, tmp_path / "x.ckpt")
    ours = single_file.parts(weights.tensors(tmp_path / "x.ckpt"), file="x.ckpt")
    assert ours.keys() == theirs.keys()
    for name, part in ours.items():
        assert part.keys() == theirs[name].keys() == states[name].keys()
        for key, tensor in part.items():
            np.testing.assert_array_equal(tensor.read(), theirs[name][key])
            np.testing.assert_array_equal(tensor.read(), states[name][key])
