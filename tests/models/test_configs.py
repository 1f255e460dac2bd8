"""What every model class makes of a config.json."""

import jax
import numpy as np
import pytest

import fdiff

MODELS = [getattr(fdiff, name) for name in fdiff.models.__all__ if name != "Model"]


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_how_weights_were_averaged_says_nothing_about_the_network(cls):
    averaging = {
        "decay": 0.9999,
        "inv_gamma": 1.0,
        "min_decay": 0.0,
        "optimization_step": 1200,
        "power": 2 / 3,
        "update_after_step": 0,
        "use_ema_warmup": False,
    }
    assert cls.from_config(averaging) == cls.from_config({})


TINY = fdiff.CLIPTextModel(
    vocab_size=9, hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1
)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_fresh_parameters_under_every_transformation(impl):
    keys = jax.random.split(jax.random.key(0, impl=impl), 2)
    wanted = [TINY.init_params(key) for key in keys]
    jax.tree.map(close, jax.jit(TINY.init_params)(keys[0]), wanted[0])
    shapes = jax.eval_shape(TINY.init_params, keys[0])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), TINY.shapes()
    )
    if impl == "threefry2x32":  # vmap mixes up what rbg keys draw
        jax.tree.map(lambda made, *each: close(made, np.stack(each)), jax.vmap(TINY.init_params)(keys), *wanted)


def close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-6)
