import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models import UNet2DConditionModel, edits
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_unet_2d_condition as cases


@functools.cache
def loaded(folder):
    return UNet2DConditionModel.from_pretrained(folder, dtype="float32")


@functools.cache
def compiled(model):
    return jax.jit(lambda variables, arrays: model.apply(variables, **arrays))


@pytest.fixture
def folder(reference):
    return reference / "unet_2d_condition"


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(folder, name):
    model, params = loaded(folder / name)
    output = compiled(model)({"params": params}, cases.inputs(name))
    assert_close(output, read(folder / f"{name}.npz")["output"])
    assert UNet2DConditionModel.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model, arrays = cases.build(name), cases.inputs(name)
    model, params = from_torch(UNet2DConditionModel, torch_model)
    assert_close(compiled(model)({"params": params}, arrays), cases.run(torch_model, arrays))


def test_perturbed_attention_and_image_prompts(folder):
    """Both at once, as diffusers computes them with its processors; without them, nothing is left behind."""
    model, params = loaded(folder / "small")
    saved, arrays = read(folder / "small.npz"), cases.inputs("small")
    adapter, weights = {}, cases.adapter()
    tokens = weights.pop("tokens")
    for name, kernel in weights.items():
        block, level, attentions, layer, blocks, number, *rest = name.split(".")
        path = (f"{block}.{level}", f"{attentions}.{layer}", f"{blocks}.{number}", *rest)
        edits.put(adapter, path, {"kernel": kernel})
    both = edits.merge(
        edits.identity_attention(params, cases.PERTURBED, np.array([False, True])),
        edits.image_prompt(adapter, tokens, 0.7),
    )
    assert_close(compiled(model)({"params": params, "attention": both}, arrays), saved["edited"])
    neutral = edits.merge(
        edits.identity_attention(params, cases.PERTURBED, np.array([False, False])),
        edits.image_prompt(adapter, tokens, 0.0),
    )
    assert_close(compiled(model)({"params": params, "attention": neutral}, arrays), saved["output"])
    with pytest.raises(ValueError, match="No layer with to_v has a path like 'nowhere'"):
        edits.identity_attention(params, "nowhere", np.array([True]))


def test_freeu(folder):
    """As diffusers computes it; other numbers compile nothing, and those of 1 change nothing."""
    model, params = loaded(folder / "sd")
    saved, arrays = read(folder / "sd.npz"), cases.inputs("sd")
    run = jax.jit(lambda variables, arrays: model.apply(variables, **arrays))
    assert_close(run({"params": params, "attention": edits.freeu(**cases.FREEU)}, arrays), saved["freeu"])
    assert_close(run({"params": params, "attention": edits.freeu(1, 1, 1, 1)}, arrays), saved["output"])
    assert run._cache_size() == 1


@pytest.mark.parity
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_freeu_live(name):
    pytest.importorskip("diffusers")
    torch_model, arrays = cases.build(name), cases.inputs(name)
    model, params = from_torch(UNet2DConditionModel, torch_model)
    variables = {"params": params, "attention": edits.freeu(**cases.FREEU)}
    assert_close(compiled(model)(variables, arrays), cases.run_freeu(torch_model, arrays))


def test_image_prompts_add_up_and_choose_layers():
    adapter = {"up": {"attn2": {name: {"kernel": np.ones((3, 4))} for name in ("to_k_ip", "to_v_ip")}}}
    one = edits.image_prompt(adapter, np.ones((1, 2, 3)), {"down": 1.0, "up": 0.5})
    ((keys, values, scale),) = one["up"]["attn2"]["images"]
    assert keys.shape == values.shape == (1, 2, 4)
    assert scale == 0.5
    assert len(edits.merge(one, one)["up"]["attn2"]["images"]) == 2
    assert edits.image_prompt(adapter, np.ones((1, 2, 3)), {"down": 1.0}) == {}


def test_lora_and_skipped_blocks_at_run_time(folder):
    """Low-rank maps beside the weights are the merged weights; a skipped block is the identity."""
    model, params = loaded(folder / "small")
    arrays, random = cases.inputs("small"), np.random.default_rng(0)
    pair = {"down": random.standard_normal((12, 2)), "up": random.standard_normal((2, 8))}
    convolutions = {"down": random.standard_normal((3, 3, 8, 2)), "up": random.standard_normal((1, 1, 2, 8))}
    attn2 = ("down_blocks.0", "attentions.0", "transformer_blocks.0", "attn2")
    block, conv = attn2[:3], ("down_blocks.0", "resnets.0", "conv2")
    lora = {}
    edits.put(lora, (*attn2, "to_k"), pair)
    edits.put(lora, conv, convolutions)
    skipped = edits.skip_blocks(params, r"up_blocks.*", np.array([True, True]))

    merged = jax.tree.map(lambda x: x, params)
    merged[block[0]][block[1]][block[2]]["attn2"]["to_k"]["kernel"] += pair["down"] @ pair["up"]
    merged[conv[0]][conv[1]][conv[2]]["kernel"] += convolutions["down"] @ convolutions["up"][0, 0]
    for transformer in merged["up_blocks.0"].values():
        for last in (transformer.get("transformer_blocks.0", {}) or {}).values():
            for name in ("to_out.0", "net.2"):
                if name in last:
                    last[name] = jax.tree.map(jnp.zeros_like, last[name])
    run = compiled(model)
    expected = run({"params": merged}, arrays)
    assert_close(run({"params": params, "lora": lora, "attention": skipped}, arrays), expected)


def test_bfloat16_stays_finite_and_gradients_too(folder):
    model, params = loaded(folder / "small")
    arrays = cases.inputs("small")

    def loss(params):
        output = model.apply({"params": params}, **arrays)
        return jnp.square(output.astype(jnp.float32)).mean(), output

    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    gradients, output = jax.jit(jax.grad(loss, has_aux=True))(half)
    assert output.dtype == jnp.bfloat16
    assert_close(output, read(folder / "small.npz")["output"], 0.1)
    leaves = jax.tree.leaves(gradients)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert sum(bool(np.any(leaf)) for leaf in leaves) == len(leaves)


def test_wrong_options_and_inputs_are_told():
    def told(match, inputs=None, **options):
        with pytest.raises(ValueError, match=match):
            model = UNet2DConditionModel(**{**cases.BASE, **options})
            inputs = inputs or model.example_inputs()
            jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))

    told("down_block_types 'DownBlock3D' is unknown", down_block_types=("DownBlock2D", "DownBlock3D"))
    told("block_out_channels, which is 2", layers_per_block=(1, 2, 3))
    told("attention_type 'gated' is unknown", attention_type="gated")
    told(
        "class_embed_type 'name' is unknown",
        (np.zeros((1, 8, 8, 4)), 1, np.zeros((1, 1, 12)), 1),
        class_embed_type="name",
    )
    sample, tokens = np.zeros((1, 8, 8, 4)), np.zeros((1, 1, 12))
    told(r"sample must be \(batch, height, width, 4\)", (sample[..., :3], 1, tokens))
    told(r"Tokens must be \(batch, number, 12\)", (sample, 1, tokens[..., :5]))
    told("down_block_additional_residuals must be 4, not 1", (sample, 1, tokens, *(None,) * 4, [sample]))
    told("takes no class_labels", (sample, 1, tokens, np.zeros(1)))
    told("needs class_labels", (sample, 1, tokens), num_class_embeds=4)
    told("needs added_cond_kwargs", (sample, 1, tokens), addition_embed_type="image", encoder_hid_dim=12)
    told("reverse_transformer_layers_per_block", transformer_layers_per_block=((1,), (1,)))


@pytest.mark.parametrize(
    ("repository", "manifest"),
    [
        ("runwayml/stable-diffusion-v1-5", "sd15-unet"),
        ("runwayml/stable-diffusion-inpainting", "sd15-inpaint-unet"),
        ("stabilityai/stable-diffusion-2-1", "sd21-unet"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl-unet"),
        ("stabilityai/stable-diffusion-xl-refiner-1.0", "sdxl-refiner-unet"),
        ("cvssp/audioldm-s-full-v2", "audioldm-s-full-v2-unet"),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, repository, manifest):
    config = json.loads((shared_data / "hub_configs" / repository / "unet" / "config.json").read_text())
    model = UNet2DConditionModel.from_config(config)
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")


def test_every_real_config_is_read(shared_data):
    count = 0
    for file in sorted((shared_data / "hub_configs").glob("*/*/unet/config.json")):
        config = json.loads(file.read_text())
        if config["_class_name"] == "UNet2DConditionModel":
            UNet2DConditionModel.from_config(config, file=file)
            count += 1
    assert count >= 10
