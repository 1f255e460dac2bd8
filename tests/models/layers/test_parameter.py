import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from fdiff.models.layers.linear import Linear
from fdiff.models.layers.parameter import parameter


def test_initializers_are_called_only_where_parameters_are_made():
    calls = []

    def ones(key, shape, dtype):
        calls.append(shape)
        return jnp.ones(shape)

    class Scale(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * parameter(self, "scale", ones, (2,))

    params = Scale().init(jax.random.key(0), jnp.ones(2))["params"]
    made = len(calls)
    assert made and jnp.array_equal(Scale().apply({"params": params}, jnp.full(2, 3.0)), jnp.full(2, 3.0))
    assert len(calls) == made


def test_a_parameter_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"kernel of the parameters has shape \(4, 3\), the model needs \(2, 3\)"):
        Linear(3).apply({"params": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}, jnp.ones((1, 2)))


def test_a_missing_parameter_is_named():
    with pytest.raises(Exception, match="bias"):
        Linear(3).apply({"params": {"kernel": jnp.ones((2, 3))}}, jnp.ones((1, 2)))
