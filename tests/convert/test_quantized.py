"""Weights that stay quantised: made, saved, read in the layouts that people have, and computed with."""

import json
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from convert import ggml, gguf, quantized, safetensors, views, weights
from convert.lazy import lazy
from convert.quantized import Quantized, Streamed, is_quantized
from fdiff.models.layers.linear import Embed, Linear
from fdiff.models.layers.product import int8_product, product

SHAPES = {
    "blocks.0": {"kernel": (64, 96), "bias": (96,)},
    "blocks.1": {"kernel": (40, 64)},
    "first": {"kernel": (64, 96)},
    "words": {"embedding": (2048, 64)},
}
RNG = np.random.default_rng(0)


def tree():
    return {
        layer: {leaf: jax.ShapeDtypeStruct(shape, np.float32) for leaf, shape in leaves.items()}
        for layer, leaves in SHAPES.items()
    }


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: RNG.standard_normal(leaf.shape, np.float32), tree())


@pytest.fixture(scope="module")
def file(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    weights.save(folder, params)
    return folder / "diffusion_pytorch_model.safetensors"


def kinds(found):
    leaves = jax.tree_util.tree_flatten_with_path(found, is_leaf=is_quantized)[0]
    return {path[0].key: leaf.kind for path, leaf in leaves if is_quantized(leaf)}


def bound(kind, rows):
    """By how much each number may be off: half a step of max / 127; a step of max / 8 of 32 columns, where it has
    another
    sign than the largest of them, and steps are whole numbers of a 120th of the row's; or half of three bits of a
    mantissa.
    """
    most = np.abs(rows).max(-1, keepdims=True)
    if kind == "int8":
        return np.broadcast_to(most / 127 / 2, rows.shape)
    if kind == "int4":
        groups = np.abs(rows.reshape(len(rows), -1, 32)).max(-1)
        return np.repeat(groups / 8 + most / 120, 32, axis=-1)
    return np.abs(rows) / 16 + 1e-3


@pytest.mark.parametrize("kind", quantized.MADE)
def test_made_of_any_checkpoint(file, params, kind):
    """What repeats and tables of words are quantised, each number by as much as the kind is off at most."""
    found = weights.load(file, tree(), quantize=kind)
    assert kinds(found) == {"blocks.0": kind, "blocks.1": "int8" if kind == "int4" else kind, "words": kind}
    for name, leaf, turned in (("blocks.0", "kernel", True), ("words", "embedding", False)):
        node, exact = found[name][leaf], params[name][leaf]
        assert (node.shape, node.dtype, node.ndim) == (exact.shape, np.float32, 2)
        rows = exact.T if turned else exact
        off = np.abs(np.asarray(node.rows()) - rows)
        assert (off <= 1.001 * bound(kind, rows)).all()
        assert np.sqrt((off**2).mean()) < {"int8": 0.01, "int4": 0.1, "float8": 0.03}[kind]  # of a deviation of 1
        np.testing.assert_array_equal(node.widened(), np.asarray(node.rows()).T if turned else node.rows())
    halves = weights.load(file, tree(), quantize=kind, dtype="bfloat16")
    assert halves["blocks.0"]["kernel"].widened().dtype == halves["first"]["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", quantized.MADE)
def test_saved_and_loaded(file, tmp_path, kind):
    """To the bit, whether it is quantised while it is written or when it is loaded."""
    found = weights.load(file, tree(), quantize=kind)
    told = []
    weights.save(tmp_path / "at once", found)
    read = weights.tensors(file)
    weights.save(tmp_path / "in turn", lazy(read, tree(), file=file, quantize=kind, report=told.append))
    for folder in ("at once", "in turn"):
        again = weights.load(tmp_path / folder / file.name, tree())
        assert kinds(again) == kinds(found)
        jax.tree.map(np.testing.assert_array_equal, again, found)
    assert sum(told) == sum(leaf.nbytes for leaf in jax.tree.leaves(found))
    read = weights.tensors(tmp_path / "at once" / file.name)
    weights.save(tmp_path / "wide", lazy(read, tree(), file=file, dtype="float16"))
    wide = weights.load(tmp_path / "wide" / file.name, tree())
    assert not kinds(wide)
    np.testing.assert_array_equal(wide["words"]["embedding"], found["words"]["embedding"].widened().astype(np.float16))


def test_zeros_and_extremes_stay_finite():
    matrix = np.zeros((3, 32), np.float32)
    matrix[1], matrix[2] = 1e-12, 1e4
    for kind in quantized.MADE:
        node = Quantized(kind, quantized.made(kind, matrix), 32, False, np.dtype(np.float32))
        np.testing.assert_allclose(node.widened(), matrix, rtol=1e-2, atol=1e-6)
        other = Quantized(kind, quantized.made(kind, jnp.asarray(matrix), jnp), 32, False, np.dtype(np.float32))
        np.testing.assert_allclose(other.widened(), node.widened(), rtol=1e-3)


@pytest.mark.parametrize("kind", ["int8", "int4", "float8"])
def test_layers_widen_what_they_read(file, kind):
    """Under jit, vmap and scan, and with gradients, as with the widened array."""
    found = weights.load(file, tree(), quantize=kind)
    wide = jax.tree.map(quantized.widened, found, is_leaf=is_quantized)
    x = jnp.asarray(RNG.standard_normal((2, 5, 64)), jnp.float32)
    layer, embed = Linear(96), Embed(2048, 64)

    def apply(params, x):
        return layer.apply({"params": params}, x)

    ours, exact = (jax.jit(apply)(one["blocks.0"], x) for one in (found, wide))
    np.testing.assert_allclose(ours, exact, atol=1e-4 * np.abs(exact).max())
    slopes, theirs = (jax.grad(lambda x, one=one: (apply(one["blocks.0"], x) ** 2).sum())(x) for one in (found, wide))
    np.testing.assert_allclose(slopes, theirs, atol=1e-3 * np.abs(theirs).max())
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), found["blocks.0"], found["blocks.0"])
    assert stacked["kernel"].shape == (2, 64, 96)
    np.testing.assert_allclose(jax.vmap(apply)(stacked, x), ours, rtol=1e-5, atol=1e-5)
    _, scanned = jax.lax.scan(lambda _, params: (None, apply(params, x)), None, stacked)
    np.testing.assert_allclose(scanned[1], ours, rtol=1e-5, atol=1e-5)
    ids = jnp.asarray([[3, 2047], [0, 3]])
    rows, wanted = (embed.apply({"params": one["words"]}, ids) for one in (found, wide))
    np.testing.assert_array_equal(rows, wanted)


def test_int8_products_are_exact_but_for_the_digits_of_the_input():
    x = RNG.standard_normal((7, 300)).astype(np.float32) * 10.0 ** RNG.integers(-6, 6, (7, 1))
    x[3] = 0
    codes, scales = RNG.integers(-127, 128, (50, 300)).astype(np.int8), RNG.random((50, 1)).astype(np.float32)
    exact = x.astype(np.float64) @ (codes * scales.astype(np.float64)).T
    most = np.abs(x).max(-1, keepdims=True) / 65534 * np.abs(codes * scales).sum(-1)
    assert (np.abs(np.asarray(int8_product(x, codes, scales)) - exact) <= most + 1e-5 * np.abs(exact)).all()
    slope = jax.grad(lambda scales: int8_product(x, codes, scales).sum())(scales)
    np.testing.assert_allclose(slope[:, 0], (x @ codes.T.astype(np.float32)).sum(0), rtol=1e-4)


def test_parts_go_where_the_matrix_goes(file):
    """Over a mesh of one device, and whole where they do not divide."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    spec = jax.sharding.PartitionSpec("data", None)
    found = weights.load(file, tree(), quantize="int4", sharding=jax.sharding.NamedSharding(mesh, spec))
    parts = [found[name][leaf].parts["codes"] for name, leaf in (("words", "embedding"), ("blocks.0", "kernel"))]
    assert [part.sharding.spec for part in parts] == [spec, jax.sharding.PartitionSpec(None, "data")]
    four = jax.sharding.NamedSharding(jax.sharding.AbstractMesh((4,), ("data",)), spec)
    assert weights._of_part(four, True, (96, 6)).spec == jax.sharding.PartitionSpec(None, None)


# bitsandbytes and float8


def raw(folder, arrays):
    made = {k: safetensors.Array(v.shape, v.dtype, lambda v=v: v) for k, v in arrays.items()}
    safetensors.write(folder / "raw.safetensors", made)
    return folder / "raw.safetensors"


def only(kernel=(64, 96)):
    return {"blocks.0": {"kernel": jax.ShapeDtypeStruct(kernel, np.float32)}}


NF4 = np.sort(RNG.standard_normal(16)).astype(np.float32)


def mapped(nested, blocksize=64, shape=(96, 64)):
    """The tensors of a matrix as bitsandbytes lays them down, and its numbers, by their definition."""
    count = int(np.prod(shape))
    codes = RNG.integers(0, 16, count)
    said = {"quant_type": "nf4", "blocksize": blocksize, "dtype": "bfloat16", "shape": list(shape)}
    name = "blocks.0.weight"
    arrays = {name: (codes[::2] << 4 | codes[1::2]).astype(np.uint8)[:, None], f"{name}.quant_map": NF4}
    blocks = count // blocksize
    scales = RNG.random(blocks).astype(np.float32)
    if nested:
        inner, outer = RNG.integers(0, 256, blocks), RNG.random(-(-blocks // 16)).astype(np.float32)
        table = np.linspace(-1, 1, 256, dtype=np.float32)
        scales = table[inner] * np.repeat(outer, 16)[:blocks] + np.float32(0.7)
        said |= {"nested_blocksize": 16, "nested_offset": 0.7, "nested_dtype": "float32"}
        arrays |= {f"{name}.absmax": inner.astype(np.uint8), f"{name}.nested_absmax": outer,
                   f"{name}.nested_quant_map": table}  # fmt: skip
    else:
        arrays |= {f"{name}.absmax": scales}
    state = np.frombuffer(json.dumps(said).encode(), np.uint8)
    numbers = (NF4[codes] * np.repeat(scales, blocksize)).reshape(shape)
    return {**arrays, f"{name}.quant_state.bitsandbytes__nf4": state}, numbers


@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_of_4_bits(tmp_path, nested):
    arrays, numbers = mapped(nested)
    found = weights.load(raw(tmp_path, arrays), only())
    assert kinds(found) == {"blocks.0": "nf4"}
    np.testing.assert_allclose(found["blocks.0"]["kernel"].widened(), numbers.T, rtol=1e-6)
    weights.save(tmp_path / "again", found)
    again = weights.load(tmp_path / "again" / "diffusion_pytorch_model.safetensors", only())
    jax.tree.map(np.testing.assert_array_equal, again, found)


def test_blocks_that_run_from_row_to_row_are_widened(tmp_path):
    arrays, numbers = mapped(False, shape=(64, 96))
    found = weights.load(raw(tmp_path, arrays), only((96, 64)))
    assert not kinds(found)
    np.testing.assert_allclose(found["blocks.0"]["kernel"], numbers.T, rtol=1e-6)
    with pytest.raises(ValueError, match="its blocks run across the cut"):
        views.rows(weights.tensors(raw(tmp_path, arrays))["blocks.0.weight"], 0, 32)


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
def test_float8_with_a_scale(tmp_path, name):
    codes = RNG.standard_normal((96, 64)).astype(ml_dtypes.float8_e4m3fn)
    arrays = {"blocks.0.weight": codes, f"blocks.0.{name}": np.asarray([0.25], np.float32),
              "blocks.0.scale_input": np.ones(1, np.float32), "scaled_fp8": np.zeros(2, ml_dtypes.float8_e4m3fn)}
    found = weights.load(raw(tmp_path, arrays), only())
    np.testing.assert_array_equal(found["blocks.0"]["kernel"].widened(), 0.25 * codes.astype(np.float32).T)
    plain = weights.load(raw(tmp_path, {"blocks.0.weight": codes}), only(), quantize="float8")["blocks.0"]["kernel"]
    np.testing.assert_array_equal(plain.widened(), codes.astype(np.float32).T)
    assert plain.parts["codes"].dtype == ml_dtypes.float8_e4m3fn


def test_bitsandbytes_of_8_bits(tmp_path):
    codes, most = RNG.integers(-127, 128, (96, 64)).astype(np.int8), RNG.random(96).astype(np.float32)
    arrays = {"blocks.0.weight": codes, "blocks.0.SCB": most, "blocks.0.weight_format": np.zeros((), np.uint8)}
    found = weights.load(raw(tmp_path, arrays), only())["blocks.0"]["kernel"]
    np.testing.assert_allclose(found.widened(), (codes * most[:, None] / 127).T, rtol=1e-6)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"blocks.0.weight.absmax": None}, "holds .*nf4 and lacks blocks.0.weight.absmax"),
        ({"blocks.0.weight.absmax": np.ones(3, np.float32)}, "does not fit its weight .3072 bytes and 3 scales"),
        ({"blocks.0.weight.quant_state.bitsandbytes__nf4": np.zeros(4, np.uint8)}, "does not fit its weight"),
        ({"blocks.0.weight": None}, "lacks blocks.0.weight"),
    ],
)
def test_damaged_files_of_bitsandbytes_are_refused(tmp_path, change, said):
    arrays = {name: array for name, array in {**mapped(False)[0], **change}.items() if array is not None}
    with pytest.raises(ValueError, match=said) as error:
        weights.load(raw(tmp_path, arrays), only())
    assert "raw.safetensors" in str(error.value) and "\n" not in str(error.value)


def test_numbers_without_their_scales_are_refused(tmp_path):
    found = weights.load(raw(tmp_path, {"blocks.0.weight": RNG.random((96, 64), np.float32)}), only(), quantize="int8")
    weights.save(tmp_path / "own", found)
    stored = safetensors.read(tmp_path / "own" / "diffusion_pytorch_model.safetensors")
    arrays = {name: tensor.read() for name, tensor in stored.items()}
    arrays["blocks.0.weight.int8.scales"] = np.ones((7, 1), np.float32)
    with pytest.raises(ValueError, match=r"its scales have shape \(7, 1\) in place of \(96, 1\)"):
        weights.tensors(raw(tmp_path, arrays))
    del arrays["blocks.0.weight.int8.scales"]
    with pytest.raises(ValueError, match=r"lacks blocks\.0\.weight\.int8\.scales"):
        weights.tensors(raw(tmp_path, arrays))


# GGUF


def written(folder, tensors, metadata=(), version=3):
    """A file of tensors {name: (type, shape as torch has it, bytes)}, as its description says."""
    text = lambda word: struct.pack("<Q", len(word.encode())) + word.encode()  # noqa: E731
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata)) + b"".join(metadata)
    body = b""
    for name, (kind, shape, data) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(body))
        body += data + b"\0" * (-len(data) % 32)
    file = folder / "model.gguf"
    file.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return file


def said(name, value):
    key = struct.pack("<Q", len(name)) + name.encode()
    if isinstance(value, str):
        return key + struct.pack("<IQ", 8, len(value)) + value.encode()
    return key + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)



def blocks(kind, rows, count):
    """Bytes of such blocks, whose scales are small numbers."""
    one = ggml.KINDS[kind]
    made = RNG.integers(0, 256, (rows, count, one.nbytes), np.uint8)
    places = {"q6_k": (208,)}.get(kind, (0, 2) if kind in ("q4_1", "q5_1", "q4_k", "q5_k") else (0,))
    for place in places:
        made[..., place : place + 2] = RNG.random((rows, count, 1)).astype(np.float16).view(np.uint8)
    return made.reshape(rows, -1)


@pytest.mark.parametrize("number", gguf.BLOCKS)
def test_gguf_stays_as_its_blocks(tmp_path, number):
    kind, shape = gguf.BLOCKS[number], (64, 512)
    data = blocks(kind, 64, 512 // ggml.KINDS[gguf.BLOCKS[number]].numbers)
    half = RNG.standard_normal(64).astype(ml_dtypes.bfloat16)
    file = written(tmp_path, {
        "blocks.0.weight": (number, shape, data.tobytes()), "blocks.0.bias": (30, (64,), half.tobytes()),
    })  # fmt: skip
    wanted = {"kernel": jax.ShapeDtypeStruct((512, 64), np.float32), "bias": jax.ShapeDtypeStruct((64,), np.float32)}
    found = weights.load(file, {"blocks.0": wanted})
    kernel = found["blocks.0"]["kernel"]
    assert kernel.kind == kind and kernel.nbytes == data.nbytes and kernel.shape == (512, 64)
    np.testing.assert_array_equal(kernel.parts["codes"], data)
    np.testing.assert_array_equal(found["blocks.0"]["bias"], half)
    part = views.rows(weights.tensors(file)["blocks.0.weight"], 16, 48)
    np.testing.assert_array_equal(part.read(), np.asarray(kernel.rows())[16:48])
    x = jnp.asarray(RNG.standard_normal((3, 512)), jnp.float32)
    y = Linear(64).apply({"params": found["blocks.0"]}, x)
    np.testing.assert_allclose(y, x @ kernel.widened() + half.astype(np.float32), rtol=1e-4, atol=1e-3)


@pytest.mark.parity
@pytest.mark.parametrize("number", gguf.BLOCKS)
def test_parity_of_gguf(tmp_path, number):
    """Read and widened as the package of that name does it."""
    theirs = pytest.importorskip("gguf")
    kind = theirs.GGMLQuantizationType(number)
    matrix = RNG.standard_normal((64, 512)).astype(np.float32)
    try:
        data = theirs.quants.quantize(matrix, kind)
    except NotImplementedError:
        data = blocks(gguf.BLOCKS[number], 64, 2)
    writer = theirs.GGUFWriter(tmp_path / "theirs.gguf", "flux")
    writer.add_array("words", ["a"] * 100)
    writer.add_tensor("blocks.0.weight", data, raw_dtype=kind)
    writer.add_tensor("blocks.0.bias", matrix[:, 0].astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = weights.tensors(tmp_path / "theirs.gguf")
    np.testing.assert_array_equal(found["blocks.0.weight"].read(), theirs.quants.dequantize(data, kind))
    np.testing.assert_array_equal(found["blocks.0.bias"].read(), matrix[:, 0].astype(np.float16))


@pytest.mark.parity
@pytest.mark.parametrize("nested", [False, True])
def test_parity_of_bitsandbytes(tmp_path, nested):
    """What it writes of a layer, read and widened as it does it."""
    bnb, torch = pytest.importorskip("bitsandbytes"), pytest.importorskip("torch")
    weight = torch.randn(96, 128)
    options = {"blocksize": 64, "quant_type": "nf4", "compress_statistics": nested}
    packed_weight, state = bnb.functional.quantize_4bit(weight, **options)
    arrays = {"blocks.0.weight": packed_weight.numpy()}
    arrays |= {f"blocks.0.weight.{name}": value.numpy() for name, value in state.as_dict(packed=True).items()}
    found = weights.load(raw(tmp_path, arrays), only((128, 96)))
    exact = bnb.functional.dequantize_4bit(packed_weight, state).numpy()
    np.testing.assert_allclose(found["blocks.0"]["kernel"].widened(), exact.T, rtol=1e-6, atol=1e-7)


def test_names_of_text_encoders_and_shapes_of_convolutions(tmp_path):
    """llama.cpp's names, and the shapes that ggml has too few axes for."""
    one = (0, (2, 3), np.arange(6, dtype=np.float32).tobytes())
    names = ("token_embd.weight", "blk.11.attn_q.weight", "blk.0.ffn_norm.weight", "output_norm.weight")
    qwen = dict.fromkeys(names, one)
    found = weights.tensors(written(tmp_path, qwen, [said("general.architecture", "qwen3")]))
    assert list(found) == ["model.embed_tokens.weight", "model.layers.11.self_attn.q_proj.weight",
                           "model.layers.0.post_attention_layernorm.weight", "model.norm.weight"]  # fmt: skip
    t5 = {"enc.blk.3.ffn_gate.weight": one, "enc.output_norm.weight": one, "enc.blk.0.attn_rel_b.weight": one}
    found = weights.tensors(written(tmp_path, t5, [said("general.architecture", "t5encoder")]))
    assert list(found) == ["encoder.block.3.layer.1.DenseReluDense.wi_0.weight", "encoder.final_layer_norm.weight",
                           "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]  # fmt: skip
    found = weights.tensors(written(tmp_path, {"a": one}, [said("comfy.gguf.orig_shape.a", [3, 2, 1])]))
    assert found["a"].read().shape == (3, 2, 1)
    with pytest.raises(ValueError, match=r"model\.gguf is of the architecture 'mamba', which fdiff does not have"):
        weights.tensors(written(tmp_path, qwen, [said("general.architecture", "mamba")]))


def test_blocks_that_are_not_read_are_told(tmp_path):
    with pytest.raises(ValueError, match="holds a as IQ4_NL, which is not read; choose a file with Q4_0"):
        weights.tensors(written(tmp_path, {"a": (20, (32,), bytes(18))}))
    with pytest.raises(ValueError, match="no GGUF file of version 2 or 3"):
        weights.tensors(written(tmp_path, {}, version=1))
    with pytest.raises(ValueError, match="stands for"):
        weights.tensors(written(tmp_path, {"a": (0, (2,), bytes(8))}, [said("comfy.gguf.orig_shape.a", [3])]))


def test_forged_headers_end_in_one_sentence(tmp_path):
    """Cut anywhere, or with any byte of the header changed, a file is read or refused with its name."""
    file = written(tmp_path, {"blocks.0.weight": (2, (4, 32), bytes(72))}, [said("general.architecture", "flux")])
    whole = file.read_bytes()
    forged = [whole[:length] for length in range(4, len(whole), 3)]
    forged += [whole[:i] + bytes([255 - whole[i]]) + whole[i + 1 :] for i in range(4, 150)]
    forged += [whole[:i] + b"\xff" * 8 + whole[i + 8 :] for i in range(4, 150)]
    refused = 0
    for data in forged:
        file.write_bytes(data)
        try:
            weights.tensors(file)
        except ValueError as error:
            refused += 1
            assert "model.gguf" in str(error) and "\n" not in str(error)
    assert refused > len(forged) / 2


@pytest.mark.parametrize("kind", [None, "int8", "int4"])
def test_matrices_that_stay_in_their_file(file, tmp_path, kind):
    """They are read when they are computed with, under jit, vmap, scan and grad, and cannot be saved."""
    whole, left = (weights.load(file, tree(), quantize=kind, streamed=streamed) for streamed in (False, True))
    kernel = left["blocks.0"]["kernel"]
    assert isinstance(kernel, Streamed) and (kernel.shape, kernel.dtype) == ((64, 96), np.float32)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(left["blocks.0"])) < 1000
    x = jnp.asarray(RNG.standard_normal((2, 5, 64)), jnp.float32)

    def apply(params, x):
        return Linear(96).apply({"params": params}, x)

    exact = apply(whole["blocks.0"], x)
    np.testing.assert_allclose(jax.jit(apply)(left["blocks.0"], x), exact, rtol=1e-5, atol=1e-5)
    slopes = [jax.grad(lambda x, one=one: (apply(one["blocks.0"], x) ** 2).sum())(x) for one in (left, whole)]
    np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-4)
    twice = jax.tree.map(lambda *leaves: jnp.stack(leaves), left["blocks.0"], left["blocks.0"])
    _, scanned = jax.lax.scan(lambda _, params: (None, apply(params, x)), None, twice)
    np.testing.assert_allclose(scanned[1], exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(apply)(twice, x), exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(quantized.widened(kernel), quantized.widened(whole["blocks.0"]["kernel"]))
    with pytest.raises(ValueError, match=r"blocks\.0\.weight stays in its file; copy that"):
        weights.save(tmp_path, left)


@pytest.mark.parametrize("kind", [*quantized.MADE, *ggml.KINDS])
def test_one_matrix_is_widened_at_a_time(kind):
    """What a program needs beside its matrices does not grow with their number."""
    if kind in quantized.MADE:
        parts = quantized.made(kind, np.random.default_rng(0).standard_normal((256, 256), np.float32))
    else:
        parts = {"codes": np.zeros((256, 256 // ggml.KINDS[kind].numbers * ggml.KINDS[kind].nbytes), np.uint8)}
    leaf = Quantized(kind, parts, 256, True, np.dtype(np.float32))

    def through(x, leaves):
        for one in leaves:
            x = x + product(jnp.tanh(x), one)
        return x

    def held(count):
        program = jax.jit(through).lower(np.ones((8, 256), np.float32), [leaf] * count).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert held(12) < held(2) + 4096
