import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models.layers import convolve as module
from fdiff.models.layers.convolve import convolve, upsample, upsample_and_convolve
from tests.models.compare import assert_close


def arrays(*shapes):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def gradients(function, *inputs):
    return jax.jit(jax.grad(lambda x: jnp.square(function(*x)).sum()))(inputs)


@pytest.mark.parametrize("stride, padding", [(1, 1), (2, 1), (2, ((0, 1), (0, 1))), (1, 0), (3, 2)])
def test_gathered_patches_are_a_convolution(monkeypatch, stride, padding):
    x, kernel = arrays((1, 5, 4, 48), (3, 3, 48, 5))
    expected = convolve(x, kernel, stride, padding)
    expected_gradients = gradients(lambda x, kernel: convolve(x, kernel, stride, padding), x, kernel)
    monkeypatch.setattr(module, "LARGE_KERNEL", 1)
    convolve.clear_cache()
    assert "conv_general_dilated" not in jax.jit(convolve, static_argnums=(2, 3)).lower(
        x, kernel, stride, padding
    ).as_text("hlo")
    assert_close(convolve(x, kernel, stride, padding), expected, 1e-5)
    for actual, wanted in zip(
        gradients(lambda x, kernel: convolve(x, kernel, stride, padding), x, kernel), expected_gradients, strict=True
    ):
        assert_close(actual, wanted, 1e-5)
    convolve.clear_cache()


@pytest.mark.parametrize("stride, size", [(1, 3), (2, 3), (1, 5)])
def test_channels_by_themselves(stride, size):
    x, kernel = arrays((2, 6, 8, 12), (size, size, 1, 12))

    def wanted(x, kernel):
        pads = ((size // 2, size // 2),) * 2
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=names, feature_group_count=12
        )

    def found(x, kernel):
        return convolve(x, kernel, stride, size // 2, 12)

    assert_close(found(x, kernel), wanted(x, kernel), 1e-5)
    for actual, expected in zip(gradients(found, x, kernel), gradients(wanted, x, kernel), strict=True):
        assert_close(actual, expected, 1e-5)
    half = found(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert_close(half, wanted(x, kernel), 0.02)


def test_multiplying_before_doubling():
    x, kernel = arrays((2, 3, 4, 6), (3, 3, 6, 5))

    def after(x, kernel):
        return convolve(upsample(x), kernel, padding=1)

    assert_close(jax.jit(upsample_and_convolve)(x, kernel), after(x, kernel), 1e-5)
    for actual, expected in zip(gradients(upsample_and_convolve, x, kernel), gradients(after, x, kernel), strict=True):
        assert_close(actual, expected, 1e-5)
    half = upsample_and_convolve(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert_close(half, after(x, kernel), 0.02)


def test_upsample_to_a_size():
    (x,) = arrays((1, 2, 3, 1))
    np.testing.assert_array_equal(upsample(x)[0, :, :, 0], x[0, :, :, 0].repeat(2, 0).repeat(2, 1))
    expected = x[0, [0, 0, 1]][:, [0, 0, 1, 1, 2]]
    np.testing.assert_array_equal(upsample(x, (3, 5))[0], expected)


def plain(x, kernel):
    """JAX's own convolution with zeros around, whose derivatives are JAX's own too."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def padded(x, kernel):
    return convolve(x, kernel, padding=kernel.shape[0] // 2)


CASES = [(padded, plain, 1), (padded, plain, 3), (padded, plain, 5),
         (upsample_and_convolve, lambda x, kernel: plain(upsample(x), kernel), 3)]


@pytest.mark.parametrize("height", [5, 6])  # an even one takes another way
@pytest.mark.parametrize("function, wanted, size", CASES)
def test_derivatives_of_every_kind(function, wanted, size, height):
    x, kernel, dx, dkernel = arrays((2, height, 4, 3), (size, size, 3, 7), (2, height, 4, 3), (size, size, 3, 7))

    def forward(function):
        return jax.jvp(function, (x, kernel), (dx, dkernel))[1]

    def second(function):
        return jax.grad(lambda x: sum(jnp.square(one).sum() for one in gradients(function, x, kernel)))(x)

    def over_samples(function):
        one = jax.grad(lambda x, kernel: jnp.square(function(x[None], kernel)).sum(), argnums=1)
        return jax.vmap(one, in_axes=(0, None))(x, kernel)

    assert_close(function(x, kernel), wanted(x, kernel), 1e-5)
    for of in (forward, second, over_samples):
        assert_close(of(function), of(wanted), 1e-5)
    for actual, expected in zip(gradients(function, x, kernel), gradients(wanted, x, kernel), strict=True):
        assert_close(actual, expected, 1e-5)
    few_bits = gradients(function, *(jnp.asarray(array, jnp.bfloat16) for array in (x, kernel)))
    for actual, expected in zip(few_bits, gradients(wanted, x, kernel), strict=True):
        assert actual.dtype == jnp.bfloat16
        assert_close(actual.astype(jnp.float32), expected, 0.03)


@pytest.mark.parametrize("size, of_x, of_kernel", [(8, (3, 1), (3, 1)), (9, (0, 2), (3, 1))])
def test_what_a_gradient_computes(size, of_x, of_kernel):
    """No convolution with a kernel as large as the picture, and nothing for what is not trained."""
    x, kernel = arrays((2, size, size, 4), (3, 3, 4, 6))

    def counts(of):
        program = jax.jit(jax.grad(lambda *inputs: jnp.square(padded(*inputs)).sum(), of)).lower(x, kernel).as_text()
        return program.count("stablehlo.dot_general"), program.count("stablehlo.convolution")

    assert counts(0) == of_x and counts(1) == of_kernel


def test_the_way_to_a_gradient_takes_squares_of_pixels_too():
    x, kernel, dx = arrays((2, 16, 16, 32), (3, 3, 32, 32), (2, 16, 16, 32))

    def of(function):
        return jax.value_and_grad(lambda x, kernel: jnp.sin(function(x, kernel)).sum(), argnums=(0, 1))

    def twice(function):
        return jax.jvp(lambda x: of(function)(x, kernel)[1], (x,), (dx,))[1]

    np.testing.assert_array_equal(padded(x, kernel), plain(x, kernel))
    assert jax.jit(of(padded)).lower(x, kernel).as_text().count("stablehlo.convolution") == 0
    assert_close(jax.vjp(padded, x, kernel)[0], plain(x, kernel), 1e-5)
    found, wanted = (of(function)(x, kernel)[1] + twice(function) for function in (padded, plain))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, 1e-5)


def test_a_sum_of_many_numbers_of_few_bits_does_not_stall():
    """1,024 ones in bfloat16, one after the other, come to 256."""
    x, kernel = jnp.ones((1, 32, 32, 1), jnp.bfloat16), jnp.zeros((1, 1, 1, 1), jnp.bfloat16)
    assert jax.grad(lambda kernel: padded(x, kernel).astype(jnp.float32).sum())(kernel) == 1024


@pytest.mark.parity
@pytest.mark.parametrize("size, batch, channels, features", [(32, 2, 64, 48), (9, 3, 130, 64), (4, 1, 96, 256)])
def test_gradients_are_those_of_torch(size, batch, channels, features):
    torch = pytest.importorskip("torch")
    x, kernel, gradient = arrays((batch, size, size, channels), (3, 3, channels, features),
                                 (batch, size, size, features))
    for function, scale in ((padded, 1), (upsample_and_convolve, 2)):
        given = gradient.repeat(scale, 1).repeat(scale, 2)
        actual = jax.vjp(function, x, kernel)[1](given)
        tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (x, kernel)]
        small = tensors[0].permute(0, 3, 1, 2)
        large = torch.nn.functional.interpolate(small, scale_factor=scale, mode="nearest") if scale > 1 else small
        y = torch.nn.functional.conv2d(large, tensors[1].permute(3, 2, 0, 1), padding=1)
        y.backward(torch.tensor(given, dtype=torch.float64).permute(0, 3, 1, 2))
        for one, tensor in zip(actual, tensors, strict=True):
            assert_close(one, tensor.grad.numpy().astype(np.float32), 1e-5)
