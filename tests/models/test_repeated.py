"""Blocks that repeat, stacked: the same numbers, and a program that does not grow with their number."""

import dataclasses
import re
from importlib import import_module

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from convert.methods import Factors
from convert.quantized import holds_quantized
from fdiff.adapters import lora
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.repeated import all_repeated
from fdiff.stacked import RUN
from fdiff.training.remat import rematerialized
from tests.models import test_causal_lm, test_joint, test_single_stream, test_sound, test_t5
from tests.models.compare import assert_close, read
from tests.reference import make_transformers

STORED = {  # by the module whose references they are
    "transformers": ("z_image", "flux2", "flux", "dit"),
    "joint": ("sd35", "chroma_masked", "sd3_control", "flux_control"),
    "single_stream": ("ernie_image", "krea2", "lumina2", "flux3_kept", "qwenimage21_kept"),
    "causal_lm": ("qwen3", "gemma2"),
    "t5": ("t5", "umt5"),
    "unet_2d_condition": ("sdxl",),
}
COUNTS = ("num_layers", "num_single_layers", "num_hidden_layers", "n_layers")
GROWING = {  # the cases of models whose blocks are all of one form
    "transformers": ("z_image", "flux2", "flux", "dit", "pixart", "sana"),
    "joint": ("chroma",),
    "single_stream": ("ernie_image", "krea2", "lumina2", "flux3_kept", "qwenimage21_kept"),
    "qwenimage": ("kept_still",),
    "causal_lm": ("qwen3", "gemma2"),
    "t5": ("umt5",),
}


def model_of(subject, name):
    """The model of a reference."""
    cases = import_module(f"tests.reference.make_{subject}")
    if subject == "unet_2d_condition":
        return fdiff.UNet2DConditionModel.from_config({**cases.BASE, **cases.CONFIGS[name]})
    configs = cases.TRANSFORMERS if subject == "qwenimage" else cases.CONFIGS
    kind, config = ("QwenImageTransformer2DModel", configs[name]) if subject == "qwenimage" else configs[name]
    return getattr(fdiff, kind).from_config(config)


def pairs(cases):
    return [pytest.param(subject, name, id=f"{subject}-{name}") for subject in cases for name in cases[subject]]


@pytest.mark.parametrize(("subject", "name"), pairs(STORED))
def test_stacked_blocks_compute_what_others_did(reference, subject, name):
    folder, model = reference / subject, model_of(subject, name)
    params = fdiff.stack_blocks(type(model).from_pretrained(folder / name, dtype="float32")[1])
    expected, cases = read(folder / f"{name}.npz"), import_module(f"tests.reference.make_{subject}")
    if subject in ("causal_lm", "t5"):
        {"causal_lm": test_causal_lm, "t5": test_t5}[subject].compare(model, params, expected)
    else:
        output_of = test_single_stream.output_of if subject == "single_stream" else test_joint.output_of
        assert_close(output_of(model, params, cases.inputs(name)), expected["output"])


@pytest.mark.parametrize("name", ["stable_audio", "ace_step"])
def test_stacked_blocks_of_networks_of_sound_do_too(reference, name):
    model, params = test_sound.model_of(name)
    stacked = fdiff.stack_blocks(params)
    assert any(map(RUN.fullmatch, stacked))
    test_sound.compare(name, model, stacked, read(reference / "sound" / f"{name}.npz").values())


def test_every_state_of_clip_comes_out_of_a_loop_too(reference):
    model, params = fdiff.CLIPTextModel.from_pretrained(reference / "clip/text_encoder", dtype="float32")
    ids, stacked = np.arange(10)[None], fdiff.stack_blocks(params)
    assert any(map(RUN.fullmatch, stacked["text_model.encoder"]))
    wanted, found = (model.apply({"params": tree}, ids) for tree in (params, stacked))
    jax.tree.map(lambda one, other: assert_close(one, other, 1e-5), found, wanted)


def grown(shapes, count):
    """The tree with so many blocks in each stack."""
    changed = {}
    for name, tree in shapes.items():
        if RUN.fullmatch(name):
            stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), tree)
            changed[re.sub(r"\d+$", str(count), name)] = stack
        else:
            changed[name] = grown(tree, count) if isinstance(tree, dict) else tree
    return changed


def program(model, shapes, count):
    """The model with so many blocks of each kind, lowered."""
    fields = {field.name for field in dataclasses.fields(model)}
    changes = {name: count for name in COUNTS if name in fields}
    if getattr(model, "layer_types", None):
        changes["layer_types"] = None
    larger = dataclasses.replace(model, **changes)
    inputs = larger.example_inputs()
    return jax.jit(lambda params: larger.apply({"params": params}, *inputs)).lower(grown(shapes, count))


def operations(text):
    return len(re.findall(r" = ", text))


@pytest.mark.parametrize(("subject", "name"), pairs(GROWING))
def test_programs_do_not_grow_with_the_number_of_blocks(subject, name):
    model = model_of(subject, name)
    model = dataclasses.replace(model, **{key: 2 for key in COUNTS if hasattr(model, key)})
    shapes = jax.eval_shape(fdiff.stack_blocks, model.shapes())
    few, many = (operations(program(model, shapes, count).as_text()) for count in (2, 20))
    assert few == many


def test_compiled_programs_do_not_grow_either():
    model = model_of("transformers", "flux2")
    shapes = jax.eval_shape(fdiff.stack_blocks, model.shapes())
    few, many = (operations(program(model, shapes, count).compile().as_text()) for count in (2, 20))
    assert few == many


@pytest.fixture(scope="module")
def flux(reference):
    """(model, parameters, stacked ones) of a tiny FLUX.1."""
    model, params = fdiff.FluxTransformer2DModel.from_pretrained(reference / "transformers/flux", dtype="float32")
    return model, params, fdiff.stack_blocks(params)


def test_stacking_and_its_inverse(flux, tmp_path):
    model, params, stacked = flux
    assert {name for name in stacked if RUN.fullmatch(name)} == {
        "transformer_blocks.0:3", "single_transformer_blocks.0:2"
    }  # fmt: skip
    assert "transformer_blocks.0" in params  # the tree that was given is whole
    again = fdiff.unstack_blocks(stacked)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    model.save_pretrained(tmp_path, stacked)
    jax.tree.map(np.testing.assert_array_equal, type(model).from_pretrained(tmp_path)[1], params)


def test_only_blocks_of_one_form_that_follow_each_other_are_stacked():
    def block(width):
        return {"linear": {"kernel": np.zeros((width, 2))}}

    params = {f"layers.{i}": block(3 if i < 4 else 2) for i in (0, 1, 3, 4, 5, 10, 11)}
    plain = {"layers.0": {"kernel": np.zeros(2)}, "layers.1": {"kernel": np.zeros(2)}, "resnets.0": block(1),
             "resnets.1": block(1)}  # fmt: skip
    stacked = fdiff.stack_blocks({"unet": params, "vae": plain})
    assert set(stacked["unet"]) == {"layers.0:2", "layers.3", "layers.4:6", "layers.10:12"}
    assert set(stacked["vae"]) == set(plain)


def test_adapters_and_gradients_of_stacked_blocks(reference):
    """What is added to each is as without, and gradients, where blocks are computed again."""
    model, params = fdiff.DiTTransformer2DModel.from_pretrained(reference / "transformers/dit", dtype="float32")
    stacked, arrays, random = fdiff.stack_blocks(params), make_transformers.inputs("dit"), np.random.default_rng(0)
    blocks = {name: tree for name, tree in params.items() if name.startswith("transformer_blocks")}
    edits = jax.tree.map(lambda leaf: 0.1 * random.normal(size=leaf.shape).astype(np.float32), blocks)

    def loss(params):
        return jnp.square(model.apply({"params": params, "lora": edits}, **arrays)).sum()

    def remat(params):
        with rematerialized():
            return loss(params)

    wanted, slopes = jax.jit(jax.value_and_grad(loss))(params)
    found, same = jax.jit(jax.value_and_grad(remat))(stacked)
    assert_close(found, wanted, 1e-5)
    jax.tree.map(lambda one, other: assert_close(one, other, 1e-4), fdiff.unstack_blocks(same), slopes)
    some = {"transformer_blocks.1": edits["transformer_blocks.1"]}
    with pytest.raises(ValueError, match=r"some of the blocks transformer_blocks.0:2 alone.*fdiff.unstack_blocks"):
        jax.eval_shape(lambda params: model.apply({"params": params, "lora": some}, **arrays), stacked)


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Linear(2, name="linear")(x) + jax.random.normal(self.make_rng("dropout"), x.shape)


class Noise(nn.Module):
    @nn.compact
    def __call__(self, x):
        states = all_repeated(self, 3, lambda i: Noisy(name=f"layers.{i}"), lambda block, x, i: block(x), x)
        return [after - before for before, after in zip([x, *states], states, strict=False)]


def test_what_is_drawn_differs_from_block_to_block():
    params = {f"layers.{i}": {"linear": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}} for i in range(3)}
    drawn = Noise().apply({"params": fdiff.stack_blocks(params)}, jnp.zeros(2), rngs={"dropout": jax.random.key(0)})
    assert len({float(one[0]) for one in drawn}) == 3


def test_quantized_and_streamed_blocks(reference):
    folder, arrays = reference / "transformers/dit", make_transformers.inputs("dit")
    for how, tolerance in (({"quantize": "int8"}, 0.1), ({"streamed": True}, 1e-4)):
        model, params = fdiff.DiTTransformer2DModel.from_pretrained(folder, dtype="float32", **how)
        stacked = fdiff.stack_blocks(params)
        assert jax.tree.structure(fdiff.unstack_blocks(stacked)) == jax.tree.structure(params)
        assert holds_quantized(stacked["transformer_blocks.0:2"])
        out = test_joint.output_of(model, stacked, arrays)
        assert_close(out, read(reference / "transformers/dit.npz")["output"], tolerance)


def test_what_needs_blocks_one_by_one_says_so(flux):
    stacked = flux[2]
    layer = "transformer_blocks.1.attn.to_q"
    up, down = np.ones((20, 1), np.float32), np.ones((1, 20), np.float32)
    adapter = {"transformer": {layer: Factors(down, up, 1.0)}}
    assert lora.collection({"transformer": stacked}, adapter).keys() == {"transformer"}
    with pytest.raises(ValueError, match=r"merging an adapter needs each block by itself.*fdiff.stack_blocks"):
        lora.merge({"transformer": stacked}, adapter)
    dit = fdiff.DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=4, in_channels=1, num_layers=3)
    stacked = fdiff.stack_blocks(jax.tree.map(lambda leaf: jnp.ones(leaf.shape), dit.shapes()))
    network = jax.tree_util.Partial(lambda params, x, t: dit.apply({"params": params}, x, t), stacked)
    with pytest.raises(ValueError, match="in a loop, such as that over stacked blocks"):
        fdiff.cached(network, fdiff.DDIMScheduler().plan(3), jnp.zeros((1, 4, 4, 1)), fdiff.DeepCache())
