"""Pictures as sequences of square patches, and back."""

import jax


def to_patches(x: jax.Array, size: int) -> jax.Array:
    """(b, h, w, c) -> (b, h w / size^2, size^2 c), from left to right and down; in a patch, rows, columns, channels."""
    batch, height, width, channels = x.shape
    if height % size or width % size:
        raise ValueError(f"{height} x {width} cannot be cut into patches of {size} x {size}; use multiples of {size}.")
    x = x.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
    return x.reshape(batch, -1, size * size * channels)


def from_patches(x: jax.Array, height: int, width: int, size: int) -> jax.Array:
    """The inverse of `to_patches`: (b, h w / size^2, size^2 c) -> (b, h, w, c)."""
    x = x.reshape(x.shape[0], height // size, width // size, size, size, -1).swapaxes(2, 3)
    return x.reshape(x.shape[0], height, width, -1)
