"""LoRA: merged, taken back, run unmerged; and beside diffusers and peft."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from convert import layout
from convert.methods import Hadamard, Kronecker, Whole
from fdiff.adapters import lora
from tests.adapters import dialects, tiny
from tests.adapters.live import compiled


@pytest.fixture(scope="module")
def sd():
    """(models, params) of a tiny Stable Diffusion."""
    built = tiny.models()
    return built, {name: tiny.random(model.shapes(), i) for i, (name, model) in enumerate(built.items())}


def weight(params, component, layer):
    """A layer's weight in torch's layout."""
    kernel = lora.layers(params[component])[layer][1]
    return np.moveaxis(np.asarray(kernel, np.float64), (-1, -2), (0, 1))


def product(factors):
    up, down = (np.asarray(x, np.float64).reshape(x.shape[0], -1) for x in (factors.up, factors.down))
    return factors.alpha / factors.rank * (up @ down).reshape(factors.up.shape[0], *factors.down.shape[1:])


def test_merging_adds_the_product(sd):
    _, params = sd
    one, other = tiny.adapter(params, alpha=3), tiny.adapter(params, rank=4, seed=2, only="attn")
    merged, _ = lora.merge(params, (one, 0.5), (other, {"unet": 2.0, "unet.mid_block": -1.0}))
    for layer in ("conv_in", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "up_blocks.1.resnets.0.conv1"):
        want = weight(params, "unet", layer) + 0.5 * product(one["unet"][layer])
        if layer in other["unet"]:
            want += -1.0 * product(other["unet"][layer])
        np.testing.assert_allclose(weight(merged, "unet", layer), want, atol=1e-6)
    layer = "text_model.encoder.layers.0.self_attn.q_proj"
    want = weight(params, "text_encoder", layer) + 0.5 * product(one["text_encoder"][layer])
    want += product(other["text_encoder"][layer])  # which the scales do not name
    np.testing.assert_allclose(weight(merged, "text_encoder", layer), want, atol=1e-6)
    assert merged["unet"]["conv_in"]["bias"] is params["unet"]["conv_in"]["bias"]


def test_dora_normalizes_the_sum(sd):
    _, params = sd
    adapter = {"unet": tiny.adapter(params, alpha=3, dora=True, only="down_blocks.0")["unet"]}
    layer, inputs = "down_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"
    by_input = adapter["unet"][inputs]._replace(dora_scale=np.full((1, 32), 2.0, np.float32))
    adapter["unet"][inputs] = by_input
    merged, _ = lora.merge(params, (adapter, 0.5))
    total = weight(params, "unet", layer) + 0.5 * product(adapter["unet"][layer])
    want = adapter["unet"][layer].dora_scale * total / np.sqrt((total**2).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(weight(merged, "unet", layer), want, atol=1e-6)
    np.testing.assert_allclose((weight(merged, "unet", inputs) ** 2).sum(0), 4, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unmerging_is_exact(sd, dtype):
    _, params = sd
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    adapters = (tiny.adapter(params, only="conv_", dora=True), 0.7), (tiny.adapter(params, only="conv_"), -3)
    merged, originals = lora.merge(params, *adapters)
    assert jax.tree.map(lambda x: x.dtype, merged) == jax.tree.map(lambda x: x.dtype, params)
    assert not np.array_equal(merged["unet"]["conv_in"]["kernel"], params["unet"]["conv_in"]["kernel"])
    restored = lora.unmerge(merged, originals)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), restored, params))


def test_unmerging_what_another_merge_has_changed_is_refused(sd):
    _, params = sd
    one, other = tiny.adapter(params, only="attn2.to_k"), tiny.adapter(params, seed=2, only="attn2.to_")
    first, of_one = lora.merge(params, one)
    both, of_other = lora.merge(first, other)
    with pytest.raises(ValueError, match=r"attn2.to_k is not what this merge made of it; take back what was merged"):
        lora.unmerge(both, of_one)
    copied = jax.tree.map(jnp.array, lora.unmerge(jax.tree.map(np.array, both), of_other))
    restored = lora.unmerge(copied, of_one)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), restored, params))
    elsewhere, of_conv = lora.merge(first, tiny.adapter(params, only="conv_in"))
    lora.unmerge(lora.unmerge(elsewhere, of_one), of_conv)  # layers of their own: any order
    for wrong in (params, {}, {"unet": {}}, jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), first)):
        with pytest.raises(ValueError, match=r"attn2.to_k is not what this merge made of it"):
            lora.unmerge(wrong, of_one)


def test_an_adapter_alone_has_scale_1(sd):
    _, params = sd
    adapter = tiny.adapter(params, only="conv_in")
    alone, pair = lora.merge(params, adapter)[0], lora.merge(params, (adapter, 1.0))[0]
    np.testing.assert_array_equal(alone["unet"]["conv_in"]["kernel"], pair["unet"]["conv_in"]["kernel"])


def test_running_without_merging(sd):
    built, params = sd
    one, other = tiny.adapter(params, alpha=3), tiny.adapter(params, rank=4, seed=2, only="attn")
    rng = np.random.default_rng(0)
    x, text = rng.standard_normal((2, 8, 8, 4), np.float32), rng.standard_normal((2, 5, 12), np.float32)
    run = compiled(built["unet"])
    for scale in (1.0, {"unet": 0.3, "unet.up_blocks": -0.5}):
        adapters = ((one, scale), (other, 0.5))
        merged, _ = lora.merge(params, *adapters)
        want = run(merged["unet"], {}, x, 7, text)
        found = run(params["unet"], lora.collection(params, *adapters)["unet"], x, 7, text)
        np.testing.assert_allclose(found, want, atol=2e-5 * np.abs(want).max())
    assert run._cache_size() == 2  # with and without: another scale compiles nothing
    with pytest.raises(ValueError, match="has a DoRA, which cannot run unmerged"):
        lora.collection(params, (tiny.adapter(params, dora=True), 1.0))


def whole(params, seed=3):
    """A change of every parameter of the U-Net: LoHa and LoKr of matrices, differences of the others."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    found = {}
    for name, (where, leaf) in lora.parameters(params["unet"]).items():
        shape = layout.torch_shape(where, leaf.shape)
        if len(shape) < 2:
            found[name] = Whole(draw(*shape), 0.5)
        elif len(found) % 2:
            found[name] = Kronecker(draw(shape[0], 1), draw(1, *shape[1:]), 0.5)
        else:
            ones = (1,) * (len(shape) - 2)
            parts = (draw(2, *shape[1:]), draw(shape[0], 2, *ones)) * 2
            found[name] = Hadamard(*parts, 3.0)
    return {"unet": found}


def test_changes_of_every_parameter_and_kind(sd):
    built, params = sd
    one, other = whole(params), tiny.adapter(params, alpha=3, only="to_")
    merged, originals = lora.merge(params, (one, 0.7), (other, 0.5))
    assert originals["unet"].keys() == lora.parameters(params["unet"]).keys()
    for name, leaf in (("conv_in", "bias"), ("conv_norm_out", "scale")):
        change = one["unet"]["conv_in.bias" if leaf == "bias" else name]
        want = params["unet"][name][leaf] + 0.7 * 0.5 * change.difference
        np.testing.assert_allclose(merged["unet"][name][leaf], want, atol=1e-6)
    rng = np.random.default_rng(0)
    x, text = rng.standard_normal((2, 8, 8, 4), np.float32), rng.standard_normal((2, 5, 12), np.float32)
    run = compiled(built["unet"])
    want = run(merged["unet"], {}, x, 7, text)
    edits = lora.collection(params, (one, 0.7), (other, 0.5))
    np.testing.assert_allclose(run(params["unet"], edits["unet"], x, 7, text), want, atol=2e-5 * np.abs(want).max())
    restored = lora.unmerge(merged, originals)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), restored, params))


def test_scales_are_traced(sd):
    _, params = sd
    adapter = tiny.adapter(params, alpha=3, dora=True, only="attn2.to_k")
    adapter["unet"] |= tiny.adapter(params, only="conv_in")["unet"]
    wanted, _ = lora.merge(params, (adapter, {"unet": 0.3, "unet.mid_block": -1.0}))

    @jax.jit
    def merged(params, scale):
        return lora.merge(params, (adapter, {"unet": scale, "unet.mid_block": -1.0}))[0]

    for name in ("conv_in", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"):
        found = lora.layers(merged(params, 0.3)["unet"])[name][1]
        np.testing.assert_allclose(found, lora.layers(wanted["unet"])[name][1], atol=1e-6)
    plain = tiny.adapter(params, only="conv_in")

    def total(scale):
        return lora.merge(params, (plain, scale))[0]["unet"]["conv_in"]["kernel"].sum()

    np.testing.assert_allclose(jax.grad(total)(0.5), product(plain["unet"]["conv_in"]).sum(), rtol=1e-4)
    scales = jnp.array([0.0, 0.5])
    several = jax.vmap(lambda scale: lora.merge(params, (plain, scale))[0]["unet"]["conv_in"]["kernel"])(scales)
    np.testing.assert_array_equal(several[0], params["unet"]["conv_in"]["kernel"])
    ups = jax.vmap(lambda scale: lora.collection(params, (plain, scale))["unet"]["conv_in"]["up"])(scales)
    np.testing.assert_allclose(ups[1], lora.collection(params, (plain, 0.5))["unet"]["conv_in"]["up"])
    with pytest.raises(ValueError, match=r"a scale is .*; give a number, or a mapping"):
        jax.jit(lambda scale: lora.merge(params, (plain, scale))[0])(scales)


def test_files(sd, tmp_path):
    _, params = sd
    adapter = tiny.adapter(params, alpha=3, dora=True)
    lora.save(tmp_path / "new" / "folder", adapter)
    for source in (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / lora.NAMES[0]):
        assert lora.load(source, params)["unet"].keys() == adapter["unet"].keys()
    dialects.write(tmp_path / "style.safetensors", dialects.kohya(adapter))
    found = lora.load(tmp_path, params, weight_name="style.safetensors")
    np.testing.assert_array_equal(found["unet"]["conv_in"].dora_scale, adapter["unet"]["conv_in"].dora_scale)
    with pytest.raises(FileNotFoundError, match=r"has no pytorch_lora_weights\.safetensors nor"):
        lora.load(tmp_path, params)
    several = {**params, "controlnet": [params["unet"], params["unet"]]}
    assert lora.load(tmp_path, several, weight_name="style.safetensors").keys() == found.keys()
    with pytest.raises(ValueError, match=r"the model has no controlnet\..*, which the adapter changes"):
        lora.merge(several, {"controlnet": adapter["unet"]})


def test_what_is_refused(sd):
    _, params = sd
    adapter = tiny.adapter(params, only="attn2.to_k")
    with pytest.raises(ValueError, match=r"given for 'unet.down_blocks.1', and the adapter changes no layer"):
        lora.merge(params, (adapter, {"unet.down_blocks.1": 1.0}))
    with pytest.raises(ValueError, match=r"^a float is no adapter; pass what `load` gives, or a pair"):
        lora.merge(params, adapter, 0.5)
    with pytest.raises(ValueError, match="an adapter changes no layer; leave it out"):
        lora.merge(params, {"unet": {}})
    for scale in (None, float("nan"), "x", {"unet": None}):
        with pytest.raises(ValueError, match=r"^a scale is .*; give a number, or a mapping"):
            lora.collection(params, (adapter, scale))
    other = fdiff.UNet2DConditionModel.from_config(tiny.UNET | {"cross_attention_dim": 16}).shapes()
    with pytest.raises(ValueError, match=r"attn2.to_k has shape \(8, 16\), and the adapter needs \(8, 12\); load"):
        lora.merge({"unet": other}, (adapter, 1.0))
    with pytest.raises(ValueError, match=r"the model has no unet\..*, which the adapter changes"):
        lora.collection({"text_encoder": params["text_encoder"]}, (adapter, 1.0))


def torch_pipeline(folder, sdxl):
    """(diffusers' pipeline, the same models and parameters here)."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    parts = {"unet": diffusers.UNet2DConditionModel(**(tiny.SDXL_UNET if sdxl else tiny.UNET))}
    parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(**tiny.TEXT))
    cls = diffusers.StableDiffusionPipeline
    others = {"vae": None, "tokenizer": None, "scheduler": None}
    if sdxl:
        parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**tiny.TEXT, projection_dim=12))
        cls, others = diffusers.StableDiffusionXLPipeline, others | {"tokenizer_2": None}
    else:
        others |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    built, params = {}, {}
    for name, model in parts.items():
        model.save_pretrained(folder / name)
        kind = getattr(fdiff, type(model).__name__)
        built[name], params[name] = kind.from_pretrained(folder / name)
    return cls(**parts, **others), built, params


def outputs(pipe, built, params, sdxl):
    """[(diffusers, here)] of every model."""
    import torch

    rng = np.random.default_rng(0)
    x, text = rng.standard_normal((2, 8, 8, 4), np.float32), rng.standard_normal((2, 5, 12), np.float32)
    ids = np.array([[48, 3, 9, 49]])
    added = None
    if sdxl:
        added = {"text_embeds": rng.standard_normal((2, 12), np.float32), "time_ids": np.ones((2, 6), np.float32)}
    found = []
    with torch.no_grad():
        conditions = None if added is None else {key: torch.from_numpy(value) for key, value in added.items()}
        latents = torch.from_numpy(x).permute(0, 3, 1, 2)
        theirs = pipe.unet(latents, 7, torch.from_numpy(text), added_cond_kwargs=conditions)
        ours = compiled(built["unet"])(params["unet"], {}, x, 7, text, None, None, None, added)
        found.append((theirs.sample.permute(0, 2, 3, 1).numpy(), ours))
        for name in set(built) - {"unet"}:
            theirs = getattr(pipe, name)(torch.from_numpy(ids))[0].numpy()
            found.append((theirs, compiled(built[name])(params[name], {}, ids)[0]))
    return found


def assert_equal(pairs):
    for theirs, ours in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parity
@pytest.mark.parametrize(
    ("write", "sdxl", "only"),
    [
        (dialects.diffusers_old, False, "attn"),
        (dialects.diffusers_new, False, "attn"),
        (dialects.peft, False, ""),
        (dialects.kohya, False, ""),
        (lambda adapter: dialects.kohya(adapter, original=True, te1=True), True, ""),
    ],
)
def test_against_diffusers(tmp_path, write, sdxl, only):
    pytest.importorskip("peft")
    pipe, built, params = torch_pipeline(tmp_path, sdxl)
    made = tiny.adapter(params, alpha=3 if write is not dialects.diffusers_new and only == "" else None, only=only)
    file = dialects.write(tmp_path / "x.safetensors", write(made))
    pipe.load_lora_weights(tmp_path, weight_name="x.safetensors", adapter_name="style")
    adapter = lora.load(file, params)
    merged, _ = lora.merge(params, (adapter, 1.0))
    before = outputs(torch_pipeline(tmp_path, sdxl)[0], built, params, sdxl)
    after = outputs(pipe, built, merged, sdxl)
    assert all(np.abs(a - b).max() > 1e-2 for (a, _), (b, _) in zip(before, after, strict=True))
    assert_equal(after)
    if only != "attn":  # diffusers scales the blocks of attention alone
        pipe.set_adapters("style", -0.3)
        ours: float | dict[str, float] = -0.3
    else:
        pipe.set_adapters("style", {"unet": {"down": 0.5, "mid": 0.0, "up": -0.5}, "text_encoder": 2.0})
        ours = {"unet.down_blocks": 0.5, "unet.mid_block": 0.0, "unet.up_blocks": -0.5, "text_encoder": 2.0}
    merged, _ = lora.merge(params, (adapter, ours))
    assert_equal(outputs(pipe, built, merged, sdxl))


@pytest.mark.parity
def test_saved_for_diffusers_and_several_at_once(tmp_path):
    pytest.importorskip("peft")
    pipe, built, params = torch_pipeline(tmp_path, False)
    one, other = tiny.adapter(params, alpha=3), tiny.adapter(params, rank=4, alpha=1, seed=2, only="attn")
    one["unet"] |= tiny.adapter(params, rank=3, only="conv1")["unet"]
    for name, adapter in {"one": one, "other": other}.items():
        lora.save(tmp_path / name, adapter)
        pipe.load_lora_weights(tmp_path / name, adapter_name=name)
    pipe.set_adapters(["one", "other"], [0.7, -0.4])
    merged, _ = lora.merge(params, (one, 0.7), (other, -0.4))
    assert_equal(outputs(pipe, built, merged, False))


@pytest.mark.parity
def test_dora_against_peft(tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    pipe, built, params = torch_pipeline(tmp_path, False)
    config = peft.LoraConfig(
        r=3, lora_alpha=2, use_dora=True, init_lora_weights=False, target_modules=["to_q", "to_k", "conv1", "ff.net.2"]
    )
    pipe.unet.add_adapter(config)
    torch.manual_seed(1)
    for name, parameter in pipe.unet.named_parameters():
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.randn(parameter.shape)
    state = peft.get_peft_model_state_dict(pipe.unet)
    metadata = json.loads(json.dumps(dataclasses.asdict(config), default=list))
    pipe.save_lora_weights(tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=metadata)
    adapter = lora.load(tmp_path, params)
    assert all(factors.dora_scale is not None for factors in adapter["unet"].values())
    merged, _ = lora.merge(params, (adapter, 1.0))
    assert_equal(outputs(pipe, built, merged, False))
    lora.save(tmp_path / "again", adapter)
    fresh, _, _ = torch_pipeline(tmp_path, False)
    fresh.load_lora_weights(tmp_path / "again")
    assert_equal(outputs(fresh, built, merged, False))
