import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff.models import ControlNetModel, ControlNetUnionModel, T2IAdapter, UNet2DConditionModel
from fdiff.models.controlnet import ControlNetOutput, add_residuals
from fdiff.models.t2i_adapter import add_features
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_controlnet as cases


def compare(model, params, name, expected):
    arrays = cases.inputs(name)
    assert_outputs(model, params, arrays, expected)


def assert_outputs(model, params, arrays, expected):
    static = {key: arrays.pop(key) for key in ("guess_mode", "from_multi") if key in arrays}
    output = jax.jit(lambda p, arrays: model.apply({"params": p}, **arrays, **static))(params, arrays)
    pictures = jax.tree.leaves(output)
    assert len(pictures) == len(expected)
    for i, picture in enumerate(pictures):
        assert_close(picture, expected[str(i)])


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_stored_outputs(reference, name):
    folder = reference / "controlnet"
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(folder / name, dtype="float32")
    compare(model, params, name, read(folder / f"{name}.npz"))
    assert cls.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model = cases.build(name)
    model, params = from_torch(getattr(fdiff.models, cases.CONFIGS[name][0]), torch_model)
    compare(model, params, name, cases.run(torch_model, cases.inputs(name)))


@pytest.mark.parity
@pytest.mark.parametrize("options", [{"guess_mode": True}, {"from_multi": True}, {"guess_mode": True, "pictures": 1}])
def test_what_the_scales_of_a_union_multiply_live(options):
    """The pictures, or the residuals where there is one picture or one network of several."""
    pytest.importorskip("diffusers")
    torch_model, arrays = cases.build("union"), cases.inputs("union")
    count = options.pop("pictures", 2)
    for key in ("controlnet_cond", "control_type_idx", "conditioning_scale"):
        arrays[key] = arrays[key][:count]
    arrays |= options
    model, params = from_torch(ControlNetUnionModel, torch_model)
    assert_outputs(model, params, arrays, cases.run(torch_model, arrays))


@pytest.mark.parametrize("kind", ["ControlNetModel", "ControlNetUnionModel"])
def test_a_fresh_controlnet_changes_nothing(kind):
    """It is made of a U-Net's way down and layers that are zero, so that training starts from the U-Net."""
    unet = UNet2DConditionModel(
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        addition_time_embed_dim=4,
    )
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), unet.shapes())
    cls = getattr(fdiff.models, kind)
    model, fresh = cls.from_unet(unet, params, jax.random.key(1), conditioning_embedding_out_channels=(4, 6))
    inputs = (np.ones((1, 2, 2, 4)), 5, np.ones((1, 3, 12)), np.ones((1, 4, 4, 3)))
    if cls is ControlNetUnionModel:
        inputs = (*inputs[:3], [inputs[3]], np.eye(1, 6), [0])
    output = jax.jit(model.apply)({"params": fresh}, *inputs)
    assert [x.shape for x in output.down_block_res_samples] == [(1, 2, 2, 8)] * 2
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(output))
    assert fresh["down_blocks.0"] == params["down_blocks.0"]
    assert np.any(fresh["controlnet_cond_embedding"]["conv_in"]["kernel"])
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, model.shapes())


def test_several_controlnets_and_adapters_add_up():
    one = ControlNetOutput((jnp.ones((1, 2, 2, 3)),), jnp.full((1, 1, 1, 3), 2.0))
    both = add_residuals([one, one])
    assert both.down_block_res_samples[0].max() == 2
    assert both.mid_block_res_sample.max() == 4
    features = [(np.full((1, 2, 2, 3), value),) for value in (1.0, 3.0)]
    assert add_features(features)[0].max() == 2
    assert add_features(features, [1.0, 0.5])[0].max() == 2.5


def test_wrong_options_and_inputs_are_told():
    with pytest.raises(ValueError, match="adapter_type 'heavy' is unknown"):
        T2IAdapter(adapter_type="heavy").shapes()
    with pytest.raises(ValueError, match="height and width multiples of 8"):
        T2IAdapter().apply({"params": {}}, np.zeros((1, 12, 8, 3)))
    with pytest.raises(ValueError, match="controlnet_conditioning_channel_order 'gbr' is unknown"):
        ControlNetModel(controlnet_conditioning_channel_order="gbr").shapes()
    with pytest.raises(ValueError, match="must be rgb and encoder_hid_dim_type null in a ControlNetUnionModel"):
        ControlNetUnionModel(controlnet_conditioning_channel_order="bgr", addition_time_embed_dim=4).shapes()
    with pytest.raises(ValueError, match="needs addition_time_embed_dim"):
        ControlNetUnionModel().shapes()
    union = ControlNetUnionModel(addition_time_embed_dim=4)
    *inputs, types, kinds = union.example_inputs()[:6]
    with pytest.raises(ValueError, match=r"control_type_idx has shape \(2,\) for 1 pictures"):
        union.apply({"params": {}}, *inputs, types, [*kinds, 1])
    with pytest.raises(ValueError, match=r"control_type must be \(batch, 6\); it is \(1, 5\)"):
        union.apply({"params": {}}, *inputs, types[:, 1:], kinds)
    assert [T2IAdapter(adapter_type=kind).total_downscale_factor for kind in ("full_adapter", "full_adapter_xl")] == [
        64,
        16,
    ]


def test_names_and_shapes_of_a_real_checkpoint(shared_data):
    file = shared_data / "hub_configs" / "lllyasviel" / "control_v11p_sd15_canny" / "config.json"
    model = ControlNetModel.from_config(json.loads(file.read_text()))
    assert_names(model, shared_data / "manifests" / "controlnet-v11p-sd15-canny.json.gz")
