from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models.layers import attention as module
from fdiff.models.layers.attention import attention
from fdiff.models.layers.attention_blocks import Limits, at_once, in_blocks
from fdiff.models.layers.fused_attention import fused
from tests.models.compare import assert_close


def plain(q, k, v, mask=None):
    """The definition."""
    scores = jnp.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    return jnp.einsum("bhnm,bmhd->bnhd", jnp.nan_to_num(jax.nn.softmax(scores)), v)  # where all is -inf: zeros


@pytest.fixture
def limit_scores(monkeypatch):
    """Set how many scores a CPU computes at a time."""

    def limit(scores):
        monkeypatch.setattr(module, "CPU", Limits(scores, 1))
        attention.clear_cache()

    yield limit
    attention.clear_cache()


def arrays(queries=13, keys=7, heads=4, width=8, batch=2):
    random = np.random.default_rng(0)
    shapes = [(batch, n, heads, width) for n in (queries, keys, keys)]
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def masks():
    random = np.random.default_rng(1)
    numbers = random.standard_normal((2, 4, 13, 7)).astype(np.float32)
    dead = random.random((2, 1, 13, 7)) > 0.5
    dead[0, 0, 2:5] = dead[1, 0] = False  # queries that may look at nothing
    infinite = np.where(dead, numbers, -np.inf)
    return [
        None, numbers, numbers[:, :1], numbers[:1, :, :1], numbers[0, 0], numbers[:, :, :1] > -1, dead, dead[0, 0],
        infinite, infinite[:, 1:2],
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [2**19, 7 * 13 * 4, 7 * 13 * 2, 1])
def test_blocks_of_every_size(limit_scores, limit):
    """All at once; a sample; two heads; one query."""
    limit_scores(limit)
    mask = masks()[1]
    assert_close(jax.jit(lambda *x: attention(*x))(*arrays(), mask), plain(*arrays(), mask), 1e-5)


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: "none" if mask is None else str(mask.shape))
def test_masks_of_every_shape(limit_scores, mask):
    limit_scores(7 * 5)  # five queries, so that the last block is not full
    assert_close(jax.jit(lambda *x: attention(*x))(*arrays(), mask), plain(*arrays(), mask), 1e-5)


@pytest.mark.parametrize("limit", [2**19, 7 * 5])
def test_gradients_and_vmap(limit_scores, limit):
    limit_scores(limit)
    mask = masks()[1]

    def loss(function):
        return jax.jit(jax.grad(lambda x, mask: jnp.square(function(*x, mask)).sum(), argnums=(0, 1)))

    for actual, expected in zip(*(jax.tree.leaves(loss(f)(arrays(), mask)) for f in (attention, plain)), strict=True):
        assert_close(actual, expected, 1e-5)
    mapped = jax.jit(jax.vmap(lambda *x: attention(*(a[None] for a in x))[0]))
    assert_close(mapped(*arrays()), plain(*arrays()), 1e-5)


def test_bfloat16_and_large_scores():
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in arrays())
    output = attention(100 * q, 100 * k, v)
    assert output.dtype == jnp.bfloat16
    assert jnp.isfinite(output).all()


def test_accelerators_branch():
    for mask in masks():
        assert_close(module._looking(at_once, *arrays(), mask, 8**-0.5), plain(*arrays(), mask), 1e-5)


@pytest.mark.parametrize("mask", masks()[-4:], ids=lambda mask: f"{mask.shape} {mask.dtype}")
@pytest.mark.parametrize("function", [partial(in_blocks, module.CPU), at_once, fused])
def test_gradients_where_a_query_looks_at_nothing(function, mask):
    """They are those of the other queries alone."""
    q, k, v = arrays()
    looks = np.broadcast_to((mask if mask.dtype == bool else mask > -np.inf).any(-1), (2, 4, 13)).swapaxes(1, 2)

    def loss(function, mask):
        return jax.grad(lambda x: jnp.sum(jnp.square(function(*x, mask)) * looks[..., None]))([q, k, v])

    lenient = np.broadcast_to(looks.swapaxes(1, 2)[..., None], (2, 4, 13, 7))  # look everywhere in place of nowhere
    mask = jnp.asarray(mask)
    other = mask | ~lenient if mask.dtype == bool else jnp.where(lenient, mask, 0.0)
    actual = loss(lambda *x: module._looking(function, *x, 8**-0.5), mask)
    for a, b in zip(actual, loss(plain, other), strict=True):
        assert_close(a, b, 1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("mask", masks(), ids=str)
def test_what_torch_does_with_masks(mask):
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(x).transpose(1, 2) for x in arrays()]
    given = None if mask is None else torch.tensor(mask)
    expected = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=given).transpose(1, 2)
    assert_close(attention(*arrays(), mask), expected, 1e-5)
