"""Tiny UNet2DConditionModel checkpoints, one for each family of options, with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

BASE = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
SIMPLE = {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "attention_head_dim": 4,
    "resnet_time_scale_shift": "scale_shift",
}
# What each checkpoint sets beside BASE. The options of one checkpoint do not hide one another.
CONFIGS: dict[str, dict[str, Any]] = {
    "sd": {},
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 + 3 * 4,
        "time_cond_proj_dim": 6,
        "norm_eps": 1e-4,
    },
    "deepfloyd": {
        **SIMPLE,
        "act_fn": "gelu",
        "encoder_hid_dim": 8,
        "encoder_hid_dim_type": "text_proj",
        "cross_attention_dim": 32,
        "cross_attention_norm": "group_norm",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
        "class_embed_type": "timestep",
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 1.5,
        "mid_block_scale_factor": 1.25,
        "time_embedding_act_fn": "gelu",
    },
    "upscaler": {
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "only_cross_attention": (True, False),
        "num_class_embeds": 9,
        "in_channels": 7,
        "upcast_attention": True,
    },
    "asymmetric": {
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "layers_per_block": (1, 2),
        "transformer_layers_per_block": ((2,), (1, 2)),
        "reverse_transformer_layers_per_block": ((1, 1, 2), 1),
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 5,
    },
    "audioldm": {
        "cross_attention_dim": (8, 16),
        "class_embed_type": "simple_projection",
        "class_embeddings_concat": True,
        "projection_class_embeddings_input_dim": 5,
    },
    "kandinsky": {
        **SIMPLE,
        "only_cross_attention": True,
        "encoder_hid_dim": 6,
        "encoder_hid_dim_type": "text_image_proj",
        "addition_embed_type": "text_image",
        "out_channels": 8,
    },
    "kandinsky_image": {
        **SIMPLE,
        "mid_block_only_cross_attention": True,
        "cross_attention_norm": "layer_norm",
        "encoder_hid_dim": 6,
        "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image",
        "cross_attention_dim": 16,
    },
    "hint": {
        "in_channels": 8,
        "encoder_hid_dim": 6,
        "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image_hint",
    },
    "fourier": {
        "time_embedding_type": "fourier",
        "time_embedding_dim": 20,
        "timestep_post_act": "silu",
        "conv_in_kernel": 1,
        "conv_out_kernel": 5,
        "center_input_sample": True,
        "class_embed_type": "identity",
        "mid_block_type": "UNetMidBlock2D",
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "dual": {"dual_cross_attention": True, "mid_block_type": None, "act_fn": "mish"},
    "latent_upscaler": {  # sd-x2-latent-upscaler: 32 channels a group, four levels for each kind of up block
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 2,
        "down_block_types": ("KDownBlock2D", *("KCrossAttnDownBlock2D",) * 3),
        "mid_block_type": None,
        "up_block_types": (*("KCrossAttnUpBlock2D",) * 3, "KUpBlock2D"),
        "norm_num_groups": None,
        "attention_head_dim": 16,
        "act_fn": "gelu",
        "time_embedding_type": "fourier",
        "time_cond_proj_dim": 6,
        "timestep_post_act": "gelu",
        "conv_in_kernel": 1,
        "conv_out_kernel": 1,
        "in_channels": 8,
        "out_channels": 5,
        "resnet_time_scale_shift": "scale_shift",
    },
    "small": {
        "block_out_channels": (8,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
        "mid_block_type": None,
    },
}
PERTURBED = r"down_blocks.*attn1"  # where the second sample attends to itself alone
FREEU = {"s1": 0.9, "s2": 0.2, "b1": 1.5, "b2": 1.6}
STORED = ("sd", "sdxl", "deepfloyd", "small")  # the others are only compared live


def build(name: str) -> Any:
    """The torch model of that name, with weights that are not a fresh model's zeros and ones."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = UNet2DConditionModel(**{**BASE, **CONFIGS[name]}).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return model


def inputs(name: str) -> dict[str, Any]:
    """Inputs as fdiff takes them: a batch of two, which differ in everything."""
    config = {**BASE, **CONFIGS[name]}
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal((2, *shape)).astype(np.float32)

    tokens = 77 + 5 if name == "dual" else 5
    width = config.get("encoder_hid_dim") or config["cross_attention_dim"]
    hint = name == "hint"
    arrays: dict[str, Any] = {
        "sample": normal(8, 12, config.get("in_channels", 4) - 4 * hint),
        "timestep": np.array([7, 93], np.int32),
        "encoder_hidden_states": None if name == "audioldm" else normal(tokens, width),
    }
    if name == "sd":
        # 5 x 7 is no multiple of 2. A ControlNet's residuals and an adapter's features.
        arrays["sample"] = normal(5, 7, 4)
        shapes = [(5, 7, 8)] * 2 + [(3, 4, 8), (3, 4, 16)]
        arrays["down_block_additional_residuals"] = tuple(normal(*shape) for shape in shapes)
        arrays["mid_block_additional_residual"] = normal(3, 4, 16)
        arrays["down_intrablock_additional_residuals"] = (normal(5, 7, 8), normal(3, 4, 16))
    if name == "latent_upscaler":
        arrays["sample"], arrays["timestep_cond"] = normal(16, 24, 8), normal(6)
        arrays["encoder_attention_mask"] = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], np.float32)
    if name == "sdxl":
        arrays["timestep_cond"] = normal(6)
        arrays["added_cond_kwargs"] = {"text_embeds": normal(6), "time_ids": 100 * normal(3)}
        arrays["down_intrablock_additional_residuals"] = (normal(4, 6, 8), normal(4, 6, 16), normal(4, 6, 16))
    if name in ("deepfloyd", "upscaler", "kandinsky_image"):
        arrays["encoder_attention_mask"] = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], np.float32)
    if name == "kandinsky_image":
        del arrays["encoder_attention_mask"]
        arrays["added_cond_kwargs"] = {"image_embeds": normal(6)}
    if name == "kandinsky":
        arrays["added_cond_kwargs"] = {"image_embeds": normal(12), "text_embeds": normal(12)}
    if hint:
        arrays["added_cond_kwargs"] = {"image_embeds": normal(6), "hint": normal(64, 96, 3)}
    labels = {"deepfloyd": 10 * normal(), "upscaler": np.array([8, 3], np.int32), "fourier": normal(20)}
    if name in labels:
        arrays["class_labels"] = labels[name]
    elif "class_embed_type" in config:
        arrays["class_labels"] = normal(5)
    return arrays


def adapter() -> dict[str, np.ndarray]:
    """An IP-Adapter of the small model: kernels (d, c) by layer, and the image tokens (b, 3, d)."""
    random = np.random.default_rng(1)
    layers = ("down_blocks.0.attentions.0", "up_blocks.0.attentions.0", "up_blocks.0.attentions.1")
    names = [f"{layer}.transformer_blocks.0.attn2.{part}" for layer in layers for part in ("to_k_ip", "to_v_ip")]
    arrays = {name: random.standard_normal((12, 8)).astype(np.float32) for name in names}
    return {**arrays, "tokens": random.standard_normal((2, 3, 12)).astype(np.float32)}


def run_edited(model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """The same with perturbed attention and an IP-Adapter."""
    import re

    import torch
    from diffusers.models import attention_processor

    kernels = adapter()
    processors = {}
    for name, processor in model.attn_processors.items():
        layer = name.removesuffix(".processor")
        processors[name] = processor
        if re.search(PERTURBED, layer):
            processors[name] = attention_processor.PAGIdentitySelfAttnProcessor2_0()
        elif layer.endswith("attn2"):
            processors[name] = attention_processor.IPAdapterAttnProcessor2_0(8, 12, num_tokens=(3,), scale=0.7)
            for part in ("to_k_ip", "to_v_ip"):
                weight = getattr(processors[name], part)[0].weight
                weight.data = torch.from_numpy(kernels[f"{layer}.{part}"].T.copy())
    model.set_attn_processor(processors)
    return run(model, arrays, kernels["tokens"])


def run(model: Any, arrays: dict[str, Any], image_tokens: np.ndarray | None = None) -> np.ndarray:
    """What torch computes from those inputs, as (b, h, w, c)."""
    import torch
    from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel

    def tensor(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensor(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return [tensor(item) for item in value]
        x = None if value is None else torch.from_numpy(value)
        return x.permute(0, 3, 1, 2) if x is not None and x.ndim == 4 else x

    for module in model.modules():
        if isinstance(module, DualTransformer2DModel):  # its blocks pass a mask that it does not take
            module.forward = without_mask(module.forward)
    tensors = tensor(arrays)
    if image_tokens is not None:
        tensors["encoder_hidden_states"] = (
            tensors["encoder_hidden_states"],
            [torch.from_numpy(image_tokens)],
        )
    with torch.no_grad():
        return model(**tensors).sample.permute(0, 2, 3, 1).numpy()


def run_freeu(model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """What torch computes with FreeU."""
    model.enable_freeu(**FREEU)
    return run(model, arrays)


def without_mask(forward: Any) -> Any:
    """The same method, with encoder_attention_mask as an argument that does nothing."""
    return lambda *arguments, encoder_attention_mask=None, **options: forward(*arguments, **options)


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its output."""
    for name in STORED:
        model, arrays = build(name), inputs(name)
        outputs = {"output": run(model, arrays)}
        model.half().save_pretrained(folder / name)
        if name == "small":
            outputs["edited"] = run_edited(model.float(), arrays)
        if name == "sd":
            outputs["freeu"] = run_freeu(model.float(), arrays)
        np.savez(folder / f"{name}.npz", **outputs)
