"""Convolutions of sequences."""

import numpy as np
import pytest

from fdiff.models.layers.conv1d import convolve_transposed


@pytest.mark.parametrize(("length", "channels"), [(3, 8), (9, 4)])  # where the kernel is larger, and where x is
@pytest.mark.parametrize(("size", "stride", "padding", "more"), [
    (4, 2, 1, 0), (5, 2, 2, 1), (3, 1, 0, 0), (7, 3, 1, 2),
])
def test_each_number_adds_the_kernel_at_its_place(length, channels, size, stride, padding, more):
    random = np.random.default_rng(0)
    x, kernel = random.standard_normal((2, length, channels)), random.standard_normal((size, 3, channels))
    whole = np.zeros((2, (length - 1) * stride + size + more, 3))
    for i in range(length):
        whole[:, i * stride : i * stride + size] += np.einsum("bi,koi->bko", x[:, i], kernel)
    wanted = whole[:, padding : (length - 1) * stride + size - padding + more]
    got = convolve_transposed(x.astype(np.float32), kernel.astype(np.float32), stride, padding, more)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
