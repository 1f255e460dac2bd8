"""Token merging: what is merged comes back, as the mean of what is alike; and beside tomesd."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import token_merging
from tests.reference import make_unet_2d_condition as cases

RANDOM = np.random.default_rng(0)


def test_tokens_that_are_equal_lose_nothing():
    squares = RANDOM.standard_normal((2, 2, 1, 3, 1, 4)).astype(np.float32)
    x = np.broadcast_to(squares, (2, 2, 2, 3, 2, 4)).reshape(2, 24, 4)  # (b, 4 * 6, c)
    merging = token_merging.alike(jnp.asarray(x), 4, 6, 0.75)
    merged = token_merging.merge(merging, jnp.asarray(x))
    assert merged.shape == (2, 6, 4)
    np.testing.assert_allclose(merged, squares.reshape(2, 6, 4), rtol=1e-6)
    np.testing.assert_allclose(token_merging.unmerge(merging, merged), x, rtol=1e-6)


def test_a_unet_merges_at_its_largest_level_alone():
    unet = fdiff.UNet2DConditionModel(**{**cases.BASE, "down_block_types": ("CrossAttnDownBlock2D",) * 2})
    params = unet.init_params(jax.random.key(0))
    x, text = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((1, 5, 8, 4), (1, 3, 12)))

    def network(params, x, t, text):
        return unet.apply({"params": params}, x, t, text)

    merged = token_merging.merged(jax.tree_util.Partial(network, params), 0.5)
    plain, fewer = (str(jax.make_jaxpr(one)(x, 1.0, text)) for one in (partial(network, params), merged))
    for attends, count in (("f32[1,40,2,4]", 3), ("f32[1,20,2,4]", 0)):  # of 5 x 8 tokens; in two heads
        assert attends in plain if count else attends not in plain
    assert "f32[1,20,2,4]" in fewer and "f32[1,12,2,8]" in fewer  # half of them; and all of 3 x 4 below
    assert jax.eval_shape(merged, x, 1.0, text).shape == x.shape
    with pytest.raises(ValueError, match="this network has none"):
        token_merging.merged(lambda x, t: x, 0.5)(x, 1.0)
    with pytest.raises(ValueError, match=r"token_merging is 0\.8; it must be above 0"):
        token_merging.merged(network, 0.8)


@pytest.mark.parity
@pytest.mark.parametrize("ratio", [0.3, 0.75])
def test_merging_live(ratio):
    theirs = pytest.importorskip("tomesd.merge")
    import torch

    metric, x = (RANDOM.standard_normal((2, 35, 4)).astype(np.float32) for _ in range(2))  # 5 x 7
    merge, unmerge = theirs.bipartite_soft_matching_random2d(
        torch.from_numpy(metric), 7, 5, 2, 2, int(ratio * 35), no_rand=True
    )
    merging = token_merging.alike(jnp.asarray(metric), 5, 7, ratio)
    merged = token_merging.merge(merging, jnp.asarray(x))
    wanted = merge(torch.from_numpy(x))
    assert merged.shape == wanted.shape
    np.testing.assert_allclose(token_merging.unmerge(merging, merged), unmerge(wanted).numpy(), atol=1e-6)
