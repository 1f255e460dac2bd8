"""What adapters add to a parameter, by their method, and how the tensors of a file say it; all in torch's layout.

    LoRA         Factors     alpha / rank * up @ down                               Hu et al. 2022
    LoHa         Hadamard    alpha / rank * (up @ down) * (up_2 @ down_2)           Hyeon-Woo et al. 2022, eq. 2
    LoKr         Kronecker   scale * kron(first, second)                            Yeh et al. 2024, section 3.3
    differences  Whole       the difference itself: of a weight, a bias, a norm

Convolutions in Tucker's (CP) form have a middle between up and down, which becomes one with down.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
Shape = tuple[int, ...]


class Factors(NamedTuple):
    """What is added to a layer's weight: alpha / rank * up @ down (Hu et al. 2022), in torch's layout.

    With a dora_scale the sum is then normalized, for each output or for each input, and multiplied by it
    (Liu et al. 2024).
    """

    down: np.ndarray  # (rank, in) or (rank, in, h, w)
    up: np.ndarray  # (out, rank) or (out, rank, 1, 1)
    alpha: float
    dora_scale: np.ndarray | None = None  # (out, 1) or (1, in), and (..., 1, 1) for convolutions

    @property
    def rank(self) -> int:
        """The number between down and up."""
        return self.down.shape[0]

    @property
    def shape(self) -> Shape:
        """That of the weight."""
        return (self.up.shape[0], *self.down.shape[1:])


class Hadamard(NamedTuple):
    """LoHa: alpha / rank * (up @ down) * (up_2 @ down_2), the second product number by number."""

    down: np.ndarray  # shapes as in Factors
    up: np.ndarray
    down_2: np.ndarray
    up_2: np.ndarray
    alpha: float
    dora_scale: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """The number between down and up."""
        return self.down.shape[0]

    @property
    def shape(self) -> Shape:
        """That of the weight."""
        return (self.up.shape[0], *self.down.shape[1:])


class Kronecker(NamedTuple):
    """LoKr: scale * kron(first, second), the second a matrix, or (up, down) whose product it is."""

    first: np.ndarray  # (a, b)
    second: np.ndarray | tuple[np.ndarray, np.ndarray]  # (out / a, in / b) or (out / a, in / b, h, w)
    scale: float
    dora_scale: np.ndarray | None = None

    @property
    def inner(self) -> Shape:
        """The shape of the second matrix."""
        if not isinstance(self.second, tuple):
            return self.second.shape
        up, down = self.second
        return (up.shape[0], *down.shape[1:])

    @property
    def shape(self) -> Shape:
        """That of the weight."""
        (a, b), (c, d, *rest) = self.first.shape, self.inner
        return (a * c, b * d, *rest)


class Whole(NamedTuple):
    """A difference of all numbers of a parameter."""

    difference: np.ndarray
    scale: float = 1.0

    @property
    def shape(self) -> Shape:
        """That of the parameter."""
        return self.difference.shape

    @property
    def dora_scale(self) -> None:
        """It has none."""
        return None


class Part(NamedTuple):
    """Some rows of a change whose own numbers are of all rows."""

    of: Kronecker
    rows: np.ndarray  # (n,), which ones
    dora_scale: np.ndarray | None = None

    @property
    def shape(self) -> Shape:
        """That of the parameter."""
        return (len(self.rows), *self.of.shape[1:])


Read = Factors | Hadamard | Kronecker | Whole
Change = Read | Part

# The parts that files hold of each method, besides alpha, scalar and dora_scale, which several have.
LORA = ("down", "up", "mid", "bias")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
DIFFERENCE = ("diff",)
METHODS = {"LoRA": LORA, "LoHa": LOHA, "LoKr": LOKR, "difference": DIFFERENCE}


def method(part: str) -> str | None:
    """The method that a part belongs to, None where several have it."""
    return next((known for known, parts in METHODS.items() if part in parts), None)


def name(one: Change) -> str:
    """What people call the method of a change."""
    return {Factors: "LoRA", Hadamard: "LoHa", Kronecker: "LoKr", Whole: "difference", Part: "LoKr"}[type(one)]


def missing(arrays: Arrays) -> str | None:
    """The first part that a change lacks, or None."""
    return next((part for part in _wanted(arrays) if part not in arrays), None)


def surplus(arrays: Arrays) -> str | None:
    """The first part that goes with none of the others, or None."""
    known = {*_wanted(arrays), "alpha", "scalar"}
    if "down" in known:
        known |= {"mid", "bias"}
    if "diff" not in known:
        known |= {"dora_scale", "lora_magnitude_vector"}
    return next((part for part in arrays if part not in known), None)


def _wanted(arrays: Arrays) -> list[str]:
    """The parts without which those that are there mean nothing."""
    if "diff" in arrays:
        return ["diff"]
    if any(part in arrays for part in LOHA):
        return [*LOHA[:4], *(LOHA[4:] if "hada_t1" in arrays or "hada_t2" in arrays else ())]
    if not any(part in arrays for part in LOKR):
        return ["down", "up"]
    found: list[str] = []
    for whole in ("lokr_w1", "lokr_w2"):
        found += [whole] if whole in arrays else [f"{whole}_a", f"{whole}_b"]
    return [*found, "lokr_t2"] if "lokr_t2" in arrays and "lokr_w2" not in arrays else found


def change(arrays: Arrays, shape: Shape) -> Read:
    """What the parts of one parameter of that shape say, unscaled.

    Raises ValueError, the middle of a sentence, where shapes differ.
    """
    if "diff" in arrays:
        difference = arrays["diff"]
        if [size for size in difference.shape if size > 1] != [size for size in shape if size > 1]:
            raise ValueError(f"has a difference of shape {difference.shape}")
        return Whole(difference.reshape(shape))
    if len(shape) < 2:
        raise ValueError("has factors of a matrix")
    if "hada_w1_a" in arrays:
        up, down = _pair(arrays["hada_w1_a"], arrays["hada_w1_b"], arrays.get("hada_t1"), shape)
        up_2, down_2 = _pair(arrays["hada_w2_a"], arrays["hada_w2_b"], arrays.get("hada_t2"), shape)
        return Hadamard(down, up, down_2, up_2, float(len(down)), _dora_scale(arrays, shape))
    if any(part in arrays for part in LOKR):
        return _kronecker(arrays, shape)
    return _factors(arrays, shape)


def rank(arrays: Arrays) -> int | None:
    """The rank by which alpha is divided, None for two whole matrices of LoKr, and for differences."""
    for part in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if part in arrays and arrays[part].ndim:
            return len(arrays[part])
    return None


def strengthened(one: Read, alpha: float | None, rank: int | None, scalar: float) -> Read:
    """The change with that alpha over that rank, as it is without either, and times a scalar."""
    if isinstance(one, Factors | Hadamard):
        return one._replace(alpha=(one.alpha if alpha is None else alpha) * scalar)
    return one._replace(scale=alpha / rank * scalar if alpha is not None and rank else scalar)


def taken(one: Change, rows: np.ndarray) -> Change:
    """The change of these rows of the parameter alone.

    Raises ValueError, the middle of a sentence, for a DoRA by inputs of some rows, whose norms are of all of them.
    """
    dora = one.dora_scale
    if dora is not None and dora.shape[0] > 1:
        dora = dora[rows]
    elif dora is not None and len(rows) < one.shape[0]:
        raise ValueError("has a dora_scale for each input of a stack")
    if isinstance(one, Factors):
        return one._replace(up=one.up[rows], dora_scale=dora)
    if isinstance(one, Hadamard):
        return one._replace(up=one.up[rows], up_2=one.up_2[rows], dora_scale=dora)
    if isinstance(one, Kronecker):
        return Part(one._replace(dora_scale=None), rows, dora)
    if isinstance(one, Whole):
        return one._replace(difference=one.difference[rows])
    return one._replace(rows=one.rows[rows], dora_scale=dora)


def _factors(arrays: Arrays, shape: Shape) -> Factors:
    down, up = arrays["down"], arrays["up"]
    if down.ndim < 2 or up.ndim < 2 or 0 in (*down.shape, *up.shape):
        raise ValueError(f"has shapes {down.shape} and {up.shape}")
    if "mid" in arrays:  # a convolution between two of size 1: down and mid are one
        mid = arrays["mid"]
        if mid.ndim != 4 or mid.shape[:2] != (len(down), len(down)):
            raise ValueError(f"has a lora_mid of shape {mid.shape} beside {down.shape}")
        down = _joined(mid, down.reshape(down.shape[0], -1))
    count = down.shape[0]
    ones = (1,) * (len(shape) - 2)
    if down.ndim == 2 or down.shape[2:] == (1, 1):
        down = down.reshape(*down.shape[:2], *ones)
    if up.ndim == 2 or up.shape[2:] == (1, 1):
        up = up.reshape(*up.shape[:2], *ones)
    if down.shape != (count, *shape[1:]) or up.shape != (shape[0], count, *ones):
        raise ValueError(f"has shapes {down.shape} and {up.shape}")
    return Factors(down, up, float(count), _dora_scale(arrays, shape))


def _pair(a: np.ndarray, b: np.ndarray, middle: np.ndarray | None, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """(up, down) of a product: (out, rank) and (rank, in h w); or (rank, out), (rank, in) around a middle."""
    given = [x.shape for x in (a, b, middle) if x is not None]
    wrong = ValueError(f"has shapes {' and '.join(map(str, given))}")
    if a.ndim != 2 or b.ndim != 2 or 0 in (*a.shape, *b.shape):
        raise wrong
    if middle is not None:
        if middle.shape != (len(a), len(b), *shape[2:]) or (a.shape[1], b.shape[1]) != shape[:2]:
            raise wrong
        a, b = a.T, _joined(middle, b)
    count = a.shape[1]
    if len(a) != shape[0] or len(b) != count or b.size != count * math.prod(shape[1:]):
        raise wrong
    return a.reshape(*a.shape, *(1,) * (len(shape) - 2)), b.reshape(count, *shape[1:])


def _joined(middle: np.ndarray, down: np.ndarray) -> np.ndarray:
    joined: np.ndarray = np.einsum("rs...,si->ri...", middle, down).astype(down.dtype)
    return joined


def _kronecker(arrays: Arrays, shape: Shape) -> Kronecker:
    first = arrays["lokr_w1"] if "lokr_w1" in arrays else _matrix(arrays["lokr_w1_a"], arrays["lokr_w1_b"])
    if first.ndim != 2 or 0 in first.shape or shape[0] % len(first) or shape[1] % first.shape[1]:
        raise ValueError(f"has a first matrix of shape {first.shape}")
    inner = (shape[0] // len(first), shape[1] // first.shape[1], *shape[2:])
    if "lokr_w2" not in arrays:
        second = _pair(arrays["lokr_w2_a"], arrays["lokr_w2_b"], arrays.get("lokr_t2"), inner)
        return Kronecker(first, second, 1.0, _dora_scale(arrays, shape))
    whole = arrays["lokr_w2"]
    if whole.size != math.prod(inner) or whole.shape[:1] != inner[:1]:
        raise ValueError(f"has matrices of shapes {first.shape} and {whole.shape}")
    return Kronecker(first, whole.reshape(inner), 1.0, _dora_scale(arrays, shape))


def _matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != len(b):
        raise ValueError(f"has shapes {a.shape} and {b.shape}")
    product: np.ndarray = a.astype(np.float32) @ b.astype(np.float32)
    return product


def _dora_scale(arrays: Arrays, shape: Shape) -> np.ndarray | None:
    """The numbers by outputs or by inputs, which the shape tells in all dialects but peft's."""
    scale = arrays.get("lora_magnitude_vector", arrays.get("dora_scale"))
    if scale is None:
        return None
    by_input = "dora_scale" in arrays and scale.ndim > 1 and scale.shape[:2] == (1, shape[1])
    if scale.size != shape[1 if by_input else 0]:
        raise ValueError(f"has a dora_scale of shape {scale.shape}")
    ones = (1,) * (len(shape) - 2)
    return scale.reshape(*((1, -1) if by_input else (-1, 1)), *ones)
