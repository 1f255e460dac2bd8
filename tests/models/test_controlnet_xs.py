import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models import ControlNetXSAdapter, UNet2DConditionModel, UNetControlNetXSModel, edits
from tests.models.compare import assert_close, from_torch, read
from tests.reference import make_controlnet_xs as cases


@pytest.fixture(scope="module")
def parts(reference):
    folder = reference / "controlnet_xs"
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype="float32")
    return unet, ControlNetXSAdapter.from_pretrained(folder / "adapter", dtype="float32")


def test_stored_outputs(reference, parts):
    """The network of the two checkpoints does what that of diffusers does, whether it is steered or not."""
    (unet, unet_params), (adapter, own) = parts
    model, params = UNetControlNetXSModel.from_unet(unet, unet_params, adapter, own)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.shapes())
    assert all(type(module).from_config(module.config()) == module for module in (model, adapter))

    saved, arrays = read(reference / "controlnet_xs" / "outputs.npz"), cases.inputs()
    run = jax.jit(lambda params, **arrays: model.apply({"params": params}, **arrays))
    assert_close(run(params, **arrays, apply_control=True), saved["steered"])
    assert_close(run(params, **arrays, apply_control=False), saved["alone"])
    assert run._cache_size() == 1


@pytest.mark.parity
@pytest.mark.parametrize("freeu", [None, {"s1": 0.9, "s2": 0.2, "b1": 1.5, "b2": 1.6}])
def test_outputs_live(tmp_path, freeu):
    pytest.importorskip("diffusers")
    torch_model, arrays = cases.join(*cases.build(), tmp_path), cases.inputs()
    model, params = from_torch(UNetControlNetXSModel, torch_model)
    variables = {"params": params}
    if freeu:
        torch_model.enable_freeu(**freeu)
        variables["attention"] = edits.freeu(**freeu)
    output = jax.jit(lambda variables, arrays: model.apply(variables, **arrays))(variables, arrays)
    assert_close(output, cases.run(torch_model, arrays))


@pytest.mark.parity
def test_a_checkpoint_of_ours_is_read_live(tmp_path):
    """An adapter that fdiff made has diffusers' names and shapes, and does nothing there yet."""
    diffusers = pytest.importorskip("diffusers")
    torch_unet, _ = cases.build()
    unet, _ = from_torch(UNet2DConditionModel, torch_unet)
    adapter, params = ControlNetXSAdapter.from_unet(unet, jax.random.key(0), block_out_channels=(4, 8))
    adapter.save_pretrained(tmp_path, params)
    theirs = diffusers.ControlNetXSAdapter.from_pretrained(tmp_path)
    joint = diffusers.UNetControlNetXSModel.from_unet(torch_unet, theirs)
    arrays = {**cases.inputs(), "controlnet_cond": np.ones((2, 48, 64, 3), np.float32)}
    np.testing.assert_array_equal(cases.run(joint, arrays), cases.run(joint, arrays, apply_control=False))


def test_a_fresh_adapter_changes_nothing(parts):
    (unet, params), _ = parts
    adapter, fresh = ControlNetXSAdapter.from_unet(
        unet, jax.random.key(0), block_out_channels=(4, 8), conditioning_embedding_out_channels=(4,)
    )
    model, joined = UNetControlNetXSModel.from_unet(unet, params, adapter, fresh)
    arrays = {**cases.inputs(), "controlnet_cond": np.ones((2, 6, 8, 3), np.float32)}
    run = jax.jit(lambda scale: model.apply({"params": joined}, **{**arrays, "conditioning_scale": scale}))
    np.testing.assert_array_equal(run(0.0), run(1.0))
    assert jnp.any(fresh["down_blocks.0"]["resnets.0"]["conv1"]["kernel"])
    with pytest.raises(ValueError, match=r"does not run by itself; join it with its U-Net"):
        adapter.apply({"params": fresh})


def test_wrong_options_are_told(parts):
    (unet, params), (adapter, own) = parts

    def told(match, unet=unet, adapter=adapter):
        with pytest.raises(ValueError, match=match):
            UNetControlNetXSModel.from_unet(unet, params, adapter, own)

    told("U-Nets whose num_class_embeds is None, not 4", unet.clone(num_class_embeds=4))
    told(r"for a U-Net with \(8, 32\) channels", adapter=adapter.clone(base_block_out_channels=(8, 32)))
    for match, options in (
        ("time_embedding_mix 0.5 must be 1", {"time_embedding_mix": 0.5}),
        ("ctrl_conditioning_channel_order 'gbr' is unknown", {"ctrl_conditioning_channel_order": "gbr"}),
        ("addition_embed_type 'text' is unknown here", {"addition_embed_type": "text"}),
        ("down_block_types 'KDownBlock2D' is unknown here", {"down_block_types": ("KDownBlock2D",) * 4}),
        ("ctrl_block_out_channels must be as long as block_out_channels", {"ctrl_block_out_channels": (4, 8)}),
        ("4 channels cannot be split into 3 heads", {"ctrl_num_attention_heads": 3}),
    ):
        with pytest.raises(ValueError, match=match):
            UNetControlNetXSModel(**options).shapes()
