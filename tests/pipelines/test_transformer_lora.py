"""LoRAs of diffusion transformers, as diffusers and other trainers save them: merged, and while they run."""

import re

import numpy as np
import pytest

from convert import layout, original_transformers
from fdiff.adapters import lora
from tests.adapters import dialects
from tests.pipelines import newer, parity, transformers
from tests.pipelines.test_flux import T5_FOLDER

LAYERS = {
    "z_image": ["attention.to_q", "attention.to_out.0", "feed_forward.w2", "cap_embedder.1"],
    "klein": ["attn.to_q", "attn.to_out.0", "attn.to_qkv_mlp_proj", "ff.linear_in", "x_embedder"],
    "flux": ["attn.to_q", "attn.add_v_proj", "attn.to_out.0", "proj_mlp", "ff.net.0.proj"],
    "lumina2": ["attn.to_k", "attn.to_out.0", "feed_forward.linear_2", "norm1.linear", "caption_embedder.1"],
    "sana": ["attn1.to_q", "attn2.to_v", "attn1.to_out.0", "ff.conv_inverted", "ff.conv_point", "proj_out"],
}
ASKED = {
    "z_image": {}, "klein": {"text_encoder_out_layers": (0, 1, 2), "max_sequence_length": 64},
    "flux": {"max_sequence_length": 20}, "lumina2": {"height": 32, "width": 48},
    "sana": {"height": 32, "width": 64, "use_resolution_binning": False},
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("name", LAYERS)
def test_parity(name, tmp_path, shared_data):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    place = shared_data / T5_FOLDER if name == "flux" else tmp_path / "tokenizer"
    build = getattr(newer if name == "lumina2" else transformers, name)
    theirs, ours, params = parity.pair(tmp_path / "saved", build(place))
    theirs.transformer.add_adapter(
        peft.LoraConfig(r=2, lora_alpha=2, target_modules=LAYERS[name], init_lora_weights=False)
    )
    torch.manual_seed(1)
    for part, parameter in theirs.transformer.named_parameters():
        if "lora_" in part:
            parameter.data = 0.3 * torch.randn_like(parameter)
    layers = peft.get_peft_model_state_dict(theirs.transformer)
    assert len(layers) >= 2 * len(LAYERS[name])
    type(theirs).save_lora_weights(tmp_path / "lora", transformer_lora_layers=layers)
    given = {"height": 16, "width": 24, "num_inference_steps": 2, "output_type": "np", **ASKED[name]}
    wanted = theirs(prompt="a cat", generator=parity.generator(5), **given).images
    adapter = lora.load(tmp_path / "lora", params=params)
    plain, merged, running = (
        ours(tree, "a cat", torch_seed=5, progress=False, **given).images
        for tree in (params, lora.merge(params, adapter)[0], {**params, "lora": lora.collection(params, adapter)})
    )
    parity.assert_close(merged, wanted)
    parity.assert_close(running, wanted)
    with pytest.raises(AssertionError, match="off by"):
        parity.assert_close(plain, wanted)


# How trainers write the names, and the layers of which diffusers reads them at any width.
TRAINERS = {
    "kohya, klein": ("klein", "lora_unet_", r"_blocks_.*(qkv|proj|mlp|linear)"),
    "ai-toolkit, klein": ("klein", "diffusion_model.", r"_blocks\..*(qkv|proj|mlp|linear)|stream_modulation|_in"),
    "kohya, FLUX.1": ("flux", "lora_unet_", r"_blocks_.*(qkv|proj|mlp|linear2|mod)"),
    "ComfyUI, Z-Image": ("z_image", "diffusion_model.", r"layers\..*(to_|feed_forward|adaLN)"),
}  # fmt: skip


def trained(params, name, prefix, pattern):
    """A LoRA in the names of the original, or in those of today for Z-Image, of the layers with such names."""
    shapes = {
        layer: layout.torch_shape(where, leaf.shape)
        for layer, (where, leaf) in lora.layers(params["transformer"]).items()
    }
    stacks = {} if name == "z_image" else original_transformers.originals(shapes)
    known = {layer: original_transformers.shape(stack, shapes) for layer, stack in stacks.items()} or shapes
    down, up = ("lora_A", "lora_B") if prefix == "diffusion_model." else ("lora_down", "lora_up")
    rng = np.random.default_rng(2)
    found = {}
    for layer, shape in known.items():
        written = prefix + (layer.replace(".", "_") if prefix == "lora_unet_" else layer)
        if re.search(pattern, written):
            found[f"{written}.{down}.weight"] = (0.5 * rng.standard_normal((2, shape[1]))).astype(np.float32)
            found[f"{written}.{up}.weight"] = (0.5 * rng.standard_normal((shape[0], 2))).astype(np.float32)
    return found


@pytest.mark.parity
@pytest.mark.parametrize("trainer", TRAINERS)
def test_files_of_trainers(trainer, tmp_path, shared_data):
    pytest.importorskip("peft")
    name, prefix, pattern = TRAINERS[trainer]
    place = shared_data / T5_FOLDER if name == "flux" else tmp_path / "tokenizer"
    theirs, ours, params = parity.pair(tmp_path / "saved", getattr(transformers, name)(place))
    arrays = trained(params, name, prefix, pattern)
    assert len(arrays) >= 16
    file = dialects.write(tmp_path / "x.safetensors", (arrays, {}))
    given = {"height": 16, "width": 24, "num_inference_steps": 2, "output_type": "np", **ASKED[name]}
    plain = theirs(prompt="a cat", generator=parity.generator(5), **given).images
    theirs.load_lora_weights(file)
    wanted = theirs(prompt="a cat", generator=parity.generator(5), **given).images
    adapter = lora.load(file, params)
    merged = lora.merge(params, adapter)[0]
    parity.assert_close(ours(merged, "a cat", torch_seed=5, progress=False, **given).images, wanted)
    assert np.abs(wanted - plain).max() > 0.01
