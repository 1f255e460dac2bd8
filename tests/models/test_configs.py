"""What every model class makes of a config.json."""

import dataclasses
from typing import Annotated, Any, get_args, get_origin

import jax
import numpy as np
import pytest

import fdiff
from fdiff.models import (
    AsymmetricAutoencoderKL,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderTiny,
    CLIPTextModel,
    CLIPVisionModel,
    ControlNetModel,
    ControlNetUnionModel,
    ControlNetXSAdapter,
    Gemma2Model,
    StableDiffusionSafetyChecker,
    T2IAdapter,
    T5EncoderModel,
    UNet1DModel,
    UNet2DConditionModel,
    UNet2DModel,
    UNetControlNetXSModel,
    VQModel,
)

MODELS = [getattr(fdiff, name) for name in fdiff.models.__all__ if name != "Model"]
NEEDED = {  # what has no default that works
    ControlNetUnionModel: {"addition_time_embed_dim": 4},
    UNet1DModel: {"extra_in_channels": 16},
    AsymmetricAutoencoderKL: {"up_block_types": ["UpDecoderBlock2D"] * 4, "up_block_out_channels": [64] * 4},
}


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_how_weights_were_averaged_says_nothing_about_the_network(cls):
    averaging = {
        "decay": 0.9999,
        "inv_gamma": 1.0,
        "min_decay": 0.0,
        "optimization_step": 1200,
        "power": 2 / 3,
        "update_after_step": 0,
        "use_ema_warmup": False,
    }
    assert cls.from_config({**NEEDED.get(cls, {}), **averaging}) == cls.from_config(NEEDED.get(cls, {}))


def plain(kind: Any) -> bool:
    """Whether an annotation takes any number whatever."""
    inside = get_args(kind)
    if get_origin(kind) is Annotated:
        return any(map(plain, get_args(inside[0])))
    return kind in (int, float) or any(map(plain, inside))


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_every_number_of_a_config_has_bounds(cls):
    fields = [field for field in dataclasses.fields(cls) if field.name not in ("parent", "name")]
    assert [field.name for field in fields if plain(field.type)] == [], "see fdiff.models.fields"


WRONG = [
    (AsymmetricAutoencoderKL, {"up_block_out_channels": [32, 64, 96, 128]}, "must be four, each twice the former"),
    (Gemma2Model, {"num_key_value_heads": 3}, "num_key_value_heads 3 must divide num_attention_heads 8"),
    (Gemma2Model, {"rope_parameters": {"rope_theta": "x"}}, "rope_theta is 'x'; it must be a number from 1 to"),
    (T5EncoderModel, {"relative_attention_max_distance": 8}, "relative_attention_max_distance 8 must exceed 8"),
    (UNetControlNetXSModel, {"norm_num_groups": 7}, "320 channels cannot be normalized in 7 groups"),
    (ControlNetXSAdapter, {"num_attention_heads": [2, 2]}, "must be as long as block_out_channels, which is 4"),
    (AutoencoderKL, {"norm_num_groups": 0}, r"norm_num_groups is 0; it must be a whole number from 1 to 1,048"),
    (AutoencoderKL, {"layers_per_block": "1"}, "layers_per_block is '1'; it must be a whole number from 1 to 100"),
    (AutoencoderKL, {"layers_per_block": True}, "layers_per_block is True; it must be a whole number"),
    (AutoencoderKL, {"layers_per_block": 1.5}, "layers_per_block is 1.5; it must be a whole number"),
    (AutoencoderKL, {"in_channels": None}, "in_channels is None; it must be a whole number from 1 to 1,024"),
    (AutoencoderKL, {"block_out_channels": [64, -64]}, r"is \[64, -64\]; it must be a list of 1 to 8, each a whole"),
    (AutoencoderKL, {"block_out_channels": []}, r"block_out_channels is \[\]; it must be a list of 1 to 8"),
    (AutoencoderKL, {"block_out_channels": [64, 64]}, "block_out_channels must be equally long"),
    (AutoencoderKL, {"block_out_channels": [48]}, "48 channels cannot be normalized in 32 groups"),
    (AutoencoderKL, {"force_upcast": "no"}, "force_upcast is 'no'; it must be true or false"),
    (AutoencoderKL, {"scaling_factor": float("nan")}, "scaling_factor is nan; it must be a number from 1e-06 to"),
    (AutoencoderKL, {"latents_mean": [0.0]}, "latents_mean must hold a number for each of 4 latent_channels"),
    (AutoencoderKL, {"sample_size": [1, 2, 3]}, "or a list of 2, each a whole number from 1 to 8,192"),
    (AutoencoderDC, {"decoder_block_types": ["ResBlock"] * 5}, "decoder_block_types and decoder_block_out_channels"),
    (AutoencoderDC, {"encoder_layers_per_block": [2, 0, 2, 2, 2, 2]}, "can be 0 for the first of several levels alone"),
    (AutoencoderDC, {"decoder_block_out_channels": [128, 256, 512, 600, 1024, 1024]}, "600 must divide 4 [*] 512"),
    (AutoencoderDC, {"latent_channels": 48}, r"latent_channels 48 must divide encoder_block_out_channels"),
    (AutoencoderDC, {"encoder_block_types": "EfficientViTBlock", "attention_head_dim": 200}, "more than the 128"),
    (AutoencoderTiny, {"num_encoder_blocks": [1]}, "num_encoder_blocks and encoder_block_out_channels must be"),
    (VQModel, {"norm_type": "spatial", "block_out_channels": [48], "norm_num_groups": 4}, "48 channels cannot"),
    (CLIPTextModel, {"num_hidden_layers": 100_000}, "num_hidden_layers is 100000; it must be a whole number from 1"),
    (CLIPTextModel, {"num_attention_heads": 7}, "num_attention_heads 7 must divide hidden_size 512"),
    (CLIPTextModel, {"hidden_act": "tanh"}, "hidden_act 'tanh' is unknown to CLIPTextModel; choose from silu, "),
    (CLIPVisionModel, {"patch_size": 500}, "patch_size 500 must not exceed image_size 224"),
    (T2IAdapter, {"adapter_type": "light_adapter", "channels": [2]}, "light_adapter needs at least 4 channels"),
    (UNet2DModel, {"attention_head_dim": 1000}, "attention_head_dim 1000 is more than the 448 channels that attend"),
    (UNet2DModel, {"block_out_channels": [224, 448, 672, 897]}, "897 channels cannot be normalized in 32 groups"),
    (UNet2DModel, {"dropout": 1}, "dropout is 1; it must be a number from 0 to below 1"),
    (UNet2DModel, {"freq_shift": 112}, "freq_shift 112 must be below half"),
    (UNet2DModel, {"norm_eps": -1e-5}, "norm_eps is -1e-05; it must be a number from 0 to 1"),
    (UNet2DModel, {"attn_norm_num_groups": 5}, "attn_norm_num_groups: 896 channels cannot"),
    (UNet2DConditionModel, {"layers_per_block": 100}, "layers_per_block makes 400 layers; 100 are the most"),
    (UNet2DConditionModel, {"transformer_layers_per_block": 100}, "transformer_layers_per_block makes"),
    (UNet2DConditionModel, {"num_attention_heads": 400}, "num_attention_heads 400 is more than the 320 channels"),
    (UNet2DConditionModel, {"conv_in_kernel": 2}, "conv_in_kernel is 2; it must be a whole number that is odd"),
    (UNet2DConditionModel, {"encoder_hid_dim_type": "text_proj"}, "'text_proj' needs encoder_hid_dim; give it"),
    (UNet2DConditionModel, {"addition_embed_type": "text_time"}, "needs addition_time_embed_dim"),
    (UNet2DConditionModel, {"addition_embed_type": "image"}, "needs encoder_hid_dim"),
    (UNet2DConditionModel, {"class_embed_type": "projection"}, "needs projection_class_embeddings_input_dim"),
    (UNet2DConditionModel, {"down_block_types": ["KDownBlock2D"] * 4}, "K blocks go with K blocks only"),
    (UNet2DConditionModel, {"norm_num_groups": None}, "norm_num_groups must be a number; null is for K blocks"),
    (UNet2DConditionModel, {"up_block_types": [None] * 4}, "up_block_types is .*; it must be a list, each one of"),
    (ControlNetUnionModel, {"num_trans_head": 7}, "num_trans_head 7 must divide num_trans_channel 320"),
    (ControlNetModel, {"conditioning_embedding_out_channels": 16}, "is 16; it must be a list of 1 to 5, each"),
    (StableDiffusionSafetyChecker, {"vision_config": [1]}, "vision_config is .1.; it must be an object"),
    (
        StableDiffusionSafetyChecker,
        {"vision_config": {"num_attention_heads": 0}},
        "vision_config: num_attention_heads is 0; it must be",
    ),
]


@pytest.mark.parametrize(("cls", "change", "message"), WRONG)
def test_a_wrong_value_is_one_sentence_with_file_key_and_cure(cls, change, message):
    with pytest.raises(ValueError, match=rf"^a/config.json: [^\n]*{message}[^\n]*\.$"):
        cls.from_config({**NEEDED.get(cls, {}), **change}, file="a/config.json")


def test_values_are_checked_where_a_model_is_made_by_hand_too():
    with pytest.raises(ValueError, match=r"^in_channels is 0; it must be"):
        fdiff.UNet2DModel(in_channels=0)
    model = fdiff.AutoencoderKL(block_out_channels=[np.int64(32)], layers_per_block=2.0)
    assert model == fdiff.AutoencoderKL(block_out_channels=(32,), layers_per_block=2)
    assert type(model.block_out_channels[0]) is type(model.layers_per_block) is int


def test_example_inputs_take_no_memory():
    """What the largest picture would need is never allocated, since shapes are all that is asked for."""
    model = fdiff.CLIPVisionModel(image_size=8192, num_channels=1024, num_hidden_layers=1)
    assert model.shapes()["vision_model.embeddings"]["patch_embedding"]["kernel"].shape == (32, 32, 1024, 768)


TINY = fdiff.CLIPTextModel(
    vocab_size=9, hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1
)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_fresh_parameters_under_every_transformation(impl):
    keys = jax.random.split(jax.random.key(0, impl=impl), 2)
    wanted = [TINY.init_params(key) for key in keys]
    jax.tree.map(close, jax.jit(TINY.init_params)(keys[0]), wanted[0])
    shapes = jax.eval_shape(TINY.init_params, keys[0])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), TINY.shapes()
    )
    if impl == "threefry2x32":  # vmap mixes up what rbg keys draw
        jax.tree.map(lambda made, *each: close(made, np.stack(each)), jax.vmap(TINY.init_params)(keys), *wanted)


def close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-6)
