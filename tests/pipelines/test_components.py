import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff.pipelines.components import load_component, load_model, save_component

WHERE = {"revision": None, "cache_dir": None, "token": None, "local_files_only": False}


def load(folder, kind="MultiAdapter"):
    return load_component(
        kind, folder, "adapter", WHERE, lambda *given, **place: load_model(*given, variant=None, dtype=None,
                                                                           sharding=None, **place)
    )  # fmt: skip


@pytest.fixture
def adapters():
    module = fdiff.T2IAdapter(channels=(8,), num_res_blocks=1, downscale_factor=2)
    return (module,) * 3, [jax.tree.map(lambda x, v=v: jnp.full(x.shape, v), module.shapes()) for v in (1.0, 2.0, 3.0)]


def test_several_adapters_are_folders_side_by_side(tmp_path, adapters):
    assert save_component(*adapters, tmp_path, "adapter") == ["diffusers", "MultiAdapter"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "adapter_1", "adapter_2"]
    for folder in ("adapter_2", "adapter_1_2"):  # the latter is what diffusers calls the third
        (tmp_path / "adapter_2").rename(tmp_path / folder)
        modules, params = load(tmp_path)
        assert modules == adapters[0]
        assert [float(jax.tree.leaves(tree)[0].max()) for tree in params] == [1.0, 2.0, 3.0]


@pytest.mark.parity
def test_parity_of_several_adapters(tmp_path, adapters):
    from diffusers import MultiAdapter, T2IAdapter

    save_component(*adapters, tmp_path, "adapter")
    theirs = MultiAdapter.from_pretrained(str(tmp_path / "adapter"))
    assert theirs.num_adapter == 3
    assert [float(next(net.parameters()).detach().max()) for net in theirs.adapters] == [1.0, 2.0, 3.0]
    MultiAdapter([T2IAdapter.from_pretrained(tmp_path / name) for name in ("adapter_2", "adapter", "adapter_1")]
                 ).save_pretrained(str(tmp_path / "theirs" / "adapter"))  # fmt: skip
    modules, params = load(tmp_path / "theirs")
    assert modules == adapters[0]
    np.testing.assert_array_equal([jax.tree.leaves(tree)[0].max() for tree in params], [3.0, 1.0, 2.0])
