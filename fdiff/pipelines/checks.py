"""What a user gives a pipeline, checked before the first step; and what a network gives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def numeric(array: np.ndarray) -> bool:
    """Whether an array holds real numbers, JAX's small floats included, and all of them are finite."""
    real = array.dtype.kind in "iu" or jnp.issubdtype(array.dtype, jnp.floating)
    return real and bool(np.isfinite(array.astype(np.float64)).all())


def check_scale(name: str, scale: Any, batch_size: int | None = None) -> None:
    """Raise ValueError unless it is a number, or one for each picture; a traced one is left alone."""
    if isinstance(scale, jax.core.Tracer):
        return
    values = np.asarray(scale)
    if values.ndim > 1 or not numeric(values):
        raise ValueError(f"{name} is {scale!r}; it must be a number, such as 7.5, or one for each picture")
    if batch_size is not None and values.ndim and len(values) != batch_size:
        raise ValueError(f"{name} has {len(values)} numbers for {batch_size} pictures; pass one, or one for each")


def asks_guidance(
    scale: Any, batch_size: int | None = None, *, above: float = 1, name: str = "guidance_scale"
) -> bool:
    """Whether a guidance scale asks for a second prediction; a traced one may. Raises ValueError as `check_scale`."""
    check_scale(name, scale, batch_size)
    return isinstance(scale, jax.core.Tracer) or bool(np.any(np.asarray(scale) > above))


def one_of(prompt: Any, prompt_embeds: Any, name: str = "prompt") -> None:
    """Raise ValueError for both."""
    if prompt is not None and prompt_embeds is not None:
        raise ValueError(f"both {name} and {name}_embeds are given; pass one of them")


def either(prompt: Any, prompt_embeds: Any) -> None:
    """Raise ValueError for none, and for both."""
    if (prompt is None) == (prompt_embeds is None):
        raise ValueError("pass either prompt or prompt_embeds" + (", not both" if prompt is not None else ""))


def finite(name: str, array: Any) -> Any:
    """The user's array. Raises ValueError where some of its numbers are not finite, unless it is traced."""
    if not isinstance(array, jax.core.Tracer) and not np.isfinite(np.asarray(array, np.float32)).all():
        raise ValueError(f"{name} holds numbers that are not finite; look for NaN and infinity in it")
    return array


def check_finite(x: jax.Array) -> None:
    """Raise ValueError for NaN and infinity; a traced array is left alone."""
    if not isinstance(x, jax.core.Tracer) and not bool(jnp.isfinite(x).all()):
        raise ValueError(
            "the network gave values that are not finite; compute in float32 or bfloat16 instead of float16, "
            "or lower the guidance scale"
        )
