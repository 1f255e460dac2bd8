"""Trees of parameters, from files and back."""

import json
import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert import layout, safetensors, weights
from convert.lazy import lazy
from convert.tensors import EIGHT_BITS, Tensor

SHAPES = {
    "conv_in": {"kernel": (3, 3, 4, 8), "bias": (8,)},
    "down_blocks.0": {
        "attentions.0": {"to_q": {"kernel": (8, 6), "bias": (6,)}, "to_out.0": {"kernel": (6, 8)}},
        "norm": {"scale": (8,), "bias": (8,)},
    },
    "embed": {"embedding": (5, 8)},
    "class_embedding": (8,),
}


def tree(dtype=jnp.float32, shapes=SHAPES):
    is_shape = lambda value: isinstance(value, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, dtype), shapes, is_leaf=is_shape)


def parameters(dtype=jnp.float32, shapes=SHAPES):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype), tree(dtype, shapes))


def same(a, b):
    def check(x, y):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()

    jax.tree.map(check, a, b)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def raw(folder: Path, values: dict[str, np.ndarray], name="file.safetensors") -> Path:
    """A safetensors file of those arrays, in torch's layout."""
    made = {k: safetensors.Array(v.shape, v.dtype, lambda v=v: v) for k, v in values.items()}
    safetensors.write(folder / name, made)
    return folder / name


def torch_arrays(params) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array.make()) for name, array in weights.arrays(params).items()}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_round_trip(tmp_path, dtype, variant):
    params = parameters(dtype)
    weights.save(tmp_path, params, "model", variant=variant)
    infix = ".fp16" if variant else ""
    assert names(tmp_path) == [f"model{infix}.safetensors"]
    file = tmp_path / f"model{infix}.safetensors"
    same(weights.load(file, tree()), params)
    weights.save(tmp_path / "again", weights.load(file, tree()), "model", variant=variant)
    assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["kernel", "scale", "bias", "weight_g", "embedding"]),
        st.lists(st.integers(0, 3), min_size=2, max_size=5).map(tuple),
        min_size=1,
    ).filter(lambda leaves: len({"kernel", "scale", "embedding"} & leaves.keys()) < 2),
    st.sampled_from(["float32", "float16", "bfloat16", "int32", "uint8", "float8_e5m2"]),
)
def test_round_trip_of_any_leaves(tmp_path, leaves, dtype):
    params = parameters(dtype, {"blocks.0": leaves, "last": {"blocks.1": leaves}})
    weights.save(tmp_path, params)
    same(weights.load(tmp_path / "diffusion_pytorch_model.safetensors", params), params)


def test_shards(tmp_path):
    params = parameters()
    weights.save(tmp_path, params, "model", max_shard_size=1200)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2 and names(tmp_path) == [*shards, "model.safetensors.index.json"]
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert all((tmp_path / shard).stat().st_size < max(1200, largest) + 1000 for shard in shards)
    assert weights.shards(tmp_path / "model.safetensors.index.json") == shards
    same(weights.load(tmp_path / "model.safetensors.index.json", tree()), params)
    weights.save(tmp_path, params, "model")
    assert names(tmp_path) == ["model.safetensors"], "nothing is left of the shards"
    weights.save(tmp_path, params, "model", variant="bf16", max_shard_size="1.2KB")
    assert "model.safetensors.index.bf16.json" in names(tmp_path)
    for size in (0, "5 pages", "-1GB", "GB", "infGB"):
        with pytest.raises(ValueError, match="max_shard_size is"):
            weights.save(tmp_path, params, max_shard_size=size)


def test_dtype(tmp_path):
    params = {**parameters("float16"), "steps": {"count": jnp.arange(3)}}
    weights.save(tmp_path, params, "model")
    file = tmp_path / "model.safetensors"
    for dtype in ("bfloat16", jnp.float32, np.dtype("float16")):
        found = weights.load(file, params, dtype=dtype)
        cast = jax.tree.map(lambda x, d=dtype: x.astype(d) if x.dtype == jnp.float16 else x, params)
        same(found, cast)
    for dtype in ("int32", "fp16", "half precision", bool):
        with pytest.raises(ValueError, match=r"^dtype is .*; it must be float32, bfloat16, float16 or another"):
            weights.load(file, params, dtype=dtype)


def test_sharding(tmp_path):
    params = parameters()
    weights.save(tmp_path, params, "model")
    file = tmp_path / "model.safetensors"
    mesh = jax.make_mesh((1,), ("x",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    split = jax.sharding.NamedSharding(mesh, jax.P("x"))
    device = jax.devices()[0]
    paths = []

    def by_path(path):
        paths.append(path)
        return split if path.endswith("kernel") else everywhere

    places = jax.tree.map(lambda _: split, tree())
    for sharding in (None, device, everywhere, by_path, places):
        found = weights.load(file, tree(), sharding=sharding)
        same(found, params)
        if sharding is by_path:
            assert found["conv_in"]["kernel"].sharding == split
            assert found["conv_in"]["bias"].sharding == everywhere
            assert "down_blocks.0.attentions.0.to_q.kernel" in paths


def test_old_names_and_buffers(tmp_path):
    arrays = torch_arrays(parameters())
    old = {name.replace("to_q", "query").replace("to_out.0", "proj_attn"): array for name, array in arrays.items()}
    assert old.keys() != arrays.keys()
    old["text_model.embeddings.position_ids"] = np.arange(3)
    same(weights.load(raw(tmp_path, old), tree()), parameters())


def change(arrays, **changes):
    """Those arrays with some replaced, or dropped where the new value is None."""
    changed = {**arrays, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conv_in__weight": None}, "lacks conv_in.weight, which the model needs; check"),
        ({"conv_in__weight": None, "conv_in__bias": None}, "lacks conv_in.bias and 1 more tensors, which"),
        ({"extra__weight": np.zeros(3)}, "holds extra.weight, which the model does not have; check"),
        ({"class_embedding": np.zeros(9)}, r"class_embedding in .* has shape \(9,\), the model needs \(8,\)"),
        ({"conv_in__weight": np.zeros((3, 3, 4, 8))}, r"has shape \(3, 3, 4, 8\), the model needs \(8, 4, 3, 3\)"),
        ({"class_embedding": np.zeros((8, 1))}, r"has shape \(8, 1\), the model needs"),
    ],
)
def test_any_difference_is_an_error(tmp_path, changes, words):
    file = raw(tmp_path, change(torch_arrays(parameters()), **changes))
    with pytest.raises(ValueError, match=words) as error:
        weights.load(file, tree())
    assert "file.safetensors" in str(error.value)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_numbers_that_are_no_weights_are_refused(tmp_path, dtype):
    """The bits of 0.5 are 1056964608, which is no weight."""
    arrays = torch_arrays(parameters())
    bits = arrays["conv_in.weight"].view(np.int32) if dtype == "int32" else arrays["conv_in.weight"].astype(dtype)
    file = raw(tmp_path, {**arrays, "conv_in.weight": bits})
    with pytest.raises(ValueError, match=rf"conv_in.weight in .*file.safetensors holds {dtype} instead of floating"):
        weights.load(file, tree())
    with pytest.raises(ValueError, match=rf"holds {dtype} instead"):
        lazy(weights.tensors(file), tree(), file=file)


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_numbers_of_8_bits_are_widened_where_they_are_computed_with(tmp_path, dtype):
    """ml_dtypes says what each of the 256 is; float32 holds them all."""
    bits = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = raw(tmp_path, {"a.weight": bits.view(dtype)})
    wanted = tree(shapes={"a": {"kernel": (16, 16)}})
    exact = bits.view(dtype).astype(np.float32).T
    np.testing.assert_array_equal(weights.load(file, wanted)["a"]["kernel"], exact)
    half = weights.load(file, wanted, dtype="bfloat16")["a"]["kernel"]
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(half, np.float32), exact)
    turned = weights.tensors(file)["a.weight"]._replace(strides=(1, 16)).read()  # as a pickle has it
    np.testing.assert_array_equal(turned.astype(np.float32), exact)
    stored = jax.ShapeDtypeStruct((16, 16), dtype)
    assert weights.load(file, {"a": {"kernel": stored}})["a"]["kernel"].dtype == np.dtype(dtype)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module."])
def test_names_of_wrapped_modules(tmp_path, prefix):
    arrays = torch_arrays(parameters())
    same(weights.load(raw(tmp_path, {prefix + name: array for name, array in arrays.items()}), tree()), parameters())
    inside = {name.replace("attentions.0", "attentions.0._orig_mod"): array for name, array in arrays.items()}
    assert inside.keys() != arrays.keys()
    same(weights.load(raw(tmp_path, inside), tree()), parameters())
    with pytest.raises(ValueError, match="holds tensors twice, of a module that torch wrapped"):
        weights.tensors(raw(tmp_path, {**arrays, "_orig_mod.conv_in.bias": arrays["conv_in.bias"]}))
    some = {"module.conv_in.bias" if name == "conv_in.bias" else name: array for name, array in arrays.items()}
    with pytest.raises(ValueError, match=r"lacks conv_in.bias"):
        weights.load(raw(tmp_path, some), tree())


def test_nothing_is_read_before_all_is_checked(tmp_path):
    tensors = {
        name: Tensor(tmp_path / "absent", 0, array.dtype, array.shape)
        for name, array in torch_arrays(parameters()).items()
    }
    with pytest.raises(ValueError, match="this checkpoint holds extra"):
        weights.fill({**tensors, "extra": tensors["conv_in.bias"]}, tree(), file="this checkpoint")


def test_parameters_of_another_model():
    params = parameters()
    weights.check(params, tree())
    for wrong, words in [
        ({**params, "more": {"bias": params["class_embedding"]}}, "hold more.bias"),
        ({k: v for k, v in params.items() if k != "embed"}, "lack embed.weight"),
        ({**params, "class_embedding": jnp.zeros(9)}, r"class_embedding of the parameters has shape \(9,\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            weights.check(wrong, tree())
    with pytest.raises(ValueError, match=r"two parameters are called a\.weight"):
        weights.arrays({"a": {"scale": jnp.zeros(1), "weight": jnp.zeros(1)}})


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.bin is not there"):
        weights.tensors(tmp_path / "absent.bin")
    (tmp_path / "a.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS"):
        weights.tensors(tmp_path / "a.bin")
    (tmp_path / "b.bin").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="neither a safetensors file nor one of torch"):
        weights.tensors(tmp_path / "b.bin")


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b", "..", ""])
def test_an_index_that_leaves_its_folder(tmp_path, shard):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match=r"points to .*, outside its folder; do not trust it"):
        weights.tensors(index)


def test_an_index_that_is_wrong(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for text in ("{", "[]", '{"weight_map": 1}', "{}", "[" * 100_000):
        index.write_text(text)
        with pytest.raises(ValueError, match="is no index of a checkpoint"):
            weights.tensors(index)
    index.write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"x.safetensors is not there, but model.safetensors.index.json"):
        weights.tensors(index)
    raw(tmp_path, {"b": np.zeros(1)}, "x.safetensors")
    with pytest.raises(ValueError, match=r"x.safetensors lacks a, which"):
        weights.tensors(index)


def test_a_full_disk_leaves_nothing(tmp_path):
    """The limit on the size of a file stands for the end of the disk."""
    params = parameters(shapes={"a": {"kernel": (64, 64)}})
    weights.save(tmp_path, params, "model")
    before = (tmp_path / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(OSError, match=r"was not saved \(File too large\); make room"):
                weights.save(folder, jax.tree.map(lambda x: x + 1, params), "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def flax_tree(module):
    """The tree for a torch module by the kinds of its layers: what a Flax module of the same structure has."""
    import torch

    shapes = {}
    for prefix, layer in module.named_modules():
        for leaf, value in layer.named_parameters(recurse=False):
            name = leaf
            if leaf == "weight":
                linear = isinstance(layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd)
                name = "kernel" if linear else "embedding" if isinstance(layer, torch.nn.Embedding) else "scale"
            shape = tuple(value.shape)
            shape = (*shape[2:], shape[1], shape[0]) if name == "kernel" else shape
            shapes.setdefault(prefix, {})[name] = jax.ShapeDtypeStruct(shape, np.float32)
    return shapes


@pytest.mark.parity
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shard", ["1MB", "10GB"])
def test_a_unet_of_diffusers_there_and_back(tmp_path, safe, shard):
    """What diffusers saved is read; what is written, diffusers loads unchanged."""
    torch = pytest.importorskip("torch")
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, class_embed_type=None, num_class_embeds=10,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "theirs", safe_serialization=safe, max_shard_size=shard)
    pattern = "*.index.json" if shard == "1MB" else "diffusion_pytorch_model.*"
    (file,) = (tmp_path / "theirs").glob(pattern)
    params = weights.load(file, flax_tree(unet))
    weights.save(tmp_path / "ours", params, max_shard_size=shard)
    (tmp_path / "ours" / "config.json").write_text((tmp_path / "theirs" / "config.json").read_text())
    again = UNet2DModel.from_pretrained(tmp_path / "ours")
    for name, tensor in unet.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert layout.torch_shape(("kernel",), params["conv_in"]["kernel"].shape) == tuple(unet.conv_in.weight.shape)
