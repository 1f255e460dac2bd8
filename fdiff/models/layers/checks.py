"""Which options of a model fit together. What each may be by itself, its annotation says: see fdiff.models.fields.

The functions read the fields of a model and raise ValueError, which names the options and the cure.
"""

from collections.abc import Iterable
from typing import Any

from fdiff.messages import show

# Options of conditional U-Nets that are one value for all levels, or a tuple with one for each.
PER_LEVEL = (
    "only_cross_attention",
    "layers_per_block",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "reverse_transformer_layers_per_block",
    "attention_head_dim",
    "num_attention_heads",
)
# Far above what networks have: SDXL has 70 transformer blocks and 6 layers. A damaged file must not take minutes.
MOST_BLOCKS = 200
MOST_LAYERS = 100  # of all levels, on one way
SAME = ("block_out_channels", "layers_per_block")  # what both halves of most autoencoders have
K_GROUP = 32  # channels in a group of a norm in K blocks


def at(value: Any, level: int) -> Any:
    """The option of one level, where it may be one for all."""
    return value[level] if isinstance(value, tuple) else value


def require(good: bool, sentence: str) -> None:
    """Raise ValueError with that sentence unless it is good."""
    if not good:
        raise ValueError(sentence)


def check_groups(option: str, groups: int, widths: Iterable[int]) -> None:
    """Refuse a number of groups that does not divide all numbers of channels."""
    for width in widths:
        good = width % groups == 0
        require(good, f"{option}: {width} channels cannot be normalized in {groups} groups; choose a divisor.")


def check_heads(option: str, number: int, width: int) -> None:
    """Refuse more heads than channels, or heads that are wider than all channels."""
    require(number <= width, f"{option} {number} is more than the {width} channels that attend; choose a divisor.")


def check_layers(option: str, number: int) -> None:
    """Refuse more layers than any network has."""
    require(number <= MOST_LAYERS, f"{option} makes {number} layers; {MOST_LAYERS} are the most.")


def check_tower(model: Any) -> None:
    """Refuse heads that do not divide the features of a tower of CLIP."""
    heads, width = model.num_attention_heads, model.hidden_size
    require(width % heads == 0, f"num_attention_heads {heads} must divide hidden_size {width}.")


def check_halves(model: Any, down: tuple[str, str] = SAME, up: tuple[str, str] = SAME) -> None:
    """Refuse options of an autoencoder's encoder and decoder; `down` and `up` name their channels and layers."""
    for types, (channels, layers) in (("down_block_types", down), ("up_block_types", up)):
        widths = getattr(model, channels)
        require(len(getattr(model, types)) == len(widths), f"{types} and {channels} must be equally long.")
        check_layers(layers, getattr(model, layers) * len(widths))
        check_groups("norm_num_groups", model.norm_num_groups, widths)


def check_lengths(model: Any, *more: str) -> None:
    """Refuse lists that are not as long as there are levels: those of PER_LEVEL, and `more`."""
    levels = len(model.block_out_channels)
    for option in ("down_block_types", "up_block_types", *PER_LEVEL, *more):
        value = getattr(model, option, None)
        good = not isinstance(value, tuple) or len(value) == levels
        found = show(value)
        require(good, f"{option} must be as long as block_out_channels, which is {levels}; it is {found}.")


def check_levels(model: Any) -> None:
    """Refuse options of the levels of a conditional U-Net."""
    widths, groups = model.block_out_channels, model.norm_num_groups
    check_lengths(model)
    check_layers("layers_per_block", sum(at(model.layers_per_block, level) for level in range(len(widths))))
    kinds = [*model.down_block_types, *getattr(model, "up_block_types", ())]
    special = {kind.startswith("K") for kind in kinds}
    require(len(special) == 1, f"K blocks go with K blocks only; correct down_block_types {model.down_block_types}.")
    if groups is not None:
        check_groups("norm_num_groups", groups, widths)
    elif special == {False} or model.mid_block_type is not None:
        raise ValueError("norm_num_groups must be a number; null is for K blocks only.")
    if special == {True}:
        for width in widths:
            require(width % K_GROUP == 0, f"K blocks need multiples of {K_GROUP} in block_out_channels, not {width}.")
    check_attention(model)


def check_attention(model: Any) -> None:
    """Refuse heads and depths of the transformers of a conditional U-Net."""
    levels, blocks = len(model.block_out_channels), 0
    ways = [(level, kind, 0) for level, kind in enumerate(model.down_block_types)]
    ways += [(levels - 1 - i, kind, 1) for i, kind in enumerate(getattr(model, "up_block_types", ()))]
    ways += [(levels - 1, model.mid_block_type or "", -1)]
    for level, kind, more in ways:
        if "CrossAttn" not in kind:
            continue
        option = "num_attention_heads" if model.num_attention_heads and "K" not in kind else "attention_head_dim"
        check_heads(option, at(getattr(model, option), level), model.block_out_channels[level])
        layers, depths = at(model.layers_per_block, level) + more, at(model.transformer_layers_per_block, level)
        backwards = getattr(model, "reverse_transformer_layers_per_block", None)
        if more == 1 and backwards is not None:
            depths = backwards[levels - 1 - level]
        elif more == -1:
            layers = 1
        if isinstance(depths, tuple) and "Simple" not in kind and not kind.startswith("K"):
            good = len(depths) >= layers
            cure = "set reverse_transformer_layers_per_block for the way up"
            require(good, f"transformer_layers_per_block has {len(depths)} numbers for {layers} layers; {cure}.")
        blocks += sum(depths) if isinstance(depths, tuple) else depths * layers
    check_blocks(blocks)


def check_axes(model: Any) -> None:
    """Refuse axes of rotary embeddings that do not make up a head."""
    sizes, width = model.axes_dims_rope, model.attention_head_dim
    require(sum(sizes) == width, f"axes_dims_rope {sizes} must add up to attention_head_dim, {width}.")
    odd = [size for size in sizes if size % 2]
    require(not odd, f"axes_dims_rope {sizes} must be even, since pairs of numbers are turned.")


def check_blocks(number: int) -> None:
    """Refuse more transformer blocks than any network has."""
    require(number <= MOST_BLOCKS, f"transformer_layers_per_block makes {number} blocks; {MOST_BLOCKS} are the most.")


def check_conditions(model: Any) -> None:
    """Refuse options of what a conditional U-Net is told."""
    first, shift, tokens = model.block_out_channels[0], model.freq_shift, model.cross_attention_dim
    image, sizes = model.encoder_hid_dim, model.addition_time_embed_dim
    kind = model.addition_embed_type
    if model.time_embedding_type == "positional":
        require(shift < first // 2, f"freq_shift {shift} must be below half of block_out_channels[0], {first}.")
    if model.class_embed_type in ("projection", "simple_projection"):
        needs(model, "class_embed_type", "projection_class_embeddings_input_dim")
    if model.encoder_hid_dim_type is not None:
        needs(model, "encoder_hid_dim_type", "encoder_hid_dim")
    if image is not None or model.dual_cross_attention or kind in ("text", "text_image"):
        reasons = "encoder_hid_dim, dual_cross_attention and addition_embed_type 'text' and 'text_image'"
        require(isinstance(tokens, int), f"cross_attention_dim must be one number with {reasons}; it is {tokens}.")
    if kind == "text":
        heads, width = model.addition_embed_type_num_heads, tokens
        if image is not None and model.encoder_hid_dim_type != "image_proj":
            width = image
        good = width % heads == 0
        require(good, f"addition_embed_type_num_heads {heads} must divide the {width} features of a token.")
    elif kind == "text_time":
        check_sizes(model)
    elif kind in ("image", "image_hint"):
        needs(model, "addition_embed_type", "encoder_hid_dim")
    if kind == "image_hint":
        require(model.in_channels > 4, f"in_channels {model.in_channels} must exceed 4, the channels of the hint.")
    if sizes is not None:
        require(shift < sizes // 2, f"freq_shift {shift} must be below half of addition_time_embed_dim, {sizes}.")
    if model.cross_attention_norm == "group_norm":
        check_groups("cross_attention_norm 'group_norm'", 32, tokens if isinstance(tokens, tuple) else (tokens,))


def check_sizes(model: Any) -> None:
    """Refuse options of the text and the sizes that SDXL is told."""
    if model.addition_embed_type == "text_time":
        needs(model, "addition_embed_type", "addition_time_embed_dim")
        needs(model, "addition_embed_type", "projection_class_embeddings_input_dim")
        both, sizes = model.projection_class_embeddings_input_dim, model.addition_time_embed_dim
        good = both > sizes
        require(good, f"projection_class_embeddings_input_dim {both} must exceed addition_time_embed_dim {sizes}.")


def needs(model: Any, option: str, other: str) -> None:
    """Refuse a model with the one option but without the other."""
    good = getattr(model, other) is not None
    require(good, f"{option} {show(getattr(model, option))} needs {other}; give it a number.")
