"""The rule of layouts, and that Flax computes what torch does with what the rule gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert import layout


def test_names():
    assert layout.torch_name(("mid_block", "resnets.0", "conv1", "kernel")) == "mid_block.resnets.0.conv1.weight"
    assert layout.torch_name(("norm", "scale")) == layout.torch_name(("norm", "embedding")) == "norm.weight"
    assert layout.torch_name(("time_proj", "weight")) == "time_proj.weight"
    assert layout.torch_name(("class_embedding",)) == "class_embedding"


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_there_and_back(shape):
    torch_array = np.arange(np.prod(shape)).reshape(shape)
    for leaf in ("kernel", "scale", "embedding", "bias"):
        array = layout.from_torch(("x", leaf), torch_array)
        assert layout.torch_shape(("x", leaf), array.shape) == tuple(shape)
        np.testing.assert_array_equal(layout.to_torch(("x", leaf), array), torch_array)
    assert layout.from_torch(("x", "kernel"), torch_array).shape == (*shape[2:], shape[1], shape[0])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.lists(st.sampled_from([1, 5, layout.TILE - 1, layout.TILE, layout.TILE + 3]), min_size=2, max_size=2),
    st.sampled_from(["float32", "float16", "bfloat16", "int64", "bool", "complex128"]),
)
def test_a_copy_is_row_major_aligned_and_equal(leading, matrix, dtype):
    numbers = np.random.default_rng(0).integers(0, 100, (*matrix[::-1], *leading[::-1]))
    turned = numbers.astype(jnp.dtype(dtype)).T
    copy = layout.copied(turned, turned.dtype)
    assert copy.flags.c_contiguous and copy.ctypes.data % layout.ALIGNMENT == 0 and not np.shares_memory(copy, turned)
    assert copy.dtype == turned.dtype
    np.testing.assert_array_equal(copy, turned)
    np.testing.assert_array_equal(layout.copied(numbers.T.astype(np.float32), jnp.bfloat16), numbers.T)


def test_a_number_alone_is_copied():
    copy = layout.copied(np.float16(1.5).reshape(()), np.float32)
    assert copy.shape == () and copy == 1.5 and copy.dtype == np.float32


@pytest.mark.parity
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Conv2d", {"kernel_size": 3, "padding": 1, "stride": 2}),
        ("Conv2d", {"kernel_size": (3, 5), "groups": 2}),
        ("Conv1d", {"kernel_size": 5, "dilation": 2}),
        ("Conv3d", {"kernel_size": (1, 3, 3)}),
        ("ConvTranspose2d", {"kernel_size": 4, "stride": 2, "padding": 1}),
        ("ConvTranspose1d", {"kernel_size": 5, "stride": 3, "padding": 1}),
    ],
)
def test_convolutions_against_torch(kind, options):
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind)(4, 6, bias=False, **options)
    axes = module.weight.ndim - 2
    x = torch.randn(2, 4, *[11] * axes)
    with torch.no_grad():
        expected = module(x).movedim(1, -1).numpy()
    kernel = layout.from_torch(("kernel",), module.weight.detach().numpy())
    spatial = "DHW"[-axes:]
    dimensions = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    inputs = x.movedim(1, -1).numpy()
    if "Transpose" in kind:
        pads = [(size - 1 - pad,) * 2 for size, pad in zip(module.kernel_size, module.padding, strict=True)]
        found = jax.lax.conv_transpose(
            inputs, kernel, module.stride, pads, dimension_numbers=dimensions, transpose_kernel=True
        )
    else:
        found = jax.lax.conv_general_dilated(
            inputs,
            kernel,
            module.stride,
            [(pad, pad) for pad in module.padding],
            rhs_dilation=module.dilation,
            dimension_numbers=dimensions,
            feature_group_count=module.groups,
        )
    np.testing.assert_allclose(found, expected, atol=1e-5)
