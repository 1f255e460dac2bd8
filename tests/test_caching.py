"""Caching across steps: the same where all is computed, forecasts that are exact, and what is not computed."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import fdiff
from fdiff import caching, guidance, layer_cuts
from fdiff.caching import DeepCache, FirstBlockCache, TaylorSeer
from fdiff.models import FluxTransformer2DModel
from tests.models.compare import assert_close, from_torch
from tests.pipelines.conftest import tiny_unet
from tests.reference import make_transformers, make_unet_2d_condition

KEY = jax.random.key(0)
PLAN, SHORT = (fdiff.DDIMScheduler().plan(n) for n in (7, 3))
DIT = {"num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 1, "num_layers": 3, "sample_size": 4,
       "patch_size": 2, "num_embeds_ada_norm": 3}  # fmt: skip
X = jax.random.normal(KEY, (2, 4, 4, 1))


def spread(params):
    """Fresh parameters with weights everywhere, so that every layer counts."""
    leaves, form = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    drawn = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(form, drawn)


@functools.cache
def network(kind):
    """(x, t) -> out of a tiny model, its parameters being its only argument."""
    if kind == "unet":
        model, more = tiny_unet(norm_num_groups=2, attention_head_dim=8), ()
    else:
        model, more = fdiff.DiTTransformer2DModel(**DIT), (jnp.array([0, 2]),)
    return Partial(functools.partial(_apply, model, more), spread(model.init_params(KEY)))


def _apply(model, more, params, x, t):
    return model.apply({"params": params}, x, t, *more)


def run(network, cache, x=X, plan=SHORT):
    network, memory = fdiff.cached(network, plan, x, cache)
    return fdiff.sample(network, plan, x, memory=memory)


def computed(network, cache, x=X, plan=PLAN):
    """The rows at which all is computed."""
    network, memory = fdiff.cached(network, plan, x, cache)
    return [i for i, (state, _) in enumerate(fdiff.steps(network, plan, x, memory=memory)) if state.memory.rows[0] == i]


@pytest.mark.parametrize(("kind", "cache"), [("unet", FirstBlockCache(1e-9)), ("dit", TaylorSeer(2, depth=2, start=7))])
def test_where_all_is_computed_nothing_changes(kind, cache):
    np.testing.assert_allclose(run(network(kind), cache), fdiff.sample(network(kind), SHORT, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cache", [DeepCache(1), FirstBlockCache(0), TaylorSeer(1, 2), DeepCache(at=range(7))])
def test_a_cache_that_leaves_nothing_out_leaves_the_network_as_it_is(cache):
    assert fdiff.cached(network("dit"), PLAN, X, cache) == (network("dit"), None)


@pytest.mark.parametrize(("kind", "depth", "stays"), [
    ("unet", 0, r"conv|time|up_blocks\.1\.resnets\.1"),
    ("unet", 1, r"conv|time|down_blocks\.0\.resnets|up_blocks\.1"),
    ("dit", 1, r"pos_embed|proj_out|blocks\.0\."),
])  # fmt: skip
def test_what_is_deep_is_not_computed(kind, depth, stays):
    """The second step sees no parameters of deep layers, and gives for the same x and t the same."""
    whole = network(kind)
    first, memory = fdiff.cached(whole, PLAN, X, DeepCache(every=2, depth=depth))
    call = jax.jit(first.func)
    out, memory = call(whole, 0, None, X, 3.0, memory)

    def lost(path, leaf):
        name = ".".join(entry.key for entry in path)
        return leaf if re.match(f"(transformer_)?({stays})", name) else jnp.full_like(leaf, jnp.nan)

    deep = Partial(whole.func, jax.tree_util.tree_map_with_path(lost, whole.args[0]))
    assert np.isnan(call(deep, 2, None, X, 3.0, memory)[0]).all()
    again, _ = call(deep, 1, None, X, 3.0, memory)
    np.testing.assert_allclose(again, out, atol=1e-5)
    other, _ = call(deep, 1, None, X + 1, 3.0, memory)
    assert np.isfinite(other).all() and np.abs(other - out).max() > 1e-2


def powers(coefficients, x, t):
    return x * 0 + sum(c * (t / 100) ** k for k, c in enumerate(coefficients))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_polynomials_of_the_step_are_forecast_exactly(order):
    plan = fdiff.DDIMScheduler(timestep_spacing="linspace").plan(28)  # whose times are even
    whole = Partial(powers, jnp.array([1.0, -2.0, 3.0, -1.0])[: order + 1])
    forecast, memory = fdiff.cached(whole, plan, X, TaylorSeer(3, order, start=order + 1))
    said, call = [], jax.jit(forecast.func)
    for i, t in enumerate(plan.t):
        out, memory = call(whole, i, None, X, t, memory)
        said.append(float(out[0, 0, 0, 0]))
        assert memory.rows[0] == (i if i <= order else i - (i - order) % 3)
    wanted = [float(whole(X, t)[0, 0, 0, 0]) for t in plan.t]
    np.testing.assert_allclose(said, wanted, rtol=1e-4, atol=2e-3)


def test_when_all_is_computed():
    whole = Partial(powers, jnp.ones(2))
    assert computed(whole, TaylorSeer(3)) == [0, 3, 6]
    assert computed(whole, TaylorSeer(3, start=2)) == [0, 1, 4]
    assert computed(whole, TaylorSeer(at=(2, 3))) == [0, 2, 3]
    on = fdiff.ByRow(np.arange(7) < 4)
    both, memory = fdiff.cached(guidance.part(whole, whole, on), PLAN, X, TaylorSeer(3))
    pairs = [state.memory for state, _ in fdiff.steps(both, PLAN, X, memory=memory)]
    assert [int(one.rows[0]) for one, _ in pairs] == [0, 0, 0, 3, 3, 3, 3]
    assert [int(one.rows[0]) for _, one in pairs[4:]] == [4, 4, 4]
    assert pairs[3][1].rows[0] == caching.NEVER
    within, memory = fdiff.cached(guidance.interval(whole, whole, 0.0, 500.0), PLAN, X, TaylorSeer(3))
    assert np.isfinite(fdiff.sample(within, PLAN, X, memory=memory)).all()


def test_samples_decide_for_themselves_whether_their_first_block_changed():
    first = network("dit")
    cached, memory = fdiff.cached(first, PLAN, X, FirstBlockCache(0.1))
    call = jax.jit(cached.func)
    _, memory = call(first, 0, None, X, 3.0, memory)
    moved = X.at[1].add(1.0)
    both, after = call(first, 1, None, moved, 3.0, memory)
    np.testing.assert_allclose(both[1], first(moved, 3.0)[1], atol=1e-5)
    np.testing.assert_array_equal(after.features[0][:, 0], memory.features[0][:, 0])
    near = X.at[1].add(1.0).at[0].add(0.01)  # the first stays as it is, though all is computed for the second
    mixed, _ = call(first, 1, None, near, 3.0, memory)
    alone, kept = call(first, 1, None, near.at[1].set(X[1]), 3.0, memory)
    assert kept.rows[0] == 0
    np.testing.assert_allclose(mixed[0], alone[0], atol=1e-6)
    assert np.abs(mixed[0] - first(near, 3.0)[0]).max() > 1e-6


def test_vmap_is_a_loop_and_gradients_pass():
    whole, xs = Partial(powers, jnp.array([0.1, 0.2])), jnp.stack([X, 2 * X])

    def drawn(x):
        return run(whole, TaylorSeer(2), x)

    one, all_at_once = (str(jax.make_jaxpr(f)(x)).count("cond[") for f, x in ((drawn, X), (jax.vmap(drawn), xs)))
    assert one == all_at_once  # each stays a choice
    np.testing.assert_allclose(jax.vmap(drawn)(xs)[1], drawn(xs[1]), rtol=1e-4, atol=1e-5)

    def total(scale):
        return drawn(scale * X).sum()

    np.testing.assert_allclose(jax.grad(total)(1.0), jax.jvp(total, (1.0,), (1.0,))[1], rtol=1e-3)


def test_a_network_in_a_loop_and_one_without_layers_are_refused():
    windows = fdiff.windows.windowed(network("dit"), size=2, overlap=0, axis=2)
    with pytest.raises(ValueError, match="in a loop"):
        fdiff.cached(windows, PLAN, jnp.zeros((2, 4, 8, 1)), DeepCache())
    with pytest.raises(ValueError, match="this network has none; use TaylorSeer"):
        fdiff.cached(Partial(powers, jnp.ones(1)), PLAN, X, FirstBlockCache())
    with pytest.raises(ValueError, match="depth is 3; this network has layers for one of 0 to 2"):
        fdiff.cached(network("dit"), PLAN, X, DeepCache(depth=3))
    with pytest.raises(ValueError, match="cache is 'deep:3'; it must be a DeepCache"):
        fdiff.cached(network("dit"), PLAN, X, "deep:3")
    with pytest.raises(ValueError, match="the plan has the rows 0 to 6"):
        fdiff.cached(network("dit"), PLAN, X, DeepCache(at=(0, 7)))
    for wrong in ({"every": 0}, {"every": 2.0}, {"depth": -1}, {"depth": None}):
        with pytest.raises(ValueError, match="it must be a whole number from"):
            DeepCache(**wrong)
    with pytest.raises(ValueError, match="threshold is nan"):
        FirstBlockCache(float("nan"))


def test_words_for_caches():
    assert caching.named("deep:3") == DeepCache(3) and caching.named("deep:3:1") == DeepCache(3, 1)
    assert caching.named("first-block:0.2") == FirstBlockCache(0.2)
    assert caching.named("taylor:4:2") == TaylorSeer(4, 2) and caching.named("taylor") == TaylorSeer()
    for wrong, word in (("tea:3", "it must be such as deep:3"), ("deep:x", "says what cannot be"),
                        ("deep:0", "every is 0"), ("first-block:1:2", "it must be such as")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            caching.named(wrong)


def test_controlnets_are_not_cut_and_what_is_cut_is_found_once():
    whole = network("dit")
    given = jax.tree.flatten(jax.eval_shape(lambda: (whole, (X, 3.0))))
    cut = layer_cuts.cut(given[1], tuple(given[0]), 1)
    assert cut.head == (0,) and [i for i, _ in cut.body] == [1, 2] and cut.kept == ((2, 0),)


def theirs_and_ours(name, cases, cls, count=12):
    """A network (x, t), what torch computes of a batch of one, and samples and times that change as in a run."""
    model = cases.build(name)
    ours, params = from_torch(cls, model)
    arrays = {key: value[:1] if key not in ("img_ids", "txt_ids") else value
              for key, value in cases.inputs(name).items() if "residual" not in key}  # fmt: skip
    first = next(iter(arrays))
    path = [arrays[first] + 0.02 * i**1.5 * np.roll(arrays[first], 1, axis=-1) for i in range(count)]

    def network(params, x, t):
        return ours.apply({"params": params}, **{**arrays, first: x, "timestep": t})

    return model, arrays, first, path, Partial(network, params)


def follow(network, path, times, cache):
    cached, memory = fdiff.cached(network, PLAN.pad(len(path)), path[0], cache)
    call, said, rows = jax.jit(cached.func), [], []
    for i, (x, t) in enumerate(zip(path, times, strict=True)):
        out, memory = call(network, i, cached.args[2] and cached.args[2][i], x, t, memory)
        said.append(out)
        rows.append(int(memory.rows[0]))
    return said, sorted(set(rows))


@pytest.mark.parity
@pytest.mark.parametrize("cache", [FirstBlockCache(0.3), TaylorSeer(at=(0, 1, 3, 6, 9))])
def test_caches_of_transformers_live(cache):
    hooks = pytest.importorskip("diffusers.hooks")
    model, arrays, first, path, network = theirs_and_ours("flux_schnell", make_transformers, FluxTransformer2DModel)
    times = np.linspace(0.6, 0.59, len(path), dtype=np.float32)[:, None]
    if isinstance(cache, FirstBlockCache):
        model.enable_cache(hooks.FirstBlockCacheConfig(threshold=cache.threshold))
    else:  # which computes at 0 and 1, and where step - 2 - 1 is a multiple of 3
        model.enable_cache(hooks.TaylorSeerCacheConfig(
            cache_interval=3, disable_cache_before_step=2, taylor_factors_dtype=torch_float32(), use_lite_mode=True
        ))  # fmt: skip
    said, rows = follow(network, path, times, cache)
    assert 1 < len(rows) < len(path)
    for out, x, t in zip(said, path, times, strict=True):
        with model.cache_context("cond"):
            assert_close(out, make_transformers.run("flux", model, {**arrays, first: x, "timestep": t}))


def torch_float32():
    import torch

    return torch.float32


@pytest.mark.parity
@pytest.mark.parametrize("depth", [0, 1])
def test_deepcache_live(depth):
    theirs = pytest.importorskip("DeepCache.extension.deepcache")
    import types

    import torch

    model, arrays, _, path, network = theirs_and_ours("sd", make_unet_2d_condition, fdiff.UNet2DConditionModel, 7)
    times = np.arange(900, 200, -100)
    pipe = types.SimpleNamespace(unet=model, scheduler=types.SimpleNamespace(timesteps=torch.from_numpy(times)))
    helper = theirs.DeepCacheSDHelper(pipe)
    helper.set_params(cache_interval=3, cache_branch_id=depth)
    helper.enable()
    said, rows = follow(network, path, times, DeepCache(3, depth))
    assert rows == [0, 3, 6]
    text = torch.from_numpy(arrays["encoder_hidden_states"])
    for out, x, t in zip(said, path, times, strict=True):
        with torch.no_grad():
            wanted = model(torch.from_numpy(x).permute(0, 3, 1, 2), torch.tensor(t), text).sample
        assert_close(out, wanted.permute(0, 2, 3, 1).numpy())
