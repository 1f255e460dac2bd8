"""Names of diffusion transformers in their authors' layouts, beside diffusers' converters on whole models."""

import gzip
import json

import numpy as np
import pytest

from convert import lora, original_transformers
from tests.adapters import dialects
from tests.convert.original_transformers import full

CONVERTERS = {
    "flux1-dev-transformer": "flux_transformer_checkpoint",
    "flux2-klein-4b-transformer": "flux2_transformer_checkpoint",
    "flux2-dev-transformer": "flux2_transformer_checkpoint",
    "chroma-transformer": "chroma_transformer_checkpoint",
    "sd3-transformer": "sd3_transformer_checkpoint",
    "sd35-large-transformer": "sd3_transformer_checkpoint",
    "z-image-turbo-transformer": "z_image_transformer_checkpoint",
    "krea2-transformer": "krea2_transformer_checkpoint",
    "flux3-transformer": "flux3_transformer_checkpoint",
    "qwen-image-2.1-transformer": "qwen_image21_transformer_checkpoint",
    "neta-lumina2-transformer": "lumina2",
    "sana-600m-transformer": "sana_transformer",
}
# Of these diffusers has a script alone: what of today's a parameter of their authors is.
WRITTEN = {
    "sana-sprint-600m-transformer": {
        "t_embedder.mlp.2": "time_embed.timestep_embedder.linear_2",
        "cfg_embedder.mlp.0": "time_embed.guidance_embedder.linear_1",
        "t_block.1": "time_embed.linear", "attention_y_norm": "caption_norm",
        "blocks.9.attn.q_norm": "transformer_blocks.9.attn1.norm_q",
        "blocks.9.cross_attn.k_norm": "transformer_blocks.9.attn2.norm_k",
        "blocks.9.cross_attn.kv_linear.bias": " ".join(f"transformer_blocks.9.attn2.to_{x}.bias" for x in "kv"),
    },
    "pixart-alpha-1024-transformer": {
        "x_embedder.proj": "pos_embed.proj", "y_embedder.y_proj.fc2": "caption_projection.linear_2",
        "t_embedder.mlp.0.bias": "adaln_single.emb.timestep_embedder.linear_1.bias",
        "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
        "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
        "t_block.1": "adaln_single.linear", "blocks.3.scale_shift_table": "transformer_blocks.3.scale_shift_table",
        "blocks.3.attn.qkv": " ".join(f"transformer_blocks.3.attn1.to_{x}" for x in "qkv"),
        "blocks.3.attn.proj.bias": "transformer_blocks.3.attn1.to_out.0.bias",
        "blocks.3.cross_attn.q_linear": "transformer_blocks.3.attn2.to_q",
        "blocks.3.cross_attn.kv_linear": "transformer_blocks.3.attn2.to_k transformer_blocks.3.attn2.to_v",
        "blocks.3.cross_attn.proj": "transformer_blocks.3.attn2.to_out.0",
        "blocks.3.mlp.fc1": "transformer_blocks.3.ff.net.0.proj", "blocks.3.mlp.fc2": "transformer_blocks.3.ff.net.2",
        "final_layer.linear": "proj_out", "final_layer.scale_shift_table": "scale_shift_table",
    },
    "pixart-sigma-1024-transformer": {"t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2"},
}  # fmt: skip
UNREAD = ("pos_embed", "y_embedder.y_embedding")  # which diffusers wants to find in files of Sana


def shapes_of(folder, name):
    with gzip.open(folder / "manifests" / f"{name}.json.gz") as stream:
        found = json.load(stream)["tensors"]
    return {key.removesuffix(".weight"): tuple(shape) for key, shape in found.items()}


@pytest.mark.parametrize("name", [*CONVERTERS, *WRITTEN])
def test_every_row_is_in_the_original_once(name, shared_data):
    shapes = shapes_of(shared_data, name)
    counts = {key: np.zeros(shape[0], int) for key, shape in shapes.items()}
    for stack in original_transformers.originals(shapes).values():
        for rows in stack:
            counts[rows.name][rows.start : rows.stop] += 1
    assert all((count == 1).all() for count in counts.values())


@pytest.mark.parametrize("name", WRITTEN)
def test_names_that_are_written_down(name, shared_data):
    stacks = original_transformers.originals(shapes_of(shared_data, name))
    for key, today in WRITTEN[name].items():
        assert [rows.name for rows in stacks[key]] == today.split(" ")


@pytest.mark.parity
@pytest.mark.parametrize("name", CONVERTERS)
def test_converted_as_diffusers_does(name, shared_data):
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    shapes = shapes_of(shared_data, name)
    rng = np.random.default_rng(0)
    today = {key: rng.standard_normal((shape[0], 2), np.float32) for key, shape in shapes.items()}
    stacks = original_transformers.originals(shapes)
    original = {
        full(key): torch.from_numpy(np.concatenate([today[rows.name][rows.start : rows.stop] for rows in stack]))
        for key, stack in stacks.items()
    }
    unread = dict.fromkeys(UNREAD, torch.zeros(1)) if "sana" in name else {}
    converted = getattr(utils, f"convert_{CONVERTERS[name]}_to_diffusers")(original | unread)
    assert converted.keys() == {full(key) for key in today}
    for key, array in today.items():
        np.testing.assert_array_equal(converted[full(key)], array, err_msg=key)
    again = {}
    for key, stack in stacks.items():
        again |= {part: original[full(key)][rows] for part, rows in original_transformers.places(stack).items()}
    assert all(np.array_equal(again[key], array) for key, array in today.items())


LORAS = {
    "kohya, FLUX.1": ("flux1-dev-transformer", "lora_unet_", "_convert_kohya_flux_lora_to_diffusers"),
    "ComfyUI, FLUX.1": ("flux1-dev-transformer", "diffusion_model.", "_convert_kohya_flux_lora_to_diffusers"),
    "kohya, FLUX.2": ("flux2-klein-4b-transformer", "lora_unet_", "_convert_kohya_flux2_lora_to_diffusers"),
    "ai-toolkit, FLUX.2": ("flux2-klein-4b-transformer", "diffusion_model.",
                           "_convert_non_diffusers_flux2_lora_to_diffusers"),
    "kohya, Z-Image": ("z-image-turbo-transformer", "lora_unet_", "_convert_non_diffusers_z_image_lora_to_diffusers"),
    "ComfyUI, Z-Image": ("z-image-turbo-transformer", "diffusion_model.",
                         "_convert_non_diffusers_z_image_lora_to_diffusers"),
    "kohya, Qwen-Image": ("qwen-image-transformer", "lora_unet_", "_convert_non_diffusers_qwen_lora_to_diffusers"),
    "lightx2v, Qwen-Image": ("qwen-image-transformer", "diffusion_model.",
                             "_convert_non_diffusers_qwen_lora_to_diffusers"),
    "ComfyUI, Lumina 2": ("neta-lumina2-transformer", "diffusion_model.",
                          "_convert_non_diffusers_lumina2_lora_to_diffusers"),
    "XLabs, FLUX.1": ("flux1-dev-transformer", "", "_convert_xlabs_flux_lora_to_diffusers"),
}  # fmt: skip
IN_BLOCKS = ("_blocks.", "layers.", "refiner.")


def factors_of(known, down, up, alpha=None):
    """Random factors of rank 1 for each layer, by names that these suffixes end."""
    rng = np.random.default_rng(1)
    found = {}
    for layer, shape in known.items():
        found[layer + down] = rng.standard_normal((1, shape[1]), np.float32)
        found[layer + up] = rng.standard_normal((shape[0], 1), np.float32)
        if alpha is not None:
            found[f"{layer}.alpha"] = np.float32(alpha)
    return found


@pytest.mark.parity
@pytest.mark.parametrize("name", LORAS)
def test_loras_are_read_as_diffusers_reads_them(name, shared_data, tmp_path):
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    manifest, prefix, converter = LORAS[name]
    shapes = shapes_of(shared_data, manifest)
    known = original_transformers.originals(shapes)
    stacks = known if "flux" in manifest or "lumina" in manifest else dict.fromkeys(shapes, ())
    known = {key: original_transformers.shape(stack, shapes) if stack else shapes[key] for key, stack in stacks.items()}
    known = {key: shape for key, shape in known.items() if len(shape) == 2 and not key.endswith("pad_token")}
    if prefix != "diffusion_model." or "Qwen" in name or "Lumina" in name:  # other tools train the blocks alone
        known = {key: shape for key, shape in known.items() if any(part in key for part in IN_BLOCKS)}
    if name == "ai-toolkit, FLUX.2":  # diffusers 0.42.1 leaves its halves as they are, which its own files have swapped
        known.pop("final_layer.adaLN_modulation.1")
    if "XLabs" in name:
        arrays = factors_of({
            f"double_blocks.{i}.processor.{layer}_lora{k}": ((9216 if layer == "qkv" else 3072), 3072)
            for i in range(19) for k in (1, 2) for layer in ("qkv", "proj")
        } | {
            f"single_blocks.{i}.processor.{layer}_lora": ((9216, 3072) if layer == "qkv" else (3072, 15360))
            for i in range(38) for layer in ("qkv", "proj")
        }, ".down.weight", ".up.weight")  # fmt: skip
    else:
        flat = {prefix + (key.replace(".", "_") if prefix == "lora_unet_" else key): known[key] for key in known}
        peft = "ai-toolkit" in name or "Lumina" in name
        ends = (".lora_A.weight", ".lora_B.weight") if peft else (".lora_down.weight", ".lora_up.weight")
        halves = None if peft or "final_layer.linear" in known else 0.5  # diffusers drops alphas there
        arrays = factors_of(flat, *ends, halves)
    wanted = getattr(utils, converter)({key: torch.from_numpy(np.asarray(array)) for key, array in arrays.items()})
    file = dialects.write(tmp_path / "x.safetensors", (arrays, {}))
    found = lora.read(file, {"transformer": shapes})["transformer"]
    theirs = {key.removeprefix("transformer."): value.numpy() for key, value in wanted.items()}
    assert {f"{key}.lora_A.weight" for key in found} == {key for key in theirs if ".lora_A" in key}
    for layer, one in found.items():
        np.testing.assert_array_equal(one.up, theirs[f"{layer}.lora_B.weight"], err_msg=layer)
        np.testing.assert_array_equal(one.down * one.alpha / one.rank, theirs[f"{layer}.lora_A.weight"], err_msg=layer)


SMALL = {
    "single_transformer_blocks.0.proj_mlp": (24, 6),
    **{f"single_transformer_blocks.0.attn.to_{x}": (6, 6) for x in "qkv"},
    "norm_out.linear": (12, 6), "norm_out.linear.bias": (12,), "single_transformer_blocks.0.attn.norm_q": (3,),
}  # fmt: skip


def product(one):
    """What a change adds, by the formulas of its method's paper, in numpy."""
    if isinstance(one, lora.methods.Part):
        return product(one.of)[one.rows]
    if isinstance(one, lora.methods.Kronecker):
        return one.scale * np.kron(one.first, one.second)
    if isinstance(one, lora.methods.Hadamard):
        return one.alpha / one.rank * (one.up @ one.down) * (one.up_2 @ one.down_2)
    return one.difference


def test_other_methods_of_stacks(tmp_path):
    """LoHa, LoKr and differences of linear1 are those of the four layers in it; the halves of modulations change."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape, np.float32)

    layer = "lora_unet_single_blocks_0_linear1"
    loha = {f"{layer}.hada_w{i}_{x}": draw(*((42, 2) if x == "a" else (2, 6))) for i in (1, 2) for x in "ab"}
    first, second = draw(4 - 1, 2), draw(14, 3)
    whole, bias, norm = draw(42, 6), draw(12), draw(3)
    wholes = {
        "loha": (loha, np.prod([loha[f"{layer}.hada_w{i}_a"] @ loha[f"{layer}.hada_w{i}_b"] for i in (1, 2)], axis=0)),
        "lokr": ({f"{layer}.lokr_w1": first, f"{layer}.lokr_w2": second}, np.kron(first, second)),
        "diff": ({f"{layer}.diff": whole}, whole),
    }
    for arrays, wanted in wholes.values():
        file = dialects.write(tmp_path / "x.safetensors", (arrays, {}))
        found = lora.read(file, {"transformer": SMALL})["transformer"]
        names = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]
        made = [product(found[f"single_transformer_blocks.0.{name}"]) for name in names]
        assert [len(rows) for rows in made] == [6, 6, 6, 24]
        np.testing.assert_allclose(np.concatenate(made), wanted, rtol=1e-5)
    final, norms = "diffusion_model.final_layer.adaLN_modulation.1", "diffusion_model.single_blocks.0.norm.query_norm"
    arrays = {f"{final}.diff_b": bias, f"{norms}.w_norm": norm}
    found = lora.read(dialects.write(tmp_path / "x.safetensors", (arrays, {})), {"transformer": SMALL})["transformer"]
    np.testing.assert_array_equal(found["norm_out.linear.bias"].difference, np.concatenate([bias[6:], bias[:6]]))
    np.testing.assert_array_equal(found["single_transformer_blocks.0.attn.norm_q"].difference, norm)


def test_dora_of_stacks(tmp_path):
    layer = "lora_unet_single_blocks_0_linear1"
    arrays = {
        f"{layer}.lora_down.weight": np.ones((1, 6), np.float32),
        f"{layer}.lora_up.weight": np.ones((42, 1), np.float32),
        f"{layer}.dora_scale": np.arange(42, dtype=np.float32)[:, None],
    }  # fmt: skip
    file = dialects.write(tmp_path / "x.safetensors", (arrays, {}))
    found = lora.read(file, {"transformer": SMALL})["transformer"]
    np.testing.assert_array_equal(found["single_transformer_blocks.0.attn.to_k"].dora_scale[:, 0], np.arange(6, 12))
    arrays[f"{layer}.dora_scale"] = np.ones((1, 6), np.float32)
    dialects.write(file, (arrays, {}))
    with pytest.raises(ValueError, match=r"x\.safetensors has a dora_scale for each input of a stack, .* merge it"):
        lora.read(file, {"transformer": SMALL})


def test_loras_of_another_family(tmp_path):
    arrays = factors_of({"lora_unet_joint_blocks_0_x_block_attn_qkv": (18, 6)}, ".lora_down.weight", ".lora_up.weight")
    file = dialects.write(tmp_path / "x.safetensors", (arrays, {}))
    with pytest.raises(ValueError, match=r"holds lora_unet_joint_blocks_0_x.*fits no layer .* another base model"):
        lora.read(file, {"transformer": SMALL})
    arrays = factors_of({"diffusion_model.single_blocks.0.linear1": (48, 8)}, ".lora_A.weight", ".lora_B.weight")
    dialects.write(file, (arrays, {}))
    with pytest.raises(ValueError, match=r"single_blocks\.0\.linear1 in .* another base model"):
        lora.read(file, {"transformer": SMALL})


def test_text_encoders_of_trainers(tmp_path):
    """T5 is te3 of kohya's trainers, whichever text encoder of the model it is."""
    t5 = {"encoder.block.0.layer.0.SelfAttention.q": (4, 6)}
    clip = {"text_model.encoder.layers.0.mlp.fc1": (8, 6)}
    names = {
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q": (4, 6),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": (8, 6),
    }
    file = dialects.write(tmp_path / "x.safetensors", (factors_of(names, ".lora_down.weight", ".lora_up.weight"), {}))
    two = lora.read(file, {"transformer": SMALL, "text_encoder": clip, "text_encoder_2": t5})
    three = lora.read(file, {"transformer": SMALL, "text_encoder": clip, "text_encoder_2": clip, "text_encoder_3": t5})
    assert set(two) == {"text_encoder", "text_encoder_2"}
    assert set(three) == {"text_encoder", "text_encoder_3"}
