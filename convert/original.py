"""The names of CompVis and Stability AI for the modules of Stable Diffusion, and the names of today; Wan's of its VAE.

They hold for parameters ("input_blocks.1.0.in_layers.2.weight") and, with "_" in place of ".", for modules as
LoRA files spell them ("input_blocks_1_0_in_layers_2"). A name that is none of theirs is returned as it is.
"""

import re
from collections.abc import Callable, Sequence

# A pattern, where "." stands for "." and "_" alike, and what is put in its place.
Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

LAYERS = 2  # residual blocks of a level on the way down; there is one more on the way up


def _rules(table: dict[str, str | Callable[..., str]]) -> tuple[Rule, ...]:
    """Compile a table of patterns; a function gets the numbers in the name, a text may have \\1 for a word in it."""

    def replacement(new: str | Callable[..., str]) -> Callable[[re.Match[str]], str]:
        if isinstance(new, str):
            return lambda match: match.expand(new)
        return lambda match: new(*(int(group) for group in match.groups()))

    return tuple(
        (re.compile(f"^{old}(?![a-z0-9])".replace(".", "[._]")), replacement(new)) for old, new in table.items()
    )


def _down(i: int) -> tuple[int, int]:
    """The level of input block i, and which of its layers it is."""
    return divmod(i - 1, LAYERS + 1)


def _up(i: int) -> tuple[int, int]:
    """The same for output block i."""
    return divmod(i, LAYERS + 1)


RESNET = _rules({
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
})  # fmt: skip

UNET = _rules({
    r"time_embed.0": "time_embedding.linear_1",
    r"time_embed.2": "time_embedding.linear_2",
    r"label_emb.0.0": "add_embedding.linear_1",
    r"label_emb.0.2": "add_embedding.linear_2",
    r"input_blocks.0.0": "conv_in",
    r"out.0": "conv_norm_out",
    r"out.2": "conv_out",
    r"input_blocks.(\d+).0.op": lambda i: f"down_blocks.{_down(i)[0]}.downsamplers.0.conv",
    r"input_blocks.(\d+).0": lambda i: "down_blocks.{}.resnets.{}".format(*_down(i)),
    r"input_blocks.(\d+).1": lambda i: "down_blocks.{}.attentions.{}".format(*_down(i)),
    r"middle_block.0": "mid_block.resnets.0",
    r"middle_block.1": "mid_block.attentions.0",
    r"middle_block.2": "mid_block.resnets.1",
    r"output_blocks.(\d+).0": lambda i: "up_blocks.{}.resnets.{}".format(*_up(i)),
    r"output_blocks.(\d+).[12].conv": lambda i: f"up_blocks.{_up(i)[0]}.upsamplers.0.conv",
    r"output_blocks.(\d+).1": lambda i: "up_blocks.{}.attentions.{}".format(*_up(i)),
    # A ControlNet
    r"zero_convs.(\d+).0": lambda i: f"controlnet_down_blocks.{i}",
    r"middle_block_out.0": "controlnet_mid_block",
    r"input_hint_block.0": "controlnet_cond_embedding.conv_in",
    r"input_hint_block.14": "controlnet_cond_embedding.conv_out",
    r"input_hint_block.(\d+)": lambda i: f"controlnet_cond_embedding.blocks.{i // 2 - 1}",
})  # fmt: skip

VAE_LEVELS = 4  # the decoder numbers its levels from the picture, the names of today from the latents

VAE = _rules({
    r"(encoder|decoder).norm_out": r"\1.conv_norm_out",
    r"(encoder|decoder).(quant_conv|post_quant_conv)": r"\2",  # of FLUX.2
    r"(encoder|decoder).mid.block_1": r"\1.mid_block.resnets.0",
    r"(encoder|decoder).mid.block_2": r"\1.mid_block.resnets.1",
    r"(encoder|decoder).mid.attn_1": r"\1.mid_block.attentions.0",
    r"encoder.down.(\d+).block.(\d+)": lambda i, j: f"encoder.down_blocks.{i}.resnets.{j}",
    r"encoder.down.(\d+).downsample": lambda i: f"encoder.down_blocks.{i}.downsamplers.0",
    r"decoder.up.(\d+).block.(\d+)": lambda i, j: f"decoder.up_blocks.{VAE_LEVELS - 1 - i}.resnets.{j}",
    r"decoder.up.(\d+).upsample": lambda i: f"decoder.up_blocks.{VAE_LEVELS - 1 - i}.upsamplers.0",
})  # fmt: skip

VAE_INSIDE = _rules({
    "nin_shortcut": "conv_shortcut",
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
})  # fmt: skip

WAN_LAYERS = LAYERS + 2  # of a level of the decoder of Wan and Qwen-Image: blocks, and what doubles the size


def _wan_up(i: int) -> str:
    level, layer = divmod(i, WAN_LAYERS)
    return f"decoder.up_blocks.{level}." + (f"resnets.{layer}" if layer < WAN_LAYERS - 1 else "upsamplers.0")


WAN_VAE = _rules({
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    r"(encoder|decoder).conv1": r"\1.conv_in",
    r"(encoder|decoder).middle.0": r"\1.mid_block.resnets.0",
    r"(encoder|decoder).middle.1": r"\1.mid_block.attentions.0",
    r"(encoder|decoder).middle.2": r"\1.mid_block.resnets.1",
    r"(encoder|decoder).head.0": r"\1.norm_out",
    r"(encoder|decoder).head.2": r"\1.conv_out",
    r"encoder.downsamples.(\d+)": lambda i: f"encoder.down_blocks.{i}",
    r"decoder.upsamples.(\d+)": _wan_up,
})  # fmt: skip

WAN_INSIDE = _rules({
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
})  # fmt: skip

OPENCLIP = _rules({
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "ln_final": "text_model.final_layer_norm",
    "text_projection$": "text_projection.weight",
    r"transformer.resblocks.(\d+)": lambda i: f"text_model.encoder.layers.{i}",
})  # fmt: skip

OPENCLIP_INSIDE = _rules({
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn": "self_attn",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
})  # fmt: skip


def unet(name: str) -> str:
    """Of a U-Net or a ControlNet: without "model.diffusion_model." or "control_model."."""
    return _translate(name, UNET, RESNET)


def vae(name: str) -> str:
    """Of an autoencoder with four levels: without "first_stage_model.". Wan's and FLUX.2's are among them."""
    found = _translate(name, WAN_VAE, WAN_INSIDE)
    return _translate(name, VAE, VAE_INSIDE) if found == name else found


def openclip(name: str) -> str:
    """Of an OpenCLIP text encoder, except that queries, keys and values are still in one."""
    return _translate(name, OPENCLIP, OPENCLIP_INSIDE)


def _translate(name: str, places: Sequence[Rule], inside: Sequence[Rule]) -> str:
    """Replace what a name begins with, then, if there is more, what the rest begins with."""
    for pattern, new in places:
        if match := pattern.match(name):
            rest = name[match.end() :]
            return new(match) + rest[:1] + _first(rest[1:], inside)
    return name


def _first(name: str, rules: Sequence[Rule]) -> str:
    for pattern, new in rules:
        if match := pattern.match(name):
            return new(match) + name[match.end() :]
    return name
