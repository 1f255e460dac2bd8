"""Every method of adapters against its formula, and every method that is refused by its name."""

import gzip
import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from convert import lora, lora_names, methods
from tests.convert import original_names

SHAPES = {"unet": {"a.to_q": (8, 6), "a.conv": (8, 6, 3, 3), "a.conv.bias": (8,), "a.norm": (8,), "a.norm.bias": (8,)}}
LAYERS = ("a.to_q", "a.conv")


@pytest.fixture
def read(tmp_path):
    def reading(arrays, layer=None, alpha=None, metadata=None):
        name = f"lora_unet_{layer.replace('.', '_')}." if layer else ""
        found = {f"{name}{part}": np.asarray(array) for part, array in arrays.items()}
        if alpha is not None:
            found[f"{name}alpha"] = np.float32(alpha)
        save_file({key: np.ascontiguousarray(array) for key, array in found.items()}, tmp_path / "x.safetensors",
                  metadata=metadata)
        adapter = lora.read(tmp_path / "x.safetensors", SHAPES)
        return adapter["unet"][layer] if layer else adapter["unet"]

    return reading


def draw(*shape):
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32)


def added(one):
    """What a change adds, by the formulas, in float64."""

    def product(up, down):
        high, wide = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (up, down))
        return (high @ wide).reshape(len(up), *down.shape[1:])

    if isinstance(one, methods.Whole):
        return one.scale * np.asarray(one.difference, np.float64)
    if isinstance(one, methods.Kronecker):
        second = product(*one.second) if isinstance(one.second, tuple) else one.second
        assert one.inner == second.shape
        first = one.first.reshape(*one.first.shape, *(1,) * (second.ndim - 2))
        return one.scale * np.kron(first.astype(np.float64), second)
    factor = one.alpha / one.rank * product(one.up, one.down)
    return factor * product(one.up_2, one.down_2) if isinstance(one, methods.Hadamard) else factor


@pytest.mark.parametrize("layer", LAYERS)
def test_loha(read, layer):
    out, size = SHAPES["unet"][layer][0], math.prod(SHAPES["unet"][layer][1:])
    parts = {"hada_w1_a": draw(out, 2), "hada_w1_b": draw(2, size)}
    parts |= {"hada_w2_a": draw(out, 3), "hada_w2_b": draw(3, size)}
    want = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    for alpha, scale in ((None, 1), (5, 2.5)):
        found = read(parts, layer, alpha)
        np.testing.assert_allclose(added(found), scale * want.reshape(found.shape), rtol=1e-4, atol=1e-5)


def test_loha_in_tuckers_form(read):
    parts = {f"hada_t{i}": i * draw(2, 2, 3, 3) for i in (1, 2)}
    parts |= {f"hada_w{i}_{side}": i * draw(2, size) for i in (1, 2) for side, size in (("a", 8), ("b", 6))}
    halves = [np.einsum("pqhw,po,qi->oihw", *(parts[f"hada_{part}"] for part in (f"t{i}", f"w{i}_a", f"w{i}_b")))
              for i in (1, 2)]
    np.testing.assert_allclose(added(read(parts, "a.conv", 3)), 1.5 * halves[0] * halves[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_lokr(read, layer):
    spatial = SHAPES["unet"][layer][2:]
    first, a, b = draw(2, 3), draw(2, 4), draw(4, 3)
    second, up, down = draw(4, 2, *spatial), draw(4, 4), draw(4, 2 * math.prod(spatial))

    def kron(first, second):
        inner = second.reshape(4, 2, *spatial)
        return np.einsum("ab,cd...->acbd...", first, inner).reshape(SHAPES["unet"][layer])

    whole = {"lokr_w1": first, "lokr_w2": second}
    np.testing.assert_allclose(added(read(whole, layer, 3)), kron(first, second), rtol=1e-4)  # not 3 / rank
    pairs = {"lokr_w1_a": a, "lokr_w1_b": b}
    factored = {"lokr_w2_a": up, "lokr_w2_b": down}
    for parts, want in (
        (pairs | {"lokr_w2": second}, kron(a @ b, second)),
        ({"lokr_w1": first} | factored, kron(first, up @ down)),
        (pairs | factored, kron(a @ b, up @ down)),
    ):
        np.testing.assert_allclose(added(read(parts, layer, 2)), want / 2, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(added(read(parts, layer)), want, rtol=1e-4, atol=1e-5)


def test_lokr_in_tuckers_form(read):
    parts = {"lokr_w1": draw(2, 3), "lokr_t2": draw(4, 4, 3, 3), "lokr_w2_a": draw(4, 4), "lokr_w2_b": draw(4, 2)}
    second = np.einsum("pqhw,po,qi->oihw", parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    want = np.einsum("ab,cdhw->acbdhw", parts["lokr_w1"], second).reshape(8, 6, 3, 3)
    np.testing.assert_allclose(added(read(parts, "a.conv", 1)), want / 4, rtol=1e-4, atol=1e-5)


def test_differences_of_weights_biases_and_norms(read):
    weight, bias = draw(8, 6, 3, 3), draw(8)
    parts = {"conv.diff": weight, "conv.diff_b": bias, "norm.w_norm": 2 * bias, "norm.b_norm": 3 * bias}
    parts |= {"to_q.diff": draw(8, 6)}
    found = read({f"lora_unet_a_{name}": array for name, array in parts.items()})
    assert found.keys() == SHAPES["unet"].keys()
    for name, want in (("conv", weight), ("conv.bias", bias), ("norm", 2 * bias), ("norm.bias", 3 * bias)):
        np.testing.assert_array_equal(added(found[f"a.{name}"]), want)
    dots = {f"diffusion_model.a.norm.{part}": bias for part in ("diff", "diff_b")}  # as ComfyUI writes them
    assert read(dots).keys() == {"a.norm", "a.norm.bias"}


def test_scalars_multiply(read):
    parts = {"lora_down.weight": draw(2, 6), "lora_up.weight": draw(8, 2)}
    want = parts["lora_up.weight"] @ parts["lora_down.weight"]
    np.testing.assert_allclose(added(read(parts | {"scalar": np.float32(0.5)}, "a.to_q", 3)), 0.75 * want, rtol=1e-5)
    whole = {"lokr_w1": draw(2, 3), "lokr_w2": draw(4, 2), "scalar": np.float32(0.5)}
    np.testing.assert_allclose(added(read(whole, "a.to_q", 3)), 0.5 * np.kron(whole["lokr_w1"], whole["lokr_w2"]))


def test_a_bias_behind_the_factors_is_scaled_with_them(read):
    parts = {"lora_A.weight": draw(2, 6, 3, 3), "lora_B.weight": draw(8, 2, 1, 1), "lora_B.bias": draw(8)}
    parts |= {"alpha": np.ones(())}
    found = read({f"unet.a.conv.{part}": array for part, array in parts.items()})
    np.testing.assert_array_equal(added(found["a.conv.bias"]), draw(8) / 2)
    flat = {"unet.a.to_q.lora_A.weight": draw(2, 6), "unet.a.to_q.lora_B.weight": draw(8, 2)}
    with pytest.raises(ValueError, match=r"a.to_q in .* has a bias of shape \(8,\) and the model no bias there; this"):
        read(flat | {"unet.a.to_q.lora_B.bias": draw(8)})


@pytest.mark.parametrize("name", ["sd15-unet", "sdxl-unet"])
def test_the_names_of_real_models(shared_data, name):
    """Every weight, bias and norm, as LyCORIS, kohya and ComfyUI spell it, is found again."""
    with gzip.open(shared_data / "manifests" / f"{name}.json.gz") as stream:
        tensors = json.load(stream)["tensors"]
    shapes = {"unet": {key.removesuffix(".weight"): tuple(shape) for key, shape in tensors.items()}}
    wanted = {}
    for old, today in original_names.unet({name: name for name in tensors}).items():
        layer, _, leaf = today.rpartition(".")
        part = "diff" if leaf == "weight" else "diff_b"
        place = ("unet", layer if leaf == "weight" else today, "diff")
        for spelled, prefix, flat in ((old, "diffusion_model.", False), (old, "lora_unet_", True),
                                      (today, "lycoris_", True), (today, "unet.", False)):
            module = spelled.rpartition(".")[0]
            wanted[f"{prefix}{module.replace('.', '_') if flat else module}.{part}"] = place
    for prefix in ("diffusion_model.", "lora_unet_", "lycoris_", "unet."):  # a file has one spelling
        written = [one for one in wanted if one.startswith(prefix)]
        assert len(written) == len(tensors)
        assert lora_names.places(written, shapes, {}, "x") == {one: wanted[one] for one in written}


DAMAGED = [
    ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 6), "hada_w2_a": (8, 2)}, "lacks the hada_w2_b part of unet.a.to_q"),
    ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 6), "hada_w2_a": (8, 3), "hada_w2_b": (2, 6)}, r"\(8, 3\) and \(2, 6\)"),
    ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 7), "hada_w2_a": (8, 2), "hada_w2_b": (2, 7)}, r"\(8, 2\) and \(2, 7\)"),
    ({"lokr_w1": (2, 3)}, "lacks the lokr_w2_a part of unet.a.to_q"),
    ({"lokr_w1_a": (2, 3), "lokr_w2": (4, 2)}, "lacks the lokr_w1_b part"),
    ({"lokr_w1": (3, 3), "lokr_w2": (4, 2)}, r"has a first matrix of shape \(3, 3\) and the model's \(8, 6\)"),
    ({"lokr_w1": (2, 3), "lokr_w2": (2, 4)}, r"has matrices of shapes \(2, 3\) and \(2, 4\)"),
    ({"lokr_w1_a": (2, 3), "lokr_w1_b": (4, 3), "lokr_w2": (4, 2)}, r"has shapes \(2, 3\) and \(4, 3\)"),
    ({"lokr_w1": (6,), "lokr_w2": (4, 2)}, r"has a first matrix of shape \(6,\)"),
    ({"diff": (6, 8)}, r"has a difference of shape \(6, 8\) and the model's \(8, 6\)"),
    ({"diff_b": (8,)}, r"holds lora_unet_a_to_q.diff_b, which fits no layer"),
    ({"lokr_w1": (2, 3), "lokr_w2": (4, 2), "lokr_w1_a": (2, 1)}, "holds .*lokr_w1_a, which goes with no other part"),
    ({"lokr_w1": (2, 3), "lokr_w2": (4, 2), "lokr_t2": (2, 2)}, "holds .*lokr_t2, which goes with no other part"),
    ({"diff": (8, 6), "dora_scale": (8, 1)}, "holds .*dora_scale, which goes with no other part"),
    ({"diff": (8, 6), "lokr_w1": (2, 3), "lokr_w2": (4, 2)}, "holds .*, which fits no layer of another method"),
]


@pytest.mark.parametrize(("shapes", "message"), DAMAGED)
def test_damaged_files(read, shapes, message):
    with pytest.raises(ValueError, match=message):
        read({part: draw(*shape) for part, shape in shapes.items()}, "a.to_q")


def test_what_is_no_number(read):
    parts = {"lora_down.weight": draw(2, 6), "lora_up.weight": draw(8, 2)}
    assert read(parts | {"alpha": np.int64(2)}, "a.to_q").alpha == 2
    for wrong in ("int32", "bool"):
        with pytest.raises(ValueError, match=rf"holds lora_unet_a_to_q.lora_up.weight as {wrong}, which is no weight"):
            read(parts | {"lora_up.weight": np.ones((8, 2), wrong)}, "a.to_q")
    with pytest.raises(ValueError, match=r"the scalar of unet.a.to_q in .* is nan, not a number"):
        read(parts | {"scalar": np.float32("nan")}, "a.to_q")
    with pytest.raises(ValueError, match="has factors of a matrix and the model's"):
        read(parts, "a.norm")


REFUSED = {
    "oft_blocks": "OFT", "oft_R": "OFT", "boft_R": "BOFT", "a1.weight": "GLoRA", "glora_A": "GLoRA", "on_input": "IA3",
    "ia3_l": "IA3", "lambda_layer": "T-LoRA", "lora_E": "AdaLoRA", "lora_diag": "KaSA", "hra_u": "HRA",
    "lora_embedding_A": "LoRA of embeddings", "vera_lambda_b": "VeRA", "fourierft_spectrum": "FourierFT",
    "miss_block": "MiSS", "delora_A": "peft's delora", "set_weight": "whole weights",
    "modules_to_save.weight": r"whole modules \(modules_to_save\)",
}  # fmt: skip


@pytest.mark.parametrize(("part", "kind"), REFUSED.items())
def test_methods_that_are_refused_are_named(read, part, kind):
    with pytest.raises(ValueError, match=rf"holds unet.a.to_q.{part}, a part of {kind}, which is not supported; merge"):
        read({f"unet.a.to_q.{part}": draw(8, 6)})
