"""What a field of config.json may hold: the annotations of models' fields, and the check of a value against one.

A plain `int`, `float`, `bool` or `str` is any whole number, finite number, boolean or text; the names below also say
which. They go into unions and tuples: `layers_per_block: Layers | tuple[Layers, ...]`.
"""

import math
import numbers
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from flax.core import FrozenDict

from fdiff.messages import show
from fdiff.models.layers.activations import FUNCTIONS


class Rule(NamedTuple):
    """What more a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


class OneOf(tuple[str, ...]):
    """The texts that a value can be, in any case where they are lower case."""


def between(least: float, most: float) -> Rule:
    """The rule of a number that is bounded on both sides."""
    return Rule(f"from {least:,} to {most:,}", lambda value: least <= value <= most)


def some(most: int) -> Rule:
    """The rule of a list that is not empty and not longer than that."""
    return Rule(f"of 1 to {most}", lambda value: 1 <= len(value) <= most)


# The bounds are far above what networks have. They keep a damaged file from taking all time or memory.
Count = Annotated[int, between(1, 2**20)]  # of features, heads, entries of a table
Index = Annotated[int, between(0, 2**20)]
Channels = Annotated[int, between(1, 1024)]  # of pictures
Pixels = Annotated[int, between(1, 2**13)]
Layers = Annotated[int, between(1, 100)]  # of equal ones, one behind the other
Depth = Annotated[int, between(0, 100)]
Widths = Annotated[tuple[Count, ...], some(8)]  # one for each level
Epsilon = Annotated[float, between(0, 1)]  # what keeps a norm from dividing by 0
Dropout = Annotated[float, Rule("from 0 to below 1", lambda value: 0 <= value < 1)]
Factor = Annotated[float, between(1e-6, 1e6)]
Shift = Annotated[float, between(-1e6, 1e6)]
Theta = Annotated[float, between(1, 1e9)]  # the base of rotary embeddings' frequencies
TimeShift = Annotated[str, OneOf(("default", "scale_shift"))]  # how the time enters residual blocks
Padding = Annotated[int, between(0, 1)]
Kernel = Annotated[int, Rule("that is odd, from 1 to 31", lambda value: value in range(1, 32, 2))]
Activation = Annotated[
    str, OneOf(FUNCTIONS)
]


def checked(owner: str, name: str, kind: Any, value: Any) -> Any:
    """The value of the field, lists as tuples and whole numbers as int; ValueError unless it is of that kind.

    Args:
        owner: the class with the field.
        name: the field.
        kind: its annotation. Annotations of other kinds than these take any value.
        value: what is to be checked.
    """
    try:
        return _taken(kind, value)
    except (TypeError, OverflowError):
        pass
    choices = list(_choices(kind))
    strange = [leaf for leaf in _leaves(value) if isinstance(leaf, str) and not _among(choices, leaf)]
    if choices and strange:
        raise ValueError(f"{name} {show(strange[0])} is unknown to {owner}; choose from {', '.join(choices)}.")
    raise ValueError(f"{name} is {show(value)}; it must be {_words(kind)}.")


def _taken(kind: Any, value: Any) -> Any:
    """The value as one of that kind. Raises TypeError if it is none."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value, rule = _taken(arguments[0], value), arguments[1]
        good = _among(rule, value) if isinstance(rule, OneOf) else rule.holds(value)
    elif origin in (Union, types.UnionType):
        for one in arguments:
            try:
                return _taken(one, value)
            except TypeError:
                continue
        good = False
    elif origin is tuple:
        good = isinstance(value, list | tuple) and (arguments[-1] is ... or len(arguments) == len(value))
        value = tuple(_taken(arguments[0], item) for item in value) if good else value
    elif kind in (None, types.NoneType):
        good = value is None
    elif kind in (bool, str):
        good = isinstance(value, kind)
    elif kind in (int, float):
        good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        whole = good and value == int(value)
        value, good = int(value) if whole and kind is int else value, good and (whole or kind is float)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        good, value = isinstance(value, Mapping), _frozen(value)
    else:
        good, value = True, _frozen(value)
    if not good:
        raise TypeError
    return value


def _choices(kind: Any) -> Iterator[str]:
    """The texts that an annotation names."""
    for part in get_args(kind):
        yield from part if isinstance(part, OneOf) else _choices(part)


def _among(choices: Sequence[str], text: str) -> bool:
    return text in choices or text.lower() in choices


def _leaves(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += reversed(value)
        else:
            yield value


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples and its objects as FrozenDict, at every depth, so that modules hash and compare."""
    if isinstance(value, Mapping):
        return FrozenDict({key: _frozen(item) for key, item in value.items()})
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _words(kind: Any) -> str:
    """What an annotation asks for, as the end of a sentence."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated and isinstance(arguments[1], OneOf):
        return f"one of {', '.join(arguments[1])}"
    if origin is Annotated and get_origin(arguments[0]) is tuple:
        return f"a list {arguments[1].words}, each {_words(get_args(arguments[0])[0])}"
    if origin is Annotated:
        return f"{_words(arguments[0])} {arguments[1].words}"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in arguments)
    if origin is tuple:
        return f"a list{'' if arguments[-1] is ... else f' of {len(arguments)}'}, each {_words(arguments[0])}"
    if kind in (None, types.NoneType):
        return "null"
    names = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}
    return names.get(kind, "an object")
