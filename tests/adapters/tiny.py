"""Tiny models, and adapters for them made of random matrices."""

import jax
import numpy as np

import fdiff
from convert import layout
from convert.lora import Factors
from fdiff.adapters.lora import layers

UNET = {
    "block_out_channels": [8, 16], "layers_per_block": 2, "norm_num_groups": 4, "attention_head_dim": 2,
    "cross_attention_dim": 12, "sample_size": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
SDXL_UNET = {
    **UNET, "use_linear_projection": True, "transformer_layers_per_block": [1, 2], "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 36,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
TEXT = {
    "vocab_size": 50, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 1,
}  # fmt: skip


def models(sdxl: bool = False) -> dict:
    """The models that LoRAs change."""
    built = {
        "unet": fdiff.UNet2DConditionModel.from_config(SDXL_UNET if sdxl else UNET),
        "text_encoder": fdiff.CLIPTextModel.from_config(TEXT),
    }
    if sdxl:
        built["text_encoder_2"] = fdiff.CLIPTextModelWithProjection.from_config(TEXT | {"projection_dim": 12})
    return built


def random(tree, seed: int = 0, dtype: type = np.float32):
    """A tree of that shape with random numbers."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(dtype), tree)


def shapes(params) -> dict:
    """What `convert.lora.read` is told of the models."""
    return {
        component: {layer: layout.torch_shape(where, leaf.shape) for layer, (where, leaf) in layers(tree).items()}
        for component, tree in params.items()
    }


def adapter(params, *, rank: int = 2, seed: int = 1, only: str = "", dora: bool = False, alpha: float | None = None):
    """Random factors for every layer whose name has `only` in it."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    found: dict = {}
    for component, known in shapes(params).items():
        for layer, shape in known.items():
            if only in layer:
                ones = (1,) * (len(shape) - 2)
                scale = 1 + draw(shape[0], 1, *ones) if dora else None
                down, up = draw(rank, *shape[1:]), draw(shape[0], rank, *ones)
                found.setdefault(component, {})[layer] = Factors(down, up, float(alpha or rank), scale)
    return found
