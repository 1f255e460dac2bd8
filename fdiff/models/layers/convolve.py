"""Convolution, written so that XLA computes it quickly on a CPU too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.layers import winograd
from fdiff.models.layers.axes import merge, sharded
from fdiff.models.layers.bilinear import Map, bilinear, transposed

Padding = int | tuple[tuple[int, int], tuple[int, int]]
LARGE_KERNEL = 2**21  # numbers: 8 MB, more than the caches of a core hold
MANY_PIXELS, MANY_CHANNELS = 512, 32  # from which squares of pixels are quicker to convolve, too


@partial(jax.jit, static_argnames=("stride", "padding", "groups"))  # layers of equal shapes are traced and lowered once
def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = 0, groups: int = 1) -> jax.Array:
    """Convolution of x (b, h, w, in) with kernel (h, w, in / groups, out).

    `padding` is a number of zeros for every side, or ((top, bottom), (left, right)). Where a large kernel meets
    a small picture, a CPU gathers the patches and multiplies once: up to four times faster. Where each channel is
    convolved by itself, it adds up the taps of the kernel: about ten times faster.
    """
    pads = ((padding, padding),) * 2 if isinstance(padding, int) else padding

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def gather(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        height, width, channels, features = kernel.shape
        rows = (x.shape[1] - height) // stride + 1
        columns = (x.shape[2] - width) // stride + 1
        patches = [
            x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            for i in range(height)
            for j in range(width)
        ]
        patch = jnp.concatenate(patches, axis=-1)
        return jnp.dot(patch, kernel.reshape(height * width * channels, features))

    def channelwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        rows, columns = ((x.shape[axis] - kernel.shape[axis - 1]) // stride + 1 for axis in (1, 2))
        wide = kernel.astype(jnp.float32)
        taps = [
            x[:, i : i + stride * rows : stride, j : j + stride * columns : stride] * wide[i, j, 0]
            for i in range(kernel.shape[0])
            for j in range(kernel.shape[1])
        ]
        return sum(taps[1:], taps[0]).astype(x.dtype)

    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        positions = x.shape[0] * x.shape[1] * x.shape[2] // stride**2
        if groups == 1 and kernel.shape[:2] != (1, 1) and kernel.size >= LARGE_KERNEL and positions <= x.shape[-1]:
            return jax.lax.platform_dependent(x, kernel, cpu=gather, default=direct)
        if groups > 1 and groups == kernel.shape[-1]:
            return jax.lax.platform_dependent(x, kernel, cpu=channelwise, default=direct)
        return direct(x, kernel)

    size = kernel.shape[0]
    if (stride, groups) == (1, 1) and kernel.shape[1] == size and pads == ((size // 2,) * 2,) * 2 and size % 2:
        if size == 3 and x.dtype == jnp.float32 and not (x.shape[1] % 2 or x.shape[2] % 2 or sharded(x)):
            many = x.shape[0] * x.shape[1] * x.shape[2] >= MANY_PIXELS and min(kernel.shape[2:]) >= MANY_CHANNELS
            quick = winograd.convolve if many else None
            return bilinear(forward, winograd.gradient_of_input, winograd.gradient_of_kernel, quick)(x, kernel)
        to_kernel = partial(transposed, _in_rows, jax.typeof(kernel))
        return bilinear(forward, partial(_turning, direct), to_kernel)(x, kernel)
    return forward(x, kernel)


def _turning(convolve: Map, kernel: jax.Array, y: jax.Array) -> jax.Array:
    """The gradient for the input, as the convolution with the kernel turned around.

    JAX's has the axes of the kernel in an order that a CPU convolves slowly.
    """
    return convolve(y, kernel[::-1, ::-1].swapaxes(2, 3))


def _in_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution with zeros around, as one product for each row of the kernel."""
    size, _, channels, features = kernel.shape
    offsets = [size // 2 - i for i in range(size)]
    columns = jnp.concatenate([shift(x, by, 2) for by in offsets], axis=-1) if size > 1 else x
    rows = [
        jnp.dot(columns, row, preferred_element_type=jnp.float32)
        for row in kernel.reshape(size, size * channels, features)
    ]
    moved = [shift(row, by, 1) if by else row for row, by in zip(rows, offsets, strict=True)]
    return sum(moved[1:], moved[0]).astype(x.dtype)


def upsample(x: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
    """Nearest neighbours: (b, h, w, c) -> (b, 2 h, 2 w, c), or to `size`."""
    batch, height, width, channels = x.shape
    if size is not None and size != (2 * height, 2 * width):
        rows = np.arange(size[0]) * height // size[0]
        columns = np.arange(size[1]) * width // size[1]
        return x[:, rows][:, :, columns]
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return merge(x, 1, 2)


@jax.jit
def upsample_and_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """convolve(upsample(x), kernel, padding=1) for a 3x3 kernel: (b, h, w, in) -> (b, 2 h, 2 w, out).

    A CPU multiplies before it doubles, which is a quarter of the work: a pixel of the result adds up nine
    products of the kernel's taps with its neighbours in the small picture.
    """
    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(
            x, kernel, cpu=_multiply_first, default=lambda x, kernel: convolve(upsample(x), kernel, padding=1)
        )

    def to_x(kernel: jax.Array, y: jax.Array) -> jax.Array:
        return transposed(lambda kernel, x: _multiply_once(x, kernel), like, kernel, y)

    like = jax.typeof(x)
    return bilinear(forward, to_x, partial(transposed, _multiply_once, jax.typeof(kernel)))(x, kernel)


def _multiply_first(x: jax.Array, kernel: jax.Array) -> jax.Array:
    def tap(i: int, j: int) -> jax.Array:
        return jnp.dot(x, kernel[i, j], preferred_element_type=jnp.float32)

    return _spread([[tap(i, j) for j in range(3)] for i in range(3)]).astype(x.dtype)


def _multiply_once(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same with one product, whose transpose is one as well."""
    taps = jnp.dot(x, merge(kernel.transpose(2, 0, 1, 3), 1, 1), preferred_element_type=jnp.float32)
    nine = jnp.split(taps, 9, axis=-1)
    return _spread([nine[:3], nine[3:6], nine[6:]]).astype(x.dtype)


def _spread(taps: list[list[jax.Array]]) -> jax.Array:
    """Add up the products (b, h, w, c) of a kernel's rows and columns where they belong: (b, 2 h, 2 w, c)."""
    def even_and_odd(taps: list[jax.Array], axis: int) -> tuple[jax.Array, jax.Array]:
        # Rows 2i and 2i + 1 of the doubled picture see its rows 2i - 1 to 2i + 2: i - 1, i, i, i + 1 of the small.
        before, middle, after = taps
        return shift(before, 1, axis) + middle + after, before + middle + shift(after, -1, axis)

    columns = [even_and_odd(row, 2) for row in taps]
    even = even_and_odd([column[0] for column in columns], 1)
    odd = even_and_odd([column[1] for column in columns], 1)
    y = jnp.stack([jnp.stack(rows, axis=3) for rows in zip(even, odd, strict=True)], axis=2)
    return merge(y, 1, 2)  # (b, h, 2, w, 2, c)


def shift(x: jax.Array, by: int, axis: int) -> jax.Array:
    """Move by so many places along an axis, zeros moving in."""
    pads = [(0, 0, 0)] * x.ndim
    pads[axis] = (by, -by, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)
