"""Convolutions in squares of pixels, and their gradients, with fewer multiplications than a kernel has numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.layers.axes import merge

# F(2, 3) of Winograd (1980): OF_PRODUCTS ((OF_KERNEL k) (OF_LINE x)) are the two values that a kernel of three numbers
# gives of a line of four, with four products instead of six. A row of OF_LINE is x[FIRST] + SIGN x[SECOND].
FIRST, SECOND, SIGN = np.array([0, 1, 2, 1]), np.array([2, 2, 1, 3]), np.array([-1, 1, -1, -1])
OF_KERNEL = np.array([(1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)])
OF_PRODUCTS = np.array([(1, 1, 1, 0), (0, 1, -1, -1)])


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution with one zero around, (b, h, w, out), of x (b, h, w, in) with kernel (3, 3, in, out).

    Sixteen products of matrices for the squares of 2 x 2 pixels instead of 36 (Lavin and Gray 2016, section 4.1), whose
    sums round as those of the convolution do; h and w are even.
    """
    return _of_taps(x, _both(OF_KERNEL, kernel), 2)


def gradient_of_input(kernel: jax.Array, y: jax.Array) -> jax.Array:
    """The gradient of sum(convolve(x, kernel) * y) for x, from kernel and y (b, h, w, out)."""
    return _of_taps(y, _both(OF_KERNEL[:, ::-1], kernel), 3)


def gradient_of_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    """The same for the kernel, from x and y."""
    batch, height, width, features = y.shape
    pairs = y.reshape(batch, height // 2, 2, width // 2, 2, features).transpose(2, 4, 0, 1, 3, 5)
    of_y = _both(OF_PRODUCTS.T, pairs).reshape(16, -1, features)
    products = jax.lax.dot_general(_squares(x), of_y, (((1,), (1,)), ((0,), (0,))))
    return _both(OF_KERNEL.T, products.reshape(4, 4, *products.shape[1:]))


def _of_taps(x: jax.Array, taps: jax.Array, axis: int) -> jax.Array:
    """The products of the squares of x with what is made of a kernel, whose channels of that axis are those of x."""
    batch, height, width, _ = x.shape
    products = jax.lax.dot_general(_squares(x), merge(taps, 0), (((2,), (axis - 1,)), ((0,), (0,))))
    y = _both(OF_PRODUCTS, products.reshape(4, 4, batch, height // 2, width // 2, -1))
    return merge(y.transpose(2, 3, 0, 4, 1, 5), 1, 2)


def _squares(x: jax.Array) -> jax.Array:
    """What is made of the overlapping squares of 4 x 4 pixels of x (b, h, w, c): (16, b h w / 4, c)."""
    _, height, width, channels = x.shape
    for axis in (1, 2):  # joined and not padded, so that what made x is not computed again for each of its uses
        border = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
        x = jnp.concatenate([border, x, border], axis=axis)
    sign, (rows, columns) = SIGN.astype(x.dtype), (2 * np.arange(size // 2) for size in (height, width))
    x = x[:, FIRST[:, None] + rows] + sign[:, None, None, None] * x[:, SECOND[:, None] + rows]
    x = x[:, :, :, FIRST[:, None] + columns] + sign[:, None, None] * x[:, :, :, SECOND[:, None] + columns]
    return x.transpose(1, 3, 0, 2, 4, 5).reshape(16, -1, channels)  # from (b, 4, h / 2, 4, w / 2, c)


def _both(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """matrix x matrix^T of the first two axes, as one product."""
    y = jnp.dot(np.kron(matrix, matrix).astype(x.dtype), x.reshape(matrix.shape[1] ** 2, -1))
    return y.reshape(*matrix.shape[:1] * 2, *x.shape[2:])
