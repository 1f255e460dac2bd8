"""The container of llama.cpp's models, GGUF, versions 2 and 3: metadata, the places of tensors, and the tensors.

It is read here, not by the package of that name, so that one tensor at a time is in memory (the package maps the whole
file, whose pages then count as the process's own, and reads every word of a vocabulary) and so that a forged header
ends in one sentence. Shapes are turned to torch's order; names stay as they are.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from convert import files, ggml
from convert.packed import Packed
from convert.quantized import Size
from convert.tensors import AXES, Tensor, check_shape

MAGIC = b"GGUF"
VERSIONS = (2, 3)
LONGEST = 2**16 - 1  # bytes of a text that is kept
LARGEST = 2**28  # bytes of metadata, at most
CURE = "download or copy it again"

# ggml's numbers for types: those that hold plain numbers, and the kinds of blocks.
PLAIN = {
    0: np.dtype(np.float32), 1: np.dtype(np.float16), 30: np.dtype(ml_dtypes.bfloat16), 28: np.dtype(np.float64),
    24: np.dtype(np.int8), 25: np.dtype(np.int16), 26: np.dtype(np.int32), 27: np.dtype(np.int64),
}  # fmt: skip
BLOCKS = {2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 12: "q4_k", 13: "q5_k", 14: "q6_k"}
NAMES = {10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
         21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}  # fmt: skip
# Of metadata: how struct spells the numbers of each type.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9


class Contents(NamedTuple):
    """The metadata of a file, without long lists, and its tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Any]


def read(file: Path) -> Contents:
    """What a file holds; only its header is read.

    Raises ValueError where the header is damaged, and for a type of blocks that is not read.
    """
    with files.reading(file), open(file, "rb") as stream:
        try:
            return _contents(file, stream, file.stat().st_size)
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            raise ValueError(f"{file} has a damaged header ({error}); {CURE}.") from error


def _contents(file: Path, stream: BinaryIO, size: int) -> Contents:
    magic, version, count, pairs = stream.read(4), *_numbers(stream, "IQQ")
    if magic != MAGIC or version not in VERSIONS:
        raise ValueError(f"{file} is no GGUF file of version 2 or 3; {CURE}.")
    metadata = {}
    for _ in range(_bounded(pairs, size)):
        name, (kind,) = _text(stream), _numbers(stream, "I")
        metadata[name] = _value(stream, kind, size)
        if stream.tell() > LARGEST:
            raise struct.error("its metadata are larger than any model needs")
    places = [_place(stream) for _ in range(_bounded(count, size))]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise struct.error(f"an alignment of {alignment!r}")
    start = -(-stream.tell() // alignment) * alignment
    tensors: dict[str, Any] = {}
    for name, shape, kind, offset in places:
        original = metadata.get(f"comfy.gguf.orig_shape.{name}")
        tensors[name] = _tensor(file, name, shape, kind, start + offset, size, original)
    if len(tensors) < len(places):
        raise struct.error("a name stands twice")
    return Contents(metadata, tensors)


def _tensor(file: Path, name: str, shape: tuple[int, ...], kind: int, offset: int, size: int, original: Any) -> Any:
    """One tensor. ValueError for another type, and for one that is not wholly in the file."""
    if kind not in PLAIN and kind not in BLOCKS:
        known = ", ".join(sorted(one.upper() for one in BLOCKS.values()))
        raise ValueError(f"{file} holds {name:.100} as {NAMES.get(kind, f'type {kind}')}, which is not read; choose a "
                         f"file with {known}, BF16, F16 or F32.")
    if kind in PLAIN:
        nbytes, stored = _nbytes(shape, PLAIN[kind]), Tensor(file, offset, PLAIN[kind], shape)
    else:
        block = ggml.KINDS[BLOCKS[kind]]
        if not shape or shape[-1] % block.numbers:
            raise struct.error(f"{name:.100} of shape {shape} in blocks of {block.numbers}")
        packed = (int(np.prod(shape[:-1], dtype=object)), shape[-1] // block.numbers * block.nbytes)
        nbytes, stored = _nbytes(packed, np.dtype(np.uint8)), Tensor(file, offset, np.dtype(np.uint8), packed)
    if offset + nbytes > size:
        raise ValueError(f"{file} is cut short at {name:.100}; {CURE}.")
    whole = tuple(original) if isinstance(original, list) else shape
    if np.prod(whole, dtype=object) != np.prod(shape, dtype=object):
        raise struct.error(f"{name:.100} of shape {shape} stands for {whole}")
    if kind in PLAIN:
        return stored._replace(shape=whole)
    sizes = {"codes": Size(packed, stored.dtype)}
    return Packed(file, BLOCKS[kind], whole, sizes, lambda: {"codes": stored.read()}, whole == shape)


def _nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    try:
        return check_shape(shape, dtype)
    except ValueError as error:
        raise struct.error(str(error)) from None


def _place(stream: BinaryIO) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape in torch's order, type and place of a tensor."""
    name, (axes,) = _text(stream), _numbers(stream, "I")
    if axes > AXES:
        raise struct.error(f"{name:.100} has {axes} axes")
    shape = _numbers(stream, f"{axes}Q")
    kind, offset = _numbers(stream, "IQ")
    return name, tuple(reversed(shape)), kind, offset


def _numbers(stream: BinaryIO, form: str) -> tuple[Any, ...]:
    form = "<" + form
    return struct.unpack(form, stream.read(struct.calcsize(form)))


def _text(stream: BinaryIO) -> str:
    (length,) = _numbers(stream, "Q")
    if length > LONGEST:
        raise struct.error(f"a name of {length} bytes")
    return _exactly(stream, length).decode()


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise struct.error("it is cut short")
    return data


def _bounded(count: int, size: int) -> int:
    """A number of things that take 8 bytes each, at least."""
    if count > size // 8:
        raise struct.error(f"{count} entries in {size} bytes")
    return count


def _value(stream: BinaryIO, kind: int, size: int) -> Any:
    """A value of the metadata; None for a text that is too long to be of use, and for lists of texts or of lists."""
    if kind in NUMBERS:
        return _numbers(stream, NUMBERS[kind])[0]
    if kind == TEXT:
        (length,) = _numbers(stream, "Q")
        if length > LONGEST:
            _skip(stream, length, size)
            return None
        return _exactly(stream, length).decode(errors="replace")
    if kind != ARRAY:
        raise struct.error(f"a value of type {kind}")
    of, count = _numbers(stream, "IQ")
    if of in NUMBERS:
        width = struct.calcsize(NUMBERS[of])
        if count > AXES:
            _skip(stream, count * width, size)
            return None
        return list(_numbers(stream, f"{count}{NUMBERS[of]}"))
    if of != TEXT:
        raise struct.error(f"a list of type {of}")
    for _ in range(_bounded(count, size)):
        _skip(stream, _numbers(stream, "Q")[0], size)
    return None


def _skip(stream: BinaryIO, length: int, size: int) -> None:
    if stream.tell() + length > size:
        raise struct.error("it is cut short")
    stream.seek(length, 1)


def architecture(file: Path) -> str | None:
    """The architecture that a file says it is of; None for a file of another format, or that does not say it."""
    if not file.is_file():
        return None
    with open(file, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return None
    kind = read(file).metadata.get("general.architecture")
    return kind[:40] if isinstance(kind, str) and kind.isprintable() else None


def renamed(contents: Contents, file: Path) -> dict[str, Any]:
    """The tensors by the names of the models that they are of: those of llama.cpp's text encoders are its own.

    Raises ValueError for the architecture of a language model that fdiff does not have.
    """
    kind = contents.metadata.get("general.architecture")
    prefixes = ("blk.", "token_embd.", "enc.blk.")
    if not any(name.startswith(prefixes) for name in contents.tensors):
        return contents.tensors
    if kind not in TEXT_ENCODERS:
        raise ValueError(f"{file} is of the architecture {str(kind)[:40]!a}, which fdiff does not have; choose one of "
                         f"{', '.join(TEXT_ENCODERS)}.")
    rename = TEXT_ENCODERS[kind]
    return {rename(name): tensor for name, tensor in contents.tensors.items()}


DECODER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
T5 = {
    "attn_q": "layer.0.SelfAttention.q", "attn_k": "layer.0.SelfAttention.k", "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o", "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm", "ffn_norm": "layer.1.layer_norm", "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1", "ffn_down": "layer.1.DenseReluDense.wo",
}  # fmt: skip


def _translated(
    name: str, start: str, block: str, layers: Mapping[str, str], others: Mapping[str, str]
) -> str:
    module, _, leaf = name.rpartition(".")
    if module in others:
        return f"{others[module]}.{leaf}"
    if not module.startswith(start):
        return name
    number, _, layer = module.removeprefix(start).partition(".")
    return f"{block}.{number}.{layers[layer]}.{leaf}" if layer in layers else name


def _decoder(name: str) -> str:
    others = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    return _translated(name, "blk.", "model.layers", DECODER, others)


def _t5(name: str) -> str:
    others = {"token_embd": "shared", "enc.output_norm": "encoder.final_layer_norm"}
    return _translated(name, "enc.blk.", "encoder.block", T5, others)


TEXT_ENCODERS: dict[Any, Callable[[str], str]] = {"qwen2": _decoder, "qwen3": _decoder, "t5": _t5, "t5encoder": _t5}
