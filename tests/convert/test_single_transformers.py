"""Diffusion transformers in one file: names, configs, whole pipelines, quantised files, and what is wrong."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

import fdiff
from convert import original_transformers, single_file
from convert.quantized import holds_quantized, widened
from fdiff import conversion
from fdiff.adapters import lora
from fdiff.cli.commands import main
from tests.convert import original_names
from tests.convert.original_transformers import arrays, full, original, write
from tests.convert.test_original_transformers import shapes_of
from tests.convert.test_quantized import said, written
from tests.convert.test_single_file import equal, on_file, prefixed
from tests.pipelines import transformers
from tests.reference import make_causal_lm, make_joint, make_single_stream, make_transformers

HUB = {
    "flux1-dev": "black-forest-labs/FLUX.1-dev", "flux2-klein-4b": "black-forest-labs/FLUX.2-klein-4B",
    "chroma": "lodestones/Chroma1-HD", "sd3": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd35-large": "stabilityai/stable-diffusion-3.5-large", "z-image-turbo": "Tongyi-MAI/Z-Image-Turbo",
    "qwen-image": "Qwen/Qwen-Image", "krea2": "krea/Krea-2-Raw", "ernie-image": "baidu/ERNIE-Image",
    "neta-lumina2": "neta-art/Neta-Lumina",
}  # fmt: skip


@pytest.mark.parametrize("name", HUB)
def test_names_and_configs_of_full_size(name, shared_data):
    """Every parameter has its name and shape, and the config that follows is that of the Hub."""
    shapes = shapes_of(shared_data, f"{name}-transformer")
    stacks = original_transformers.originals(shapes) or {
        key: (original_transformers.Rows(key, 0, shape[0]),) for key, shape in shapes.items()
    }
    whole = {full(key): original_transformers.shape(stack, shapes) for key, stack in stacks.items()}
    folder = shared_data / "hub_configs" / HUB[name]
    index = json.loads((folder / "model_index.json").read_text())
    for prefix in ("", "model.diffusion_model."):
        found = on_file(prefixed(prefix, whole))
        parts = single_file.parts(found, file="x")
        assert {key: one.shape for key, one in parts["transformer"].items()} == {
            full(key): shape for key, shape in shapes.items()
        }
        family = single_file.family(found, parts, file="x")
        cls, config = family.models["transformer"]
        hub = getattr(fdiff, cls).from_config(json.loads((folder / "transformer" / "config.json").read_text()))
        assert getattr(fdiff, cls).from_config(config) == hub
        assert family.pipeline == (None if name == "qwen-image" else index["_class_name"])  # it may be for editing


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    """(a file as of Black Forest Labs in a whole checkpoint of ComfyUI, a saved pipeline, it, its parameters)."""
    folder = tmp_path_factory.mktemp("flux")
    transformer = fdiff.FluxTransformer2DModel(**transformers.FLUX, guidance_embeds=True)
    vae, scheduler = fdiff.AutoencoderKL(**transformers.SHIFTED_VAE), fdiff.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = fdiff.FluxPipeline(scheduler, vae, None, None, None, None, transformer)
    pipe, params = transformers.drawn(pipe, "vae", "transformer")
    pipe.save_pretrained(folder / "saved", params)
    found = original(arrays(params["transformer"]), "model.diffusion_model.")
    return write(folder / "flux.safetensors", found), folder / "saved", pipe, params


def test_a_pipeline_whose_other_models_are_elsewhere(flux, tmp_path):
    file, folder, pipe, params = flux
    for cls in (fdiff.DiffusionPipeline, fdiff.FluxPipeline):
        found, trees = cls.from_single_file(file, config=folder)
        assert found == pipe and equal(trees, params)
    found, trees = fdiff.FluxImg2ImgPipeline.from_single_file(file, config=folder, in_turn=True, dtype="bfloat16")
    assert equal(trees["transformer"], jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params["transformer"]))
    given = {"vae": (pipe.vae, params["vae"]), "scheduler": fdiff.FlowMatchEulerDiscreteScheduler(shift=2.0)}
    found, trees = fdiff.FluxPipeline.from_single_file(file, config=folder, **given)
    assert found.scheduler.shift == 2.0 and trees["vae"] is params["vae"]
    conversion.convert(file, tmp_path / "out", config=folder, dtype="float16")
    model, tree = fdiff.FluxTransformer2DModel.from_pretrained(tmp_path / "out", dtype="float32")
    assert model == pipe.transformer
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), tree, params["transformer"])


def test_a_model_of_a_file(flux):
    file, folder, pipe, params = flux
    for config in (folder, folder / "transformer"):
        model, tree = fdiff.FluxTransformer2DModel.from_single_file(file, config=config)
        assert model == pipe.transformer and equal(tree, params["transformer"])
    vae, tree = fdiff.AutoencoderKL.from_single_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert vae == pipe.vae and equal(tree, params["vae"])
    with pytest.raises(ValueError, match=r"does not say how its FluxTransformer2DModel is built; pass config="):
        fdiff.FluxTransformer2DModel.from_single_file(file)


def test_the_command_line(tmp_path, capsys):
    """`fdiff generate` and `inspect` of Z-Image, whose text encoder and autoencoder are in a folder."""
    pipe, params = transformers.z_image_as_shaped(tmp_path / "tokens")
    pipe.save_pretrained(tmp_path / "saved", params)
    found = original(arrays(params["transformer"]), "diffusion_model.")
    found["diffusion_model.norm_final.weight"] = np.ones(24, np.float32)  # which nothing reads
    file, config = str(write(tmp_path / "z.safetensors", found)), ["--config", str(tmp_path / "saved")]
    asked = ["a cat", "--steps", "1", "--height", "64", "--width", "64", "--out", str(tmp_path / "x.png")]
    assert main(["generate", file, *config, *asked, "--low-memory"]) == 0
    assert Image.open(tmp_path / "x.png").size == (64, 64)
    assert main(["inspect", file, *config]) == 0
    printed = capsys.readouterr().out
    for word in ("ZImagePipeline", "transformer: ZImageTransformer2DModel", "text_encoder: Qwen3ForCausalLM", "vae: "):
        assert word in printed
    for command in (["inspect", file], ["generate", file, *asked]):
        assert main(command) == 2
        assert "its heads have 12 features" in (told := capsys.readouterr().err) and "add --config" in told


WIDE = {**transformers.FLUX, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 32,
        "axes_dims_rope": (8, 12, 12), "joint_attention_dim": 64, "pooled_projection_dim": 32,
        "in_channels": 32}  # fmt: skip


def q8_0(array):
    """Blocks of ggml's Q8_0: 32 numbers, of a scale in half precision and 8 bits each."""
    groups = array.reshape(len(array), -1, 32)
    scales = (np.abs(groups).max(-1, keepdims=True) / 127).astype(np.float16)
    codes = np.round(groups / scales.astype(np.float32)).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), codes.view(np.uint8)], axis=-1)


def test_quantised_files_of_the_original(tmp_path):
    """GGUF and scaled float8 stay quantised, cut where a stack is cut, the halves of the last modulation swapped."""
    model = fdiff.FluxTransformer2DModel(**WIDE)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), model.shapes())
    found = original(arrays(params))
    (tmp_path / "config.json").write_text(json.dumps(model.config()))
    matrices = {name for name, x in found.items() if x.ndim == 2}
    tensors = {
        name: (8, x.shape, q8_0(x).tobytes()) if name in matrices else (0, x.shape, x.tobytes())
        for name, x in found.items()
    }
    gguf = written(tmp_path, tensors, [said("general.architecture", "flux")])
    scaled = {}
    for name, x in prefixed("model.diffusion_model.", found).items():
        quantised = name.removeprefix("model.diffusion_model.") in matrices
        scaled[name] = (x * 50).astype(ml_dtypes.float8_e4m3fn) if quantised else x
        if quantised:
            scaled[name.replace(".weight", ".scale_weight")] = np.asarray(1 / 50, np.float32)
    scaled["model.diffusion_model.scaled_fp8"] = np.zeros(2, ml_dtypes.float8_e4m3fn)
    float8 = write(tmp_path / "float8.safetensors", scaled)
    plain = write(tmp_path / "plain.safetensors", found)
    for file, kind, most in ((gguf, "q8_0", 0.005), (float8, "float8", 0.07), (plain, None, 0)):
        again, tree = fdiff.FluxTransformer2DModel.from_single_file(file, config=tmp_path)
        assert again == model
        found, wanted = lora.layers(tree), lora.layers(params)
        for layer in ("norm_out.linear", "single_transformer_blocks.0.attn.to_k", "transformer_blocks.0.ff.net.2"):
            leaf, exact = found[layer][1], wanted[layer][1]
            assert getattr(leaf, "kind", None) == kind
            assert np.abs(np.asarray(widened(leaf), np.float32) - exact).max() <= most * np.abs(exact).max()
    _, tree = fdiff.FluxTransformer2DModel.from_single_file(plain, config=tmp_path, quantize="int8")
    assert holds_quantized(tree)


def test_a_whole_checkpoint(tmp_path):
    """Stable Diffusion 3 with its text encoders: CLIP without a projection gets the identity."""
    transformer = fdiff.SD3Transformer2DModel(**make_joint.SD3)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "projection_dim": 8, "vocab_size": 20}  # fmt: skip
    models = {
        "transformer": transformer, "text_encoder": fdiff.CLIPTextModelWithProjection(**text),
        "text_encoder_2": fdiff.CLIPTextModelWithProjection(**text, hidden_act="gelu"),
        "text_encoder_3": fdiff.T5EncoderModel(**transformers.T5),
    }  # fmt: skip
    random = np.random.default_rng(0)
    params = {name: jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), model.shapes())
              for name, model in models.items()}  # fmt: skip
    params["text_encoder"]["text_projection"]["kernel"] = np.eye(8, dtype=np.float32)
    found = original(arrays(params["transformer"]), "model.diffusion_model.")
    for name, place in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g"), ("text_encoder_3", "t5xxl")):
        found |= prefixed(f"text_encoders.{place}.transformer.", arrays(params[name]))
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(models[name].config()))
    del found["text_encoders.clip_l.transformer.text_projection.weight"]
    found["text_encoders.clip_l.logit_scale"] = np.zeros((), np.float32)
    file = write(tmp_path / "sd3.safetensors", found)
    transformer.save_pretrained(tmp_path / "transformer", params["transformer"])
    fdiff.FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    loaded = fdiff.single_file.load(file, config=tmp_path)
    assert loaded.pipeline == "StableDiffusion3Pipeline" and loaded.models == models
    assert equal(loaded.params, params)
    clip = fdiff.CLIPTextModelWithProjection
    encoder, tree = clip.from_single_file(file, config=tmp_path, subfolder="text_encoder_2")
    assert encoder == models["text_encoder_2"] and equal(tree, params["text_encoder_2"])
    with pytest.raises(ValueError, match="holds text_encoder and text_encoder_2; say with subfolder= which"):
        clip.from_single_file(file, config=tmp_path)
    with pytest.raises(ValueError, match=r"has no vae, which StableDiffusion3Pipeline needs; pass config=, .* such as"):
        fdiff.DiffusionPipeline.from_single_file(file, config=tmp_path)


VAE = {**transformers.FOUR, "norm_num_groups": 2, "latent_channels": 4, "layers_per_block": 1, "use_quant_conv": False,
       "use_post_quant_conv": False}  # fmt: skip
CLIP = ("CLIPTextModel", {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "vocab_size": 20})  # fmt: skip
T5 = ("T5EncoderModel", transformers.T5)
WHOLE = {  # pipeline: its transformer, and its text encoders by ComfyUI's names
    "FluxPipeline": (("FluxTransformer2DModel", transformers.FLUX),
                     {"clip_l": ("text_encoder", CLIP), "t5xxl": ("text_encoder_2", T5)}),
    "ChromaPipeline": (make_joint.CONFIGS["chroma"], {"t5xxl": ("text_encoder", T5)}),
    "ZImagePipeline": (("ZImageTransformer2DModel", transformers.Z_IMAGE),
                       {"qwen3_4b": ("text_encoder", ("Qwen3ForCausalLM", transformers.QWEN))}),
    "Lumina2Pipeline": (make_single_stream.CONFIGS["lumina2"],
                        {"gemma2_2b": ("text_encoder", make_causal_lm.CONFIGS["gemma2"])}),
}  # fmt: skip


@pytest.mark.parametrize("pipeline", WHOLE)
def test_whole_checkpoints_of_comfyui(pipeline, tmp_path):
    """Text encoders and the VAE beside the transformer, with what ComfyUI saves of them and nobody reads."""
    transformer, encoders = WHOLE[pipeline]
    known = {"transformer": transformer, "vae": ("AutoencoderKL", VAE), **dict(encoders.values())}
    models = {name: getattr(fdiff, cls)(**config) for name, (cls, config) in known.items()}
    random = np.random.default_rng(0)
    params = {name: jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), model.shapes())
              for name, model in models.items()}  # fmt: skip
    found = original(arrays(params["transformer"]), "model.diffusion_model.")
    found |= prefixed("vae.", original_names.vae(arrays(params["vae"]), lambda x: x[..., None, None]))
    for place, (name, (cls, _)) in encoders.items():
        inside = arrays(params[name])
        if cls == "T5EncoderModel":
            inside["encoder.embed_tokens.weight"] = inside["shared.weight"]
        elif cls == "CLIPTextModel":
            inside["text_projection.weight"] = np.eye(8, dtype=np.float32)
        elif not any(key.startswith("model.") for key in inside):
            inside = prefixed("model.", inside)
        found |= prefixed(f"text_encoders.{place}.transformer.", inside)
        found[f"text_encoders.{place}.logit_scale"] = np.zeros((), np.float32)
    file = write(tmp_path / "whole.safetensors", found)
    for name, model in models.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(model.config()))
    fdiff.FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    loaded = fdiff.single_file.load(file, config=tmp_path)
    assert loaded.pipeline == pipeline and loaded.models == models
    assert equal(loaded.params, params)


def test_t5_in_one_file(tmp_path):
    model = fdiff.T5EncoderModel(**transformers.T5)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), model.shapes())
    found = arrays(params)
    found["encoder.embed_tokens.weight"] = found["shared.weight"]
    file = write(tmp_path / "t5xxl.safetensors", found)
    (tmp_path / "text_encoder_2").mkdir()
    (tmp_path / "text_encoder_2" / "config.json").write_text(json.dumps(model.config()))
    (tmp_path / "model_index.json").write_text(json.dumps({"text_encoder_2": ["transformers", "T5EncoderModel"]}))
    again, tree = fdiff.T5EncoderModel.from_single_file(file, config=tmp_path)
    assert again == model and equal(tree, params)
    with pytest.raises(ValueError, match="does not say how its T5EncoderModel is built; pass config="):
        fdiff.T5EncoderModel.from_single_file(file)


SAID = {  # what follows from the tensors of files whose configs the Hub has alone, by the classes' arguments
    "sana-1600m-1024": {},
    "sana-600m": {"num_layers": 28, "num_attention_heads": 36, "num_cross_attention_heads": 16,
                  "cross_attention_head_dim": 72, "cross_attention_dim": 1152},
    "sana15-4800m": {"num_layers": 60, "qk_norm": "rms_norm_across_heads"},
    "pixart-alpha-1024": {"caption_channels": 4096, "use_additional_conditions": True},
}  # fmt: skip


@pytest.mark.parametrize("name", [*SAID, "sana-sprint-600m"])
def test_configs_by_the_arguments_of_classes(name, shared_data):
    shapes = shapes_of(shared_data, f"{name}-transformer")
    stacks = original_transformers.originals(shapes)
    found = on_file({full(key): original_transformers.shape(stack, shapes) for key, stack in stacks.items()})
    found |= on_file({"pos_embed": (1, 1024, 1152), "y_embedder.y_embedding": (300, 2304)})
    parts = single_file.parts(found, file="x")
    assert {key: one.shape for key, one in parts["transformer"].items()} == {
        full(key): shape for key, shape in shapes.items()
    }
    family = single_file.family(found, parts, file="x")
    cls, config = family.models["transformer"]
    sprint = {**SAID["sana-600m"], "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
    model = getattr(fdiff, cls)
    assert model.from_config(config) == model(**SAID.get(name, sprint))
    wanted = {"sana-sprint": "SanaSprintPipeline", "pixart": "PixArtAlphaPipeline"}
    assert family.pipeline == next((pipe for start, pipe in wanted.items() if name.startswith(start)), "SanaPipeline")


def test_pixart_whose_size_no_tensor_tells(tmp_path):
    """The Hub's configs of PixArt name an older class."""
    model = fdiff.PixArtTransformer2DModel(**make_transformers.CONFIGS["pixart_sigma"][1])
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), model.shapes())
    file = write(tmp_path / "sigma.safetensors", original(arrays(params)))
    with pytest.raises(ValueError, match=r"does not say how its PixArtTransformer2DModel is built; pass config="):
        fdiff.PixArtTransformer2DModel.from_single_file(file)
    (tmp_path / "transformer").mkdir()
    config = {**model.config(), "_class_name": "Transformer2DModel"}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    fdiff.DPMSolverMultistepScheduler().save_pretrained(tmp_path / "scheduler")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "PixArtSigmaPipeline"}))
    loaded = fdiff.single_file.load(file, config=tmp_path)
    assert loaded.pipeline == "PixArtSigmaPipeline" and loaded.models == {"transformer": model}
    assert equal(loaded.params["transformer"], params)


def test_what_is_wrong_is_told_in_a_sentence(flux, tmp_path):
    file, folder, _, params = flux
    with pytest.raises(ValueError, match="holds a FluxTransformer2DModel, not a SD3Transformer2DModel; load it with"):
        fdiff.SD3Transformer2DModel.from_single_file(file, config=folder)
    with pytest.raises(ValueError, match="has no component 'unet'"):
        fdiff.FluxPipeline.from_single_file(file, config=folder, unet=None)
    with pytest.raises(ValueError, match="whose tokenizers are of several kinds; pass config= in place of tokenizer="):
        fdiff.FluxPipeline.from_single_file(file, config=folder, tokenizer=folder)
    with pytest.raises(ValueError, match="has no averaged weights"):
        fdiff.FluxPipeline.from_single_file(file, config=folder, ema=True)
    found = original(arrays(params["transformer"]))
    fused = "single_blocks.0.linear1.weight"
    wrong = write(tmp_path / "cut.safetensors", {**found, fused: np.zeros((50, 20), np.float32)})
    with pytest.raises(ValueError, match=rf"cut.safetensors: {fused} has shape \(50, 20\), which it cannot have"):
        fdiff.FluxTransformer2DModel.from_single_file(wrong, config=folder)
    wrong = write(tmp_path / "twice.safetensors", {**found, "x_embedder.weight": found["img_in.weight"]})
    with pytest.raises(ValueError, match=r"x_embedder\.weight stands there twice, also as"):
        fdiff.FluxTransformer2DModel.from_single_file(wrong, config=folder)
    other = written(tmp_path, {"blocks.0.x.weight": (0, (2, 2), bytes(16))}, [said("general.architecture", "wan")])
    with pytest.raises(ValueError, match=r"model.gguf holds .*blocks.0.x.weight, .* but of the architecture wan; look"):
        fdiff.FluxPipeline.from_single_file(other, config=folder)


PARITY = {
    "sd3": ("SD3Transformer2DModel", make_joint.CONFIGS["sd35"][1]),
    "flux2": make_transformers.CONFIGS["flux2"],
    "z_image": make_transformers.CONFIGS["z_image"],
    "sana": make_transformers.CONFIGS["sana"],
}


@pytest.mark.parity
@pytest.mark.parametrize("name", PARITY)
def test_files_are_read_as_diffusers_reads_them(name, tmp_path):
    """diffusers' own from_single_file on the same random file has the very parameters; FLUX.1 it knows of one width."""
    diffusers = pytest.importorskip("diffusers")
    cls, config = PARITY[name]
    model = getattr(fdiff, cls)(**config)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), model.shapes())
    prefix = "" if name == "flux2" else "model.diffusion_model."  # which diffusers does not read of FLUX.2
    found = original(arrays(params), prefix)
    if name == "sana":
        found |= dict.fromkeys((f"{prefix}pos_embed", f"{prefix}y_embedder.y_embedding"), np.zeros(1, np.float32))
    file = write(tmp_path / "x.safetensors", found)
    getattr(diffusers, cls)(**config).save_config(tmp_path / "transformer")
    theirs = getattr(diffusers, cls).from_single_file(str(file), config=str(tmp_path), subfolder="transformer")
    again, tree = getattr(fdiff, cls).from_single_file(file, config=tmp_path, subfolder="transformer")
    ours, wanted = arrays(tree), {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert again == model and ours.keys() == wanted.keys()
    for key, array in ours.items():
        np.testing.assert_array_equal(array, wanted[key], err_msg=key)
