"""Pictures as sequences of square patches, and back."""

import jax

from fdiff.models.layers.axes import merge, split


def unshuffle(x: jax.Array, factor: int) -> jax.Array:
    """(b, h f, w f, c) -> (b, h, w, c f f): each square of pixels becomes the channels of one."""
    return merge(split(x, factor, 1, 2).transpose(0, 1, 3, 5, 2, 4), 3, 3)


def shuffle(x: jax.Array, factor: int) -> jax.Array:
    """The inverse of `unshuffle`: (b, h, w, c f f) -> (b, h f, w f, c)."""
    x = x.reshape(*x.shape[:3], -1, factor, factor)
    return merge(x.transpose(0, 1, 4, 2, 5, 3), 1, 2)


def to_patches(x: jax.Array, size: int) -> jax.Array:
    """(b, h, w, c) -> (b, h w / size^2, size^2 c), from left to right and down; in a patch, rows, columns, channels."""
    height, width = x.shape[1:3]
    if height % size or width % size:
        raise ValueError(f"{height} x {width} cannot be cut into patches of {size} x {size}; use multiples of {size}.")
    return merge(split(x, size, 1, 2).swapaxes(2, 3), 1, 2, 2)


def from_patches(x: jax.Array, height: int, width: int, size: int) -> jax.Array:
    """The inverse of `to_patches`: (b, h w / size^2, size^2 c) -> (b, h, w, c)."""
    x = split(x, width // size, 1)
    return merge(x.reshape(*x.shape[:3], size, size, -1).swapaxes(2, 3), 1, 2)


def packed(x: jax.Array, size: int) -> jax.Array:
    """`to_patches`, but in a patch channels, rows, columns, as FLUX has them."""
    patches = split(to_patches(x, size), x.shape[-1], 2)
    return merge(patches.swapaxes(2, 3), 2)


def unpacked(x: jax.Array, height: int, width: int, size: int) -> jax.Array:
    """The inverse of `packed`: (b, h w / size^2, c size^2) -> (b, h, w, c)."""
    return from_patches(merge(split(x, size**2, 2).swapaxes(2, 3), 2), height, width, size)
