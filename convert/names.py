"""The spellings that files have for the names of today.

A reader asks for the name that the model gives a tensor, and `find` looks for it under each spelling in turn.
A name that is spelled as the model does always wins, so a spelling here can never shadow a real parameter.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from os import PathLike
from typing import TypeVar

Value = TypeVar("Value")

# Buffers that torch writes beside the parameters. They hold no weights: a model computes them anew.
BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids|num_batches_tracked)$")

# What diffusers called the projections of an attention block before 0.14.
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

# What torch puts around a module that is compiled, sharded or computed twice, and around one on several devices.
WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
PARALLEL = "module."

UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # in a sentence of one line
LONGEST = 1000  # signs of a name

# Hub files of CLIP's towers carry these prefixes, the modules of transformers 5 do not.
CLIP_TEXT = "text_model."
CLIP_VISION = "vision_model."

# The last layer of a language model, which chooses words; what reads a text for pictures needs those below it.
HEAD = "lm_head.weight"

# What the names of a language model begin with in a file that may have that layer too.
LANGUAGE_MODEL = "model."

# What the names of a language model begin with that is a part of one which sees, and in files of other versions.
SEEING = "language_model."
SEEING_SPELLINGS = ("model.language_model.", "language_model.model.", "model.")

# What the names of Qwen's part that sees begin with.
VISUAL = "visual."

# The part of such models that sees, and the layer that chooses words, which what reads a text does not need.
SIGHT = re.compile(r"(model\.)?(vision_tower|multi_modal_projector|visual)\.|language_model\.lm_head\.")

# The part of CLAP that hears, which what reads a text for sounds does not need.
HEARING = ("audio_model.", "audio_projection.", "logit_scale_a", "logit_scale_t")

# What files of GeoDiff's network hold a second time, do not use, or keep beside the weights: noise, and GIN's fixed 0.
GEODIFF = re.compile(r"(model_global|model_local|edge_encoder_local)\.|(betas|alphas|encoder_local\.convs\.\d+\.eps)$")

# What the names of GPT-2 begin with in a file that also has the layer which chooses words.
GPT = "transformer."

# Tensors that a file may hold a second time under another name, since two modules share them.
SHARED = {"encoder.embed_tokens.weight": "shared.weight"}


def spellings(name: str) -> Iterator[str]:
    """Every name under which a file may hold the tensor `name`, today's first."""
    yield name
    yield name.removeprefix(CLIP_TEXT) if name.startswith(CLIP_TEXT) else CLIP_TEXT + name
    for prefix in (CLIP_VISION, LANGUAGE_MODEL):
        if name.startswith(prefix):
            yield name.removeprefix(prefix)
    if name.startswith(SEEING):
        yield from (prefix + name.removeprefix(SEEING) for prefix in SEEING_SPELLINGS)
    if name.startswith(VISUAL):
        yield LANGUAGE_MODEL + name
    yield GPT + name
    yield from (copy for copy, shared in SHARED.items() if shared == name)
    module, _, leaf = name.rpartition(".")
    for today, old in OLD_ATTENTION.items():
        if module.endswith("." + today):
            yield f"{module.removesuffix(today)}{old}.{leaf}"


def find(name: str, names: Container[str]) -> str | None:
    """The spelling of `name` that is among `names`, or None."""
    return next((spelling for spelling in spellings(name) if spelling in names), None)


def unwrapped(found: Mapping[str, Value]) -> dict[str, Value]:
    """Those tensors under the names that they had before torch compiled, sharded or copied their module.

    "module." goes only where all names have it. Of two tensors that then have one name the last stays.
    """
    bare = {WRAPPERS.sub("", name): value for name, value in found.items()}
    if bare and all(name.startswith(PARALLEL) for name in bare):
        bare = {WRAPPERS.sub("", name.removeprefix(PARALLEL)): value for name, value in bare.items()}
    return bare


def check(names: Iterable[str], file: str | PathLike[str]) -> None:
    """ValueError for a name that no module has: of several lines, half a sign, or without an end."""
    for name in names:
        if len(name) > LONGEST or UNWRITABLE.search(name):
            raise ValueError(f"{file} holds a name that no module has, {name[:40]!a}; download or copy it again.")


def is_buffer(name: str) -> bool:
    """Whether a file's tensor of that name may be passed over: it is no parameter."""
    return BUFFERS.search(name) is not None


def is_spare(name: str, used: Container[str | None]) -> bool:
    """Whether a model that uses some of a file's tensors may do without that one."""
    passed_over = is_buffer(name) or name == HEAD or name.startswith(HEARING)
    passed_over = passed_over or SIGHT.match(name) is not None or GEODIFF.match(name) is not None
    return passed_over or (name in SHARED and SHARED[name] in used)
