"""Guidance: functions from networks to a network. A network is (x, t) -> out; a Partial's arguments are its data.

Guiders return `jax.tree_util.Partial`s, so scales and conditions are arguments of the compiled sampler: a new scale
or prompt compiles nothing, and all of it can be vmapped and differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff.sampling import Network

Conditional = Callable[[jax.Array, jax.Array, Any], jax.Array]
Guider = Callable[..., Network]  # (network, condition, negative, scale, *, rescale) -> network


class Sum(NamedTuple):
    """Conditions that add up to one, which guidance takes in the place of `condition` (Liu et al. 2022, eq. 11):

        positive = negative + sum_k weights[k] (positive[k] - negative)

    so that with one condition of weight 1 it is that one. All are seen in one call, beside the negative one.
    """

    conditions: tuple[Any, ...]
    weights: tuple[jax.Array, ...]  # numbers, or (b,) one for each sample


def classifier_free(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array | float,
    *,
    rescale: jax.Array | float = 0.0,
) -> Network:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6), both conditions in one call of twice the batch.

        out = negative + scale (positive - negative)

    Args:
        network: (x, t, condition) -> out, for example `Partial(f, params)`.
        condition, negative: trees of arrays (b, ...), the first also a `Sum` of such; without a negative one there is
            no guidance.
        scale: a number, or (b,) one for each sample; 1 is no guidance.
        rescale: 0 to 1, how far the deviation of `out` is brought back to that of the positive prediction (Lin et
            al. 2023, eq. 15-16), against overexposure.

    Where the network also predicts a variance (twice the channels of x), that half is the positive one's.
    """
    if negative is None:
        return given(network, condition)
    return Partial(_classifier_free, network, condition, negative, jnp.float32(scale), jnp.float32(rescale))


def adaptive_projected(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array | float,
    *,
    eta: jax.Array | float = 0.0,
    limit: jax.Array | float = jnp.inf,
    rescale: jax.Array | float = 0.0,
) -> Network:
    """Adaptive projected guidance, against oversaturation at high scales (Sadat et al. 2024, algorithm 1):

        d = min(1, limit / |positive - negative|) (positive - negative) = parallel + orthogonal to positive
        out = positive + (scale - 1) (orthogonal + eta parallel)

    Norms and projections are over a whole sample. With eta = 1 and no limit this is `classifier_free`. The paper's
    momentum needs memory from step to step, see `fdiff.sampling.steps`; `fdiff.pipelines.ace_step` guides with it.

    Args:
        eta: how much of the parallel part, which oversaturates, is kept.
        limit: of the norm of the difference.
        network, condition, negative, scale, rescale: see `classifier_free`.
    """
    if negative is None:
        return given(network, condition)
    numbers = (jnp.float32(scale), jnp.float32(eta), jnp.float32(limit), jnp.float32(rescale))
    return Partial(_adaptive_projected, network, condition, negative, *numbers)


def zero_star(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array | float,
    *,
    zero_from: jax.Array | float = jnp.inf,
    rescale: jax.Array | float = 0.0,
) -> Network:
    """CFG-Zero*, for networks that predict a velocity (Fan et al. 2025, eq. 6-8):

        s = <positive, negative> / |negative|^2
        out = s negative + scale (positive - s negative);  0 while t >= zero_from

    zero_from: t of the first step, or of the last one that is to be left out. The others as for `classifier_free`.
    """
    if negative is None:
        return given(network, condition)
    numbers = (jnp.float32(scale), jnp.float32(zero_from), jnp.float32(rescale))
    return Partial(_zero_star, network, condition, negative, *numbers)


def norm_limited(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array | float,
    *,
    limit: jax.Array | float = 1.0,
    rescale: jax.Array | float = 0.0,
) -> Network:
    """`classifier_free`, but no longer than `limit` times the positive prediction, as the authors of Lumina 2 and
    Z-Image guide (Qin et al. 2025, CFG-Renorm):

        out = negative + scale (positive - negative),  out min(1, limit |positive| / |out|)

    Norms are over a whole sample. The other arguments are those of `classifier_free`.
    """
    if negative is None:
        return given(network, condition)
    numbers = (jnp.float32(scale), jnp.float32(limit), jnp.float32(rescale))
    return Partial(_norm_limited, network, condition, negative, *numbers)


def as_long(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array | float,
    *,
    length: Callable[[jax.Array], jax.Array],
    rescale: jax.Array | float = 0.0,
) -> Network:
    """`classifier_free`, but every part is as long as that of the positive prediction:

        out = negative + scale (positive - negative),  out length(positive) / length(out)

    length: of a prediction (b, h, w, c) the norms of its parts, shaped to divide it. The other arguments are those of
    `classifier_free`.
    """
    if negative is None:
        return given(network, condition)
    numbers = (jnp.float32(scale), jnp.float32(rescale))
    return Partial(_as_long, Partial(length), network, condition, negative, *numbers)


def perturbed(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array | float,
    *,
    perturb: Callable[[Any, bool], Any],
    perturbed_scale: jax.Array | float = 3.0,
    rescale: jax.Array | float = 0.0,
) -> Network:
    """Guidance away from what the network says while a part of it is disturbed, in one call of three times the batch:

        out = negative + scale (positive - negative) + perturbed_scale (positive - perturbed)

    Perturbed-attention guidance (Ahn et al. 2024, eq. 16) where self-attention looks at itself alone, skip-layer
    guidance (Stability AI 2024) where blocks are left out: `perturb(condition, on)` is the condition under which the
    network does so, or does not. `fdiff.pipelines.denoise` has both for U-Nets. Without `negative`, the last term is
    added to `positive`.
    """
    scales = (jnp.float32(scale), jnp.float32(perturbed_scale), jnp.float32(rescale))
    negatives = () if negative is None else (perturb(negative, False),)
    return Partial(_perturbed, network, (perturb(condition, False), perturb(condition, True), *negatives), *scales)


def auto(network: Conditional, weak: Conditional, condition: Any, scale: jax.Array | float) -> Network:
    """Autoguidance: away from a weaker version of the network itself (Karras et al. 2024, eq. 3).

        out = weak + scale (network - weak), both under the same condition

    weak: a smaller, or less trained network, or this one with dropout.
    """
    return Partial(_auto, network, weak, condition, jnp.float32(scale))


def interval(guided: Network, plain: Network, low: jax.Array | float, high: jax.Array | float) -> Network:
    """Guide only while low <= t <= high (Kynkaanniemi et al. 2024); elsewhere `plain` is called alone."""
    return Partial(_interval, guided, plain, jnp.float32(low), jnp.float32(high))


def part(guided: Network, plain: Network, on: Any) -> Network:
    """Guide only where `on` is not 0, a `ByRow` of numbers or of booleans; elsewhere `plain` is called alone.

    This tells rows apart that share one t, which the `interval` does not: those of Heun's method, and of PNDM's start.
    Where either remembers, see `fdiff.sample`, the memory is a pair of theirs, None for one that does not.
    """
    return Partial(_part, guided, plain, on)


def composed(
    network: Conditional,
    conditions: Sequence[Any],
    weights: Sequence[jax.Array | float],
    *,
    rescale: jax.Array | float | None = None,
) -> Network:
    """A weighted sum of predictions under several conditions, in one call (Liu et al. 2022, eq. 11):

        out = sum_k weights[k] network(x, t, conditions[k])

    Weights are numbers, or (b,) one for each sample; they add up to 1. rescale: 0 to 1, how far the deviation of `out`
    is brought back to that of the first prediction, see `classifier_free`.
    """
    numbers = tuple(jnp.float32(weight) for weight in weights), None if rescale is None else jnp.float32(rescale)
    return Partial(_composed, network, tuple(conditions), *numbers)


def given(network: Conditional, condition: Any) -> Network:
    """The network under one condition, without guidance. Raises ValueError for a `Sum`, which is one with guidance."""
    if isinstance(condition, Sum):
        raise ValueError("conditions add up with guidance alone; give a negative one too")
    return Partial(_given, network, condition)


def _given(network: Conditional, condition: Any, x: jax.Array, t: jax.Array) -> jax.Array:
    return network(x, t, condition)


def _guided(without: jax.Array, positive: jax.Array, scale: jax.Array, rescale: jax.Array, x: jax.Array) -> jax.Array:
    return _rescale(without + _column(scale, x) * (positive - without), positive, rescale)


def _classifier_free(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array,
    rescale: jax.Array,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    without, positive, variance = two_predictions(network, condition, negative, x, t)
    return jnp.concatenate([_guided(without, positive, scale, rescale, x), variance], axis=-1)


def _adaptive_projected(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array,
    eta: jax.Array,
    limit: jax.Array,
    rescale: jax.Array,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    without, positive, variance = two_predictions(network, condition, negative, x, t)
    axes = tuple(range(1, x.ndim))
    difference = positive - without
    norm = jnp.sqrt(jnp.sum(difference**2, axes, keepdims=True))
    difference *= jnp.minimum(1.0, _column(limit, x) / jnp.maximum(norm, 1e-12))
    share = jnp.sum(difference * positive, axes, keepdims=True) / jnp.maximum(
        jnp.sum(positive**2, axes, keepdims=True), 1e-12
    )
    update = difference - (1 - _column(eta, x)) * share * positive
    guided = positive + (_column(scale, x) - 1) * update
    return jnp.concatenate([_rescale(guided, positive, rescale), variance], axis=-1)


def _zero_star(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array,
    zero_from: jax.Array,
    rescale: jax.Array,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    without, positive, variance = two_predictions(network, condition, negative, x, t)
    axes = tuple(range(1, x.ndim))
    dot, square = (jnp.sum(other * without, axes, keepdims=True) for other in (positive, without))
    without = dot / (square + 1e-8) * without
    guided = _guided(without, positive, scale, rescale, x)
    return jnp.concatenate([jnp.where(t >= zero_from, 0.0, guided), variance], axis=-1)


def _norm_limited(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array,
    limit: jax.Array,
    rescale: jax.Array,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    without, positive, variance = two_predictions(network, condition, negative, x, t)
    axes = tuple(range(1, x.ndim))
    guided = _guided(without, positive, scale, rescale, x)
    most, norm = (jnp.sqrt(jnp.sum(one**2, axes, keepdims=True)) for one in (positive, guided))
    guided *= jnp.minimum(1.0, _column(limit, x) * most / jnp.maximum(norm, 1e-12))
    return jnp.concatenate([guided, variance], axis=-1)


def _as_long(
    length: Callable[[jax.Array], jax.Array],
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array,
    rescale: jax.Array,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    without, positive, variance = two_predictions(network, condition, negative, x, t)
    guided = _guided(without, positive, scale, rescale, x)
    guided *= length(positive) / jnp.maximum(length(guided), 1e-12)
    return jnp.concatenate([guided, variance], axis=-1)


def _perturbed(
    network: Conditional,
    conditions: tuple[Any, ...],
    scale: jax.Array,
    perturbed_scale: jax.Array,
    rescale: jax.Array,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    positive, disturbed, *without = _predictions(network, conditions, x, t)
    guided = positive + _column(perturbed_scale, x) * (positive - disturbed)
    if without:
        guided += (_column(scale, x) - 1) * (positive - without[0])
    return _rescale(guided, positive, rescale)


def _auto(
    network: Conditional, weak: Conditional, condition: Any, scale: jax.Array, x: jax.Array, t: jax.Array
) -> jax.Array:
    strong, weaker = (one(x, t, condition).astype(jnp.float32) for one in (network, weak))
    return weaker + _column(scale, x) * (strong - weaker)


def two_predictions(
    network: Conditional, condition: Any, negative: Any, x: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(negative, positive, variance): the two predictions, and what the positive one says of the variance."""
    without, positive = _predictions(network, (negative, condition), x, t)
    positive, variance = jnp.split(positive, [x.shape[-1]], axis=-1)
    return without[..., : x.shape[-1]], positive, variance


def _composed(
    network: Conditional,
    conditions: tuple[Any, ...],
    weights: tuple[jax.Array, ...],
    rescale: jax.Array | None,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    outs = _predictions(network, conditions, x, t)
    total = sum((_column(weight, x) * out for weight, out in zip(weights, outs, strict=True)), start=jnp.float32(0))
    return total if rescale is None else _rescale(total, outs[0], rescale)


def _predictions(network: Conditional, conditions: Sequence[Any], x: jax.Array, t: jax.Array) -> list[jax.Array]:
    """What the network says under each condition, float32, in one call; a `Sum` is one with the first that is none."""
    parts = [part for one in conditions for part in (one.conditions if isinstance(one, Sum) else (one,))]
    out = network(_side_by_side(*[x] * len(parts)), t, jax.tree.map(_side_by_side, *parts))
    each = out.astype(jnp.float32).reshape(len(x), len(parts), *out.shape[1:])
    outs = iter([each[:, i] for i in range(len(parts))])
    said: list[Any] = [
        [next(outs) for _ in one.conditions] if isinstance(one, Sum) else next(outs) for one in conditions
    ]
    without: Any = next((out for out in said if not isinstance(out, list)), None)
    return [
        sum((_column(w, x) * (out - without) for w, out in zip(one.weights, found, strict=True)), start=without)
        if isinstance(one, Sum) else found
        for one, found in zip(conditions, said, strict=True)
    ]  # fmt: skip


def _side_by_side(*arrays: jax.Array) -> jax.Array:
    """(b, ...) each -> (k b, ...), the k rows of a sample together, so that sharded batches stay where they are."""
    every = jnp.stack(arrays, axis=1)
    return every.reshape(-1, *every.shape[2:])


def _interval(
    guided: Any, plain: Any, low: jax.Array, high: jax.Array, x: jax.Array, t: jax.Array, memory: Any = None
) -> Any:
    return _part(guided, plain, (low <= t) & (t <= high), x, t, memory)


def _part(guided: Any, plain: Any, on: Any, x: jax.Array, t: jax.Array, memory: Any = None) -> Any:
    def call(network: Any, k: int) -> Any:
        if memory is None:
            return network(x, t).astype(jnp.float32)
        out, own = (network(x, t), None) if memory[k] is None else network(x, t, memory[k])
        return out.astype(jnp.float32), (*memory[:k], own, *memory[k + 1 :])

    return jax.lax.cond(jnp.not_equal(on, 0), lambda: call(guided, 0), lambda: call(plain, 1))


IN_PART = (_interval, _part)  # what networks that call one of two others are made of, as their first arguments


def _rescale(guided: jax.Array, positive: jax.Array, rescale: jax.Array) -> jax.Array:
    axes = tuple(range(1, guided.ndim))
    ratio = jnp.std(positive, axes, keepdims=True) / jnp.maximum(jnp.std(guided, axes, keepdims=True), 1e-12)
    return guided * (_column(rescale, guided) * (ratio - 1) + 1)


def _column(value: jax.Array, x: jax.Array) -> jax.Array:
    """A number, or (b,) shaped to scale x."""
    return value.reshape(value.shape + (1,) * (x.ndim - 1)) if value.ndim else value
