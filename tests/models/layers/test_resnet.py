import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models.layers.resnet import ResnetBlock2D, average, fir_downsample, fir_upsample
from tests.models.compare import assert_close

# Our options, and diffusers' class with the same.
CASES = {
    "ada_group": ({"time_embedding_norm": "ada_group", "groups": 4}, "ResnetBlockCondNorm2D"),
    "ada_group_up": ({"time_embedding_norm": "ada_group", "groups": 4, "up": True}, "ResnetBlockCondNorm2D"),
    "spatial": ({"time_embedding_norm": "spatial", "groups": 32}, "ResnetBlockCondNorm2D"),
    "sde_vp_up": ({"groups": 4, "up": True, "kernel": "sde_vp"}, "ResnetBlock2D"),
    "sde_vp_down": ({"groups": 4, "down": True, "kernel": "sde_vp"}, "ResnetBlock2D"),
    "fir_up": ({"groups": 4, "up": True, "kernel": "fir"}, "ResnetBlock2D"),
    "fir_down": ({"groups": 4, "groups_out": 8, "down": True, "kernel": "fir"}, "ResnetBlock2D"),
    "conv_2d_out_channels": ({"groups": 4, "conv_2d_out_channels": 48, "conv_shortcut_bias": False}, "ResnetBlock2D"),
    "skip_time_act": ({"groups": 4, "skip_time_act": True, "output_scale_factor": 2.0}, "ResnetBlock2D"),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_against_diffusers(name):
    resnet = pytest.importorskip("diffusers.models.resnet")
    torch = pytest.importorskip("torch")
    from convert import layout

    options, class_name = CASES[name]
    torch.manual_seed(0)
    theirs = getattr(resnet, class_name)(
        in_channels=32, out_channels=32, temb_channels=6, **{"eps": 1e-5, "use_in_shortcut": True, **options}
    ).eval()
    x = np.random.default_rng(0).standard_normal((2, 8, 6, 32)).astype(np.float32)
    temb = np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)
    picture = temb[:, None, None].repeat(4, 1).repeat(3, 2) if name == "spatial" else temb
    state = theirs.state_dict()
    ours = ResnetBlock2D(32, eps=1e-5, use_in_shortcut=True, **options)

    def one(path, leaf):
        path = tuple(entry.key for entry in path)
        return layout.from_torch(path, state.pop(layout.torch_name(path)).numpy())

    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), x, picture)["params"])
    params = jax.tree_util.tree_map_with_path(one, shapes)
    assert not state
    with torch.no_grad():
        condition = torch.from_numpy(picture)
        condition = condition.permute(0, 3, 1, 2) if name == "spatial" else condition
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2), condition).permute(0, 2, 3, 1).numpy()
    assert_close(jax.jit(ours.apply)({"params": params}, x, picture), expected)


def test_dropout_acts_with_a_key_only():
    model, x = ResnetBlock2D(8, groups=4, dropout=0.5), jax.random.normal(jax.random.key(2), (1, 4, 4, 8))
    variables = model.init(jax.random.key(0), x)
    train = jax.jit(lambda key: model.apply(variables, x, rngs={"dropout": key}))
    first, second = train(jax.random.key(0)), train(jax.random.key(1))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(first, train(jax.random.key(0)))
    assert np.isfinite(model.apply(variables, x)).all()


def test_filters_keep_a_constant_and_a_mean():
    x = jnp.ones((1, 6, 8, 2))
    np.testing.assert_allclose(fir_upsample(x)[:, 1:-1, 1:-1], 1, rtol=1e-6)
    np.testing.assert_allclose(fir_downsample(x)[:, 1:-1, 1:-1], 1, rtol=1e-6)
    np.testing.assert_allclose(average(jnp.arange(6.0).reshape(1, 2, 3, 1)), [[[[2.0]]]])


def test_errors_name_the_option():
    x = jnp.ones((1, 4, 4, 8))
    for options, message in [
        ({"time_embedding_norm": "sideways"}, "'sideways' is unknown"),
        ({"time_embedding_norm": "scale_shift"}, "needs a time embedding"),
        ({"time_embedding_norm": "ada_group"}, "needs a time embedding"),
        ({"up": True, "kernel": "box"}, "'box' is unknown"),
    ]:
        with pytest.raises(ValueError, match=message):
            ResnetBlock2D(8, groups=4, **options).init(jax.random.key(0), x)
