"""LoRAs of diffusion transformers, as diffusers saves them: merged, and while the transformer runs."""

import pytest

from fdiff.adapters import lora
from tests.pipelines import parity, transformers
from tests.pipelines.test_flux import T5_FOLDER

LAYERS = {
    "z_image": ["attention.to_q", "attention.to_out.0", "feed_forward.w2", "cap_embedder.1"],
    "klein": ["attn.to_q", "attn.to_out.0", "attn.to_qkv_mlp_proj", "ff.linear_in", "x_embedder"],
    "flux": ["attn.to_q", "attn.add_v_proj", "attn.to_out.0", "proj_mlp", "ff.net.0.proj"],
}
ASKED = {
    "z_image": {}, "klein": {"text_encoder_out_layers": (0, 1, 2), "max_sequence_length": 64},
    "flux": {"max_sequence_length": 20},
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("name", LAYERS)
def test_parity(name, tmp_path, shared_data):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    place = shared_data / T5_FOLDER if name == "flux" else tmp_path / "tokenizer"
    theirs, ours, params = parity.pair(tmp_path / "saved", getattr(transformers, name)(place))
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
