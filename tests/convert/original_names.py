"""Checkpoints as CompVis and Stability AI lay them out, from those of today: the inverse of what is tested."""

import re
from collections.abc import Callable, Mapping
from typing import Any

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
RESNET |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
TOP = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
TOP |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
TOP |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
TOP |= {"controlnet_mid_block": "middle_block_out.0"}
HINT = "controlnet_cond_embedding."


def unet(names: Mapping[str, Any]) -> dict[str, Any]:
    """A U-Net or a ControlNet, without prefix."""
    return {_unet(name, names): value for name, value in names.items()}


def _unet(name: str, names: Mapping[str, Any]) -> str:
    module, leaf = name.rsplit(".", 1)
    if module in TOP:
        return f"{TOP[module]}.{leaf}"
    if module.startswith("controlnet_down_blocks."):
        return f"zero_convs.{module.split('.')[1]}.0.{leaf}"
    if module.startswith(HINT):
        inner = module.removeprefix(HINT)
        number = {"conv_in": 0, "conv_out": 14}.get(inner)
        number = 2 * int(inner.split(".")[1]) + 2 if number is None else number
        return f"input_hint_block.{number}.{leaf}"
    words = name.split(".")
    if words[0] == "mid_block":
        place = f"middle_block.{1 if words[1] == 'attentions' else 2 * int(words[2])}"
        rest = words[3:]
    else:
        level, layer = int(words[1]), int(words[3])
        down = words[0] == "down_blocks"
        if words[2] == "downsamplers":
            return f"input_blocks.{3 * level + 3}.0.op.{leaf}"
        if words[2] == "upsamplers":
            attends = f"up_blocks.{level}.attentions.0.norm.weight" in names
            return f"output_blocks.{3 * level + 2}.{2 if attends else 1}.conv.{leaf}"
        number = 3 * level + layer + (1 if down else 0)
        place = f"{'input' if down else 'output'}_blocks.{number}.{1 if words[2] == 'attentions' else 0}"
        rest = words[4:]
    if words[1] == "resnets" or words[2] == "resnets":
        rest = [RESNET[rest[0]], *rest[1:]]
    return ".".join([place, *rest])


def vae(names: Mapping[str, Any], widen: Callable[[Any], Any]) -> dict[str, Any]:
    """An autoencoder, without prefix; `widen` makes a linear weight that of a 1x1 convolution."""
    found = {}
    for name, value in names.items():
        new = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", new)
        if "mid_block.attentions.0" in new:
            new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            new = re.sub(r"\.to_([qkv])\.", r".\1.", new).replace("to_out.0", "proj_out")
            if new.endswith("weight") and ".norm." not in new:
                value = widen(value)
        found[new] = value
    return found


def openclip(names: Mapping[str, Any], join: Callable[[list[Any]], Any], turn: Callable[[Any], Any]) -> dict[str, Any]:
    """An OpenCLIP text encoder, without prefix; `join` stacks three values, `turn` transposes one."""
    words = {"encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
    words |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn": "attn", "final_layer_norm": "ln_final"}
    words |= {"embeddings.token_embedding": "token_embedding"}
    words |= {"embeddings.position_embedding.weight": "positional_embedding"}
    found: dict[str, Any] = {}
    names = {name.removeprefix("text_model."): value for name, value in names.items()}
    for name, value in names.items():
        new = name
        for old, word in words.items():
            new = new.replace(old, word)
        if ".q_proj." in name:
            three = [names[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            found[new.replace("q_proj.", "in_proj_")] = join(three)
        elif new == "text_projection.weight":
            found["text_projection"] = turn(value)
        elif "k_proj" not in name and "v_proj" not in name:
            found[new] = value
    return found


WAN = {
    "norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}  # fmt: skip
WAN_TOP = {
    "quant_conv": "conv1", "post_quant_conv": "conv2", "conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2",
    "mid_block.resnets.0": "middle.0", "mid_block.attentions.0": "middle.1", "mid_block.resnets.1": "middle.2",
}  # fmt: skip


def wan_vae(name: str) -> str:
    """A parameter of the autoencoder of Wan 2.1 and Qwen-Image, which has two blocks on a level."""
    half, rest = re.fullmatch(r"((?:en|de)coder\.|)(.+)", name).groups()  # type: ignore[union-attr]
    rest = re.sub(r"(?<=\.)(\w+)(?=\.\w+$)", lambda match: WAN.get(match[1], match[1]), rest)
    rest = re.sub(r"^down_blocks", "downsamples", rest)
    rest = re.sub(r"^up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}", rest)
    rest = re.sub(r"^up_blocks\.(\d)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}", rest)
    top = next((old for old in WAN_TOP if rest.startswith(f"{old}.")), "")
    return half + WAN_TOP.get(top, "") + rest.removeprefix(top)
