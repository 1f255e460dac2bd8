"""IP-Adapter, base and plus: from the files to what a U-Net sees."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import fdiff
from fdiff.adapters import ip_adapter
from fdiff.models.layers.attention import Attention
from tests.adapters import tiny
from tests.reference import make_ip_adapter as reference_adapter
from tests.some import some


@pytest.fixture(scope="module")
def unet():
    model = tiny.models()["unet"]
    return model, tiny.random(model.shapes())


def flat(kind):
    parts = reference_adapter.arrays(kind)
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_what_diffusers_sees(unet, reference, tmp_path, kind):
    model, params = unet
    file = reference / "ip_adapter" / "base.bin"
    if kind == "plus":
        file = tmp_path / "plus.safetensors"
        save_file(flat(kind), file)
    adapter = ip_adapter.load(file, params)
    latents, text, features = reference_adapter.inputs(kind)
    edits = ip_adapter.collection(adapter, jnp.asarray(features), 0.6)
    out = jax.jit(model.apply)({"params": params, "attention": edits}, latents, 7, text)
    with np.load(reference / "ip_adapter" / "outputs.npz") as outputs:
        want = outputs[kind]
    np.testing.assert_allclose(out, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("kind", some(["base", "plus"]))
def test_an_adapter_of_another_dtype_than_the_unet(unet, tmp_path, kind):
    model, params = unet
    layer = Attention(heads=2, dim_head=4, bias=False)
    latents, text, features = reference_adapter.inputs(kind)
    place = "down_blocks.0", "attentions.0", "transformer_blocks.0", "attn2"
    x = np.random.default_rng(0).standard_normal((2, 16, 8), np.float32)

    def run(file_dtype, dtype):
        save_file({name: array.astype(file_dtype) for name, array in flat(kind).items()}, tmp_path / "x.safetensors")
        adapter = ip_adapter.load(tmp_path / "x.safetensors", params)
        cast, noisy, tokens, some = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, latents, text, x))
        edits = ip_adapter.collection(adapter, jnp.asarray(features), 0.6)
        out = jax.eval_shape(model.apply, {"params": cast, "attention": edits}, noisy, 7, tokens)
        assert out.dtype == dtype
        for name in place:
            cast, edits = cast[name], edits[name]
        found = layer.apply({"params": cast, "attention": edits}, some, tokens)
        assert found.dtype == dtype
        return np.asarray(found, np.float32)

    want = run("float32", "float32")
    for file_dtype in ("float32", "float16", ml_dtypes.bfloat16):
        for dtype in ("float32", "bfloat16"):
            np.testing.assert_allclose(run(file_dtype, dtype), want, atol=0.03 * np.abs(want).max())


def test_features(unet, reference, tmp_path):
    encoder, params = fdiff.CLIPVisionModelWithProjection.from_pretrained(reference / "clip" / "image_encoder")
    pixels = np.random.default_rng(0).standard_normal((2, 28, 28, 3), np.float32)
    output = encoder.apply({"params": params}, pixels)
    for kind in ("base", "plus"):
        save_file(flat(kind), tmp_path / "x.safetensors")
        adapter = ip_adapter.load(tmp_path, unet[1], weight_name="x.safetensors", subfolder=None, dtype="float16")
        assert adapter.params["image_proj"]["proj" if kind == "base" else "proj_in"]["kernel"].dtype == jnp.float16
        seen, unseen = ip_adapter.features(adapter, encoder, params, jnp.asarray(pixels))
        if kind == "base":
            np.testing.assert_array_equal(seen, output.image_embeds)
            assert not unseen.any()
        else:
            np.testing.assert_allclose(seen, output.hidden_states[-2], atol=1e-4)
            blank = encoder.apply({"params": params}, jnp.zeros_like(pixels)).hidden_states[-2]
            np.testing.assert_allclose(unseen, blank, atol=1e-4)


def test_what_is_refused(unet, tmp_path):
    good = flat("base")

    def load(tensors, params=unet[1]):
        save_file({name: np.asarray(array) for name, array in tensors.items()}, tmp_path / "x.safetensors")
        return ip_adapter.load(tmp_path / "x.safetensors", params)

    with pytest.raises(ValueError, match="is no IP-Adapter"):
        load({"conv.weight": np.zeros(3)})
    with pytest.raises(ValueError, match="is no IP-Adapter"):
        load(good | {"more": np.zeros(3)})
    with pytest.raises(ValueError, match=r"holds ip_adapter.13.to_k_ip.weight, which the U-Net has no layer for"):
        load(good | {"ip_adapter.13.to_k_ip.weight": np.zeros((8, 12), np.float32)})
    with pytest.raises(ValueError, match=r"has no ip_adapter.5 for up_blocks.1.attentions.0"):
        load({name: x for name, x in good.items() if name != "ip_adapter.5.to_v_ip.weight"})
    with pytest.raises(ValueError, match=r"has shape \(8, 16\), not \(8, 12\); choose the adapter for this base"):
        load(good | {"ip_adapter.1.to_k_ip.weight": np.zeros((8, 16), np.float32)})
    with pytest.raises(ValueError, match="is of a kind of IP-Adapter that fdiff does not have"):
        load({name.replace("image_proj.proj", "image_proj.proj.0"): x for name, x in good.items()})
    for name, array, message in [
        ("proj_out.weight", None, r"lacks image_proj.proj_out.weight, or has it in another shape; download"),
        ("latents", np.zeros((3, 16)), r"lacks image_proj.latents, or has it in another shape; download"),
        ("norm_out.bias", None, r"x.safetensors lacks image_proj.norm_out.bias; download"),
        ("more", np.zeros(3), r"x.safetensors holds image_proj.more, which this kind of adapter does not"),
        ("layers.0.0.to_q.weight", np.zeros((32, 16)), r"to_kv.weight in .* has shape \(256, 16\), not \(128, 16\); d"),
    ]:
        tensors = flat("plus") | {f"image_proj.{name}": array}
        with pytest.raises(ValueError, match=message):
            load({key: value for key, value in tensors.items() if value is not None})
    for features in (4, 96):
        with pytest.raises(ValueError, match=r"image_proj.proj.bias in .*x.safetensors has shape \(48,\), not"):
            load(good | {"image_proj.proj.weight": np.zeros((features, 24))})
    wide = {"proj.weight": (96, 24), "proj.bias": 96, "norm.weight": 24, "norm.bias": 24}
    with pytest.raises(ValueError, match=r"x.safetensors makes tokens of 24 numbers, and its down_blocks"):
        load(good | {f"image_proj.{name}": np.zeros(shape, np.float32) for name, shape in wide.items()})
    adapter = load(good)
    with pytest.raises(ValueError, match=r"images have shape \(2, 25\), not \(b, 24\); pass the features"):
        ip_adapter.collection(adapter, jnp.ones((2, 25)))
    with pytest.raises(ValueError, match=r"images have shape \(24,\), not"):
        ip_adapter.collection(adapter, jnp.ones(24))
    with pytest.raises(ValueError, match=r"a scale is given for 'nowhere', and the adapter has no layer there"):
        ip_adapter.collection(adapter, jnp.ones((2, 24)), {"up_blocks": 1.0, "nowhere": 1.0})
    with pytest.raises(ValueError, match=r"the scale's '\(' is no regular expression"):
        ip_adapter.collection(adapter, jnp.ones((2, 24)), {"(": 1.0})


@pytest.mark.parametrize("kind", some(["plus", "base"]))
def test_several_pictures_are_seen_at_once(unet, tmp_path, kind):
    save_file(flat(kind), tmp_path / "x.safetensors")
    adapter = ip_adapter.load(tmp_path / "x.safetensors", unet[1])
    _, _, features = reference_adapter.inputs(kind)
    one, other = jnp.asarray(features), jnp.asarray(features[::-1])

    def keys(images):
        return jax.tree.leaves(ip_adapter.collection(adapter, images))[0]

    want = jnp.concatenate([keys(one), keys(other)], axis=1)
    np.testing.assert_allclose(keys(jnp.stack([one, other], axis=1)), want, atol=1e-5)
    np.testing.assert_allclose(keys(one[:, None]), keys(one), atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["base", "plus"])
def test_several_pictures_beside_diffusers(unet, tmp_path, kind):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    model, params = unet
    model.save_pretrained(tmp_path / "unet", params)
    theirs = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    parts = reference_adapter.arrays(kind)
    state = {part: {name: torch.from_numpy(x) for name, x in arrays.items()} for part, arrays in parts.items()}
    theirs._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    latents, text, features = reference_adapter.inputs(kind)
    several = np.stack([features, features[::-1], 2 * features], axis=1)
    with torch.no_grad():
        noisy, tokens = torch.from_numpy(latents).permute(0, 3, 1, 2), torch.from_numpy(text)
        want = theirs(noisy, 7, tokens, added_cond_kwargs={"image_embeds": [torch.from_numpy(several)]}).sample
    want = want.permute(0, 2, 3, 1).numpy()
    save_file(flat(kind), tmp_path / "x.safetensors")
    edits = ip_adapter.collection(ip_adapter.load(tmp_path / "x.safetensors", params), jnp.asarray(several))
    found = jax.jit(model.apply)({"params": params, "attention": edits}, latents, 7, text)
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())
