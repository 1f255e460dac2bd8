"""What files of diffusion transformers do not say: their configs, by the names and the shapes of today's parameters."""

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from convert import families
from convert.families import Config, Family
from convert.tensors import Tensor

Part = Mapping[str, Tensor]

VAE_16: Config = {
    **families.VAE, "sample_size": 1024, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
    "force_upcast": True,
}  # fmt: skip
FLUX_VAE: Config = {**VAE_16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
SD3_VAE: Config = {**VAE_16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
T5_XXL: Config = {
    "d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "d_kv": 64, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
T5 = ("T5EncoderModel", T5_XXL)
ROTARY = {128: [16, 56, 56], 64: [16, 24, 24]}  # features of a head -> those of each axis


class Kind(NamedTuple):
    """Transformers of one class.

    mark: a parameter that no kind behind this one has. config: what their shapes say. pipeline: its class for a config,
    None where it is not told. encoders: a text encoder as ComfyUI names it in whole checkpoints -> the component that
    it is. models: what is known of components beside the transformer. hub: a repository with all that files lack.
    """

    mark: str
    cls: str
    config: Callable[[Part], Config]
    pipeline: Callable[[Config], str | None]
    encoders: Mapping[str, str]
    models: Mapping[str, tuple[str, Config]]
    hub: str


def kind(transformer: Part) -> Kind:
    """Whose transformer has these parameters. ValueError, the middle of a sentence, for one that is not known."""
    for one in KINDS:
        if one.mark in transformer:
            return one
    raise ValueError("its transformer is of no known family")


def family(parts: Mapping[str, Part]) -> Family:
    """What the components of a checkpoint with a transformer, under the names of today, belong to.

    ValueError, the middle of a sentence, for a component of which no config is known.
    """
    found = kind(parts["transformer"])
    config = found.config(parts["transformer"])
    models = {"transformer": (found.cls, config), **found.models}
    if unknown := sorted(parts.keys() - models.keys()):
        raise ValueError(f"its {unknown[0]} is of no known size")
    return Family(found.pipeline(config), {name: models[name] for name in models if name in parts}, {}, {})


def _shape(part: Part, name: str, ndim: int = 2) -> tuple[int, ...]:
    """The shape of a parameter. ValueError, the middle of a sentence, without it or with other axes."""
    if name not in part:
        raise ValueError(f"it lacks {name}")
    shape = part[name].shape
    if len(shape) != ndim or 0 in shape:
        raise ValueError(f"{name} has shape {shape}")
    return shape


def _count(part: Part, blocks: str) -> int:
    """How many blocks of that name there are."""
    found = re.compile(rf"{re.escape(blocks)}\.(\d+)\.")
    return 1 + max((int(match[1]) for name in part if (match := found.match(name))), default=-1)


def _heads(part: Part, norm: str, width: int) -> Config:
    """How many heads of how many features there are, by the norm of the queries of one."""
    (size,) = _shape(part, f"{norm}.weight", 1)
    return {"attention_head_dim": size, "num_attention_heads": width // size}


def _axes(size: int) -> list[int]:
    """How FLUX.1 and Qwen-Image share out the features of a head among the axes."""
    if size not in ROTARY:
        raise ValueError(f"its heads have {size} features, of which it is not known which turn by which axis")
    return ROTARY[size]


def _joint(part: Part) -> Config:
    """What FLUX.1 and Chroma have in common."""
    width, channels = _shape(part, "x_embedder.weight")
    out = _shape(part, "proj_out.weight")[0]
    heads = _heads(part, "transformer_blocks.0.attn.norm_q", width)
    return {
        **heads, "in_channels": channels, "out_channels": None if out == channels else out,
        "num_layers": _count(part, "transformer_blocks"),
        "num_single_layers": _count(part, "single_transformer_blocks"),
        "joint_attention_dim": _shape(part, "context_embedder.weight")[1],
        "axes_dims_rope": _axes(heads["attention_head_dim"]),
    }  # fmt: skip


def _flux(part: Part) -> Config:
    told = "time_text_embed"
    pooled = _shape(part, f"{told}.text_embedder.linear_1.weight")[1]
    return {
        **_joint(part), "pooled_projection_dim": pooled,
        "guidance_embeds": f"{told}.guidance_embedder.linear_1.weight" in part,
    }  # fmt: skip


def _chroma(part: Part) -> Config:
    hidden, channels = _shape(part, "distilled_guidance_layer.in_proj.weight")
    layers = _count(part, "distilled_guidance_layer.layers")
    sizes = {"num_channels": channels, "hidden_dim": hidden, "layers": layers}
    return _joint(part) | {f"approximator_{name}": size for name, size in sizes.items()}


def _flux2(part: Part) -> Config:
    width, channels = _shape(part, "x_embedder.weight")
    out, told = _shape(part, "proj_out.weight")[0], "time_guidance_embed"
    heads = _heads(part, "transformer_blocks.0.attn.norm_q", width)
    size = heads["attention_head_dim"]
    return {
        **heads, "in_channels": channels, "out_channels": None if out == channels else out,
        "num_layers": _count(part, "transformer_blocks"),
        "num_single_layers": _count(part, "single_transformer_blocks"),
        "joint_attention_dim": _shape(part, "context_embedder.weight")[1],
        "timestep_guidance_channels": _shape(part, f"{told}.timestep_embedder.linear_1.weight")[1],
        "mlp_ratio": _shape(part, "transformer_blocks.0.ff.linear_out.weight")[1] / width,
        "axes_dims_rope": [size // 4] * 4, "guidance_embeds": f"{told}.guidance_embedder.linear_1.weight" in part,
    }  # fmt: skip


def _sd3(part: Part) -> Config:
    width, channels, patch, _ = _shape(part, "pos_embed.proj.weight", 4)
    _, places, _ = _shape(part, "pos_embed.pos_embed", 3)
    norm = "transformer_blocks.0.attn.norm_q"
    normed = f"{norm}.weight" in part
    heads = _heads(part, norm, width) if normed else {"attention_head_dim": 64, "num_attention_heads": width // 64}
    layers = _count(part, "transformer_blocks")
    return {
        **heads, "in_channels": channels, "patch_size": patch, "num_layers": layers,
        "joint_attention_dim": _shape(part, "context_embedder.weight")[1], "caption_projection_dim": width,
        "pooled_projection_dim": _shape(part, "time_text_embed.text_embedder.linear_1.weight")[1],
        "out_channels": _shape(part, "proj_out.weight")[0] // patch**2,
        "pos_embed_max_size": math.isqrt(places), "sample_size": 128,
        "dual_attention_layers": [i for i in range(layers) if f"transformer_blocks.{i}.attn2.to_q.weight" in part],
        "qk_norm": "rms_norm" if normed else None,
    }  # fmt: skip


def _z_image(part: Part) -> Config:
    width, numbers = _shape(part, "all_x_embedder.2-1.weight")
    (size,) = _shape(part, "layers.0.attention.norm_q.weight", 1)
    if size != 128:
        raise ValueError(f"its heads have {size} features, of which it is not known which turn by which axis")
    heads = width // size
    return {
        "dim": width, "in_channels": numbers // 4, "n_layers": _count(part, "layers"),
        "n_refiner_layers": _count(part, "noise_refiner"), "n_heads": heads, "n_kv_heads": heads,
        "cap_feat_dim": _shape(part, "cap_embedder.1.weight")[1], "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512],
    }  # fmt: skip


def _qwen_image(part: Part) -> Config:
    width, channels = _shape(part, "img_in.weight")
    heads = _heads(part, "transformer_blocks.0.attn.norm_q", width)
    layered = "time_text_embed.addition_t_embedding.weight" in part
    return {
        **heads, "in_channels": channels, "out_channels": _shape(part, "proj_out.weight")[0] // 4,
        "num_layers": _count(part, "transformer_blocks"), "joint_attention_dim": _shape(part, "txt_in.weight")[1],
        "axes_dims_rope": _axes(heads["attention_head_dim"]), "use_additional_t_cond": layered,
        "use_layer3d_rope": layered,
    }  # fmt: skip


def _krea2(part: Part) -> Config:
    width, channels = _shape(part, "img_in.weight")
    block, text = "transformer_blocks.0", "text_fusion.layerwise_blocks"
    heads, words = _heads(part, f"{block}.attn.norm_q", width), _shape(part, "txt_in.norm.weight", 1)[0]
    size = heads["attention_head_dim"]
    if size != 128:
        raise ValueError(f"its heads have {size} features, of which it is not known which turn by which axis")
    (of_text,) = _shape(part, f"{text}.0.attn.norm_q.weight", 1)
    return {
        **heads, "in_channels": channels, "num_layers": _count(part, "transformer_blocks"),
        "num_key_value_heads": _shape(part, f"{block}.attn.to_k.weight")[0] // size,
        "intermediate_size": _shape(part, f"{block}.ff.gate.weight")[0],
        "timestep_embed_dim": _shape(part, "time_embed.linear_1.weight")[1], "text_hidden_dim": words,
        "num_text_layers": _shape(part, "text_fusion.projector.weight")[1],
        "text_num_attention_heads": words // of_text,
        "text_num_key_value_heads": _shape(part, f"{text}.0.attn.to_k.weight")[0] // of_text,
        "text_intermediate_size": _shape(part, f"{text}.0.ff.gate.weight")[0],
        "num_layerwise_text_blocks": _count(part, text),
        "num_refiner_text_blocks": _count(part, "text_fusion.refiner_blocks"),
    }  # fmt: skip


def _flux3(part: Part) -> Config:
    width, channels = _shape(part, "x_embedders.image.weight")
    heads = _heads(part, "txt_mode_blocks.0.attn.norm_q", width)
    return {
        **heads, "in_channels": channels, "cond_in_channels": _shape(part, "x_embedders.image_cond.weight")[1],
        "num_layers": _count(part, "txt_mode_blocks"), "num_single_layers": _count(part, "single_transformer_blocks"),
        "joint_attention_dim": _shape(part, "context_embedder.weight")[1],
        "timestep_channels": _shape(part, "timestep_embedder.linear_1.weight")[1],
        "mlp_ratio": _shape(part, "txt_mode_blocks.0.ff.linear_out.weight")[1] / width,
        "axes_dims_rope": [heads["attention_head_dim"] // 4] * 4,
        "flow_map": "target_timestep_embedder.linear_1.weight" in part,
    }  # fmt: skip


def _qwen_image21(part: Part) -> Config:
    width, channels = _shape(part, "img_in.weight")
    heads = _heads(part, "transformer_blocks.0.attn.norm_q", width)
    return {
        **heads, "in_channels": channels, "out_channels": _shape(part, "proj_out.weight")[0],
        "num_layers": _count(part, "transformer_blocks"), "context_in_dim": _shape(part, "txt_in.in_layer.weight")[1],
        "mlp_ratio": _shape(part, "transformer_blocks.0.img_mlp.proj.weight")[0] // width,
        "axes_dims_rope": _axes(heads["attention_head_dim"]),
    }  # fmt: skip


def _ernie_image(part: Part) -> Config:
    width, channels, patch, _ = _shape(part, "x_embedder.proj.weight", 4)
    (size,) = _shape(part, "layers.0.self_attention.norm_q.weight", 1)
    if size != 128:
        raise ValueError(f"its heads have {size} features, of which it is not known which turn by which axis")
    return {
        "hidden_size": width, "num_attention_heads": width // size, "num_layers": _count(part, "layers"),
        "ffn_hidden_size": _shape(part, "layers.0.mlp.gate_proj.weight")[0], "in_channels": channels,
        "out_channels": _shape(part, "final_linear.weight")[0] // patch**2, "patch_size": patch,
        "text_in_dim": _shape(part, "text_proj.weight")[1],
    }  # fmt: skip


def _lumina2(part: Part) -> Config:
    width, numbers = _shape(part, "x_embedder.weight")
    heads = _heads(part, "layers.0.attn.norm_q", width)
    size, inner = heads["attention_head_dim"], _shape(part, "layers.0.feed_forward.linear_1.weight")[0]
    if size != 96:
        raise ValueError(f"its heads have {size} features, of which it is not known which turn by which axis")
    return {
        "hidden_size": width, "in_channels": numbers // 4, "num_layers": _count(part, "layers"),
        "num_refiner_layers": _count(part, "noise_refiner"), "num_attention_heads": heads["num_attention_heads"],
        "num_kv_heads": _shape(part, "layers.0.attn.to_k.weight")[0] // size,
        "ffn_dim_multiplier": None if inner == 4 * width else inner / (4 * width),
        "cap_feat_dim": _shape(part, "time_caption_embed.caption_embedder.1.weight")[1],
    }  # fmt: skip


def _sana(part: Part) -> Config:
    width, channels, patch, _ = _shape(part, "patch_embed.proj.weight", 4)
    heads = {1152: 16, 2240: 20}.get(width)  # of the attention to the text
    if heads is None:
        raise ValueError(f"it is {width} wide, of which it is not known how many heads that makes")
    return {
        "in_channels": channels, "out_channels": _shape(part, "proj_out.weight")[0] // patch**2, "patch_size": patch,
        "attention_head_dim": 32, "num_attention_heads": width // 32, "num_layers": _count(part, "transformer_blocks"),
        "num_cross_attention_heads": heads, "cross_attention_head_dim": width // heads, "cross_attention_dim": width,
        "caption_channels": _shape(part, "caption_projection.linear_1.weight")[1],
        "mlp_ratio": _shape(part, "transformer_blocks.0.ff.conv_inverted.weight", 4)[0] / (2 * width),
        "guidance_embeds": "time_embed.guidance_embedder.linear_1.weight" in part,
        "qk_norm": "rms_norm_across_heads" if "transformer_blocks.0.attn1.norm_q.weight" in part else None,
    }  # fmt: skip


def _pixart(part: Part) -> Config:
    width, channels, patch, _ = _shape(part, "pos_embed.proj.weight", 4)
    if "adaln_single.emb.resolution_embedder.linear_1.weight" not in part:
        raise ValueError("it is PixArt-Sigma, or PixArt-alpha of 512 pixels or less, and its tensors do not tell which")
    if width % 72:
        raise ValueError(f"it is {width} wide, of which it is not known how many heads that makes")
    return {
        "in_channels": channels, "out_channels": _shape(part, "proj_out.weight")[0] // patch**2, "patch_size": patch,
        "attention_head_dim": 72, "num_attention_heads": width // 72, "num_layers": _count(part, "transformer_blocks"),
        "cross_attention_dim": width, "caption_channels": _shape(part, "caption_projection.linear_1.weight")[1],
        "sample_size": 128, "use_additional_conditions": True,
    }  # fmt: skip


def _of_flux(config: Config) -> str:
    """The pipeline of FLUX.1: what goes into the network beside the latents tells Fill and Depth or Canny."""
    return {384: "FluxFillPipeline", 128: "FluxControlPipeline"}.get(config["in_channels"], "FluxPipeline")


def _of_flux2(config: Config) -> str:
    return "Flux2Pipeline" if config["guidance_embeds"] else "Flux2KleinPipeline"


def _of_sana(config: Config) -> str:
    return "SanaSprintPipeline" if config["guidance_embeds"] else "SanaPipeline"


def _always(pipeline: str | None) -> Callable[[Config], str | None]:
    return lambda config: pipeline


_VAE_OF_FLUX = {"vae": ("AutoencoderKL", FLUX_VAE)}
_LANGUAGE_MODELS = dict.fromkeys(("qwen3_4b", "qwen3_8b", "mistral3_24b", "qwen25_7b"), "text_encoder")
KINDS = (
    Kind("single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight", "Flux2Transformer2DModel", _flux2, _of_flux2,
         _LANGUAGE_MODELS, {}, "black-forest-labs/FLUX.2-klein-4B"),
    Kind("distilled_guidance_layer.in_proj.weight", "ChromaTransformer2DModel", _chroma, _always("ChromaPipeline"),
         {"t5xxl": "text_encoder"}, {**_VAE_OF_FLUX, "text_encoder": T5}, "lodestones/Chroma1-HD"),
    Kind("single_transformer_blocks.0.proj_mlp.weight", "FluxTransformer2DModel", _flux, _of_flux,
         {"clip_l": "text_encoder", "t5xxl": "text_encoder_2"},
         {**_VAE_OF_FLUX, "text_encoder": (families.TEXT, families.CLIP_L), "text_encoder_2": T5},
         "black-forest-labs/FLUX.1-dev"),
    Kind("pos_embed.pos_embed", "SD3Transformer2DModel", _sd3, _always("StableDiffusion3Pipeline"),
         {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"},
         {"vae": ("AutoencoderKL", SD3_VAE), "text_encoder": (families.PROJECTED, families.CLIP_L),
          "text_encoder_2": (families.PROJECTED, families.OPENCLIP_G), "text_encoder_3": T5},
         "stabilityai/stable-diffusion-3-medium-diffusers"),
    Kind("all_x_embedder.2-1.weight", "ZImageTransformer2DModel", _z_image, _always("ZImagePipeline"),
         _LANGUAGE_MODELS, _VAE_OF_FLUX, "Tongyi-MAI/Z-Image-Turbo"),
    Kind("txt_norm.weight", "QwenImageTransformer2DModel", _qwen_image, _always(None),
         _LANGUAGE_MODELS, {}, "Qwen/Qwen-Image"),
    Kind("txt_in.text_norm.weight", "QwenImage21Transformer2DModel", _qwen_image21, _always("QwenImage21Pipeline"),
         _LANGUAGE_MODELS, {}, "Qwen/Qwen-Image-2.1"),
    Kind("text_fusion.projector.weight", "Krea2Transformer2DModel", _krea2, _always("Krea2Pipeline"),
         _LANGUAGE_MODELS, {}, "krea/Krea-2-Raw"),
    Kind("early_stream_modulations.image.linear.weight", "Flux3Transformer2DModel", _flux3, _always("Flux3Pipeline"),
         _LANGUAGE_MODELS, {}, "black-forest-labs/flux-3-image-klein-base"),
    Kind("layers.0.adaLN_sa_ln.weight", "ErnieImageTransformer2DModel", _ernie_image, _always("ErnieImagePipeline"),
         _LANGUAGE_MODELS, {}, "baidu/ERNIE-Image"),
    Kind("time_caption_embed.caption_embedder.1.weight", "Lumina2Transformer2DModel", _lumina2,
         _always("Lumina2Pipeline"), {"gemma2_2b": "text_encoder"}, _VAE_OF_FLUX, "Alpha-VLLM/Lumina-Image-2.0"),
    Kind("transformer_blocks.0.ff.conv_inverted.weight", "SanaTransformer2DModel", _sana, _of_sana,
         {}, {}, "Efficient-Large-Model/Sana_1600M_1024px_diffusers"),
    Kind("pos_embed.proj.weight", "PixArtTransformer2DModel", _pixart, _always("PixArtAlphaPipeline"),
         {}, {}, "PixArt-alpha/PixArt-XL-2-1024-MS"),
)  # fmt: skip

