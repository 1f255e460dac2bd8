"""A tiny Stable Diffusion 1.x as a .ckpt of torch with the original names, and what diffusers makes of it."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

UNET = {
    "block_out_channels": (4, 8), "layers_per_block": 2, "norm_num_groups": 2, "attention_head_dim": 2,
    "cross_attention_dim": 6, "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
VAE = {
    "block_out_channels": (4, 4, 4, 4), "layers_per_block": 1, "norm_num_groups": 2, "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
TEXT = {
    "vocab_size": 40, "hidden_size": 6, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 8,
}  # fmt: skip


def checksum(array: np.ndarray) -> list[int]:
    """Its shape, and a checksum of its bytes."""
    return [*array.shape, zlib.crc32(np.ascontiguousarray(array).tobytes())]


def make(folder: Path) -> None:
    """Write the file, the configs, and the state dicts under the names of today."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from diffusers.loaders import single_file_utils
    from transformers import CLIPTextConfig, CLIPTextModel

    from tests.convert import original_names

    torch.manual_seed(0)
    unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    text = CLIPTextModel(CLIPTextConfig(**TEXT))
    for model in (unet, vae, text):
        model.half()
    names = {f"model.diffusion_model.{k}": v for k, v in original_names.unet(unet.state_dict()).items()}
    linear = original_names.vae(vae.state_dict(), lambda x: x[..., None, None])
    names |= {f"first_stage_model.{k}": v for k, v in linear.items()}
    names |= {f"cond_stage_model.transformer.text_model.{k}": v for k, v in text.state_dict().items()}
    names |= {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(8)}
    names |= {"betas": torch.zeros(4)}
    state = {"global_step": 470000, "state_dict": names}
    torch.save(state, folder / "tiny.ckpt", _use_new_zipfile_serialization=False)  # the smaller one
    expected = {
        "unet": single_file_utils.convert_ldm_unet_checkpoint(dict(names), dict(unet.config)),
        "vae": single_file_utils.convert_ldm_vae_checkpoint(dict(names), dict(vae.config)),
        "text_encoder": single_file_utils.convert_ldm_clip_checkpoint(dict(names)),
    }
    expected["text_encoder"].pop("text_model.embeddings.position_ids")
    sums = {part: {key: checksum(value.numpy()) for key, value in found.items()} for part, found in expected.items()}
    (folder / "expected.json").write_text(json.dumps(sums))
    for name, model in {"unet": unet, "vae": vae, "text_encoder": text}.items():
        model.config.architectures = [type(model).__name__]
        (folder / "configs" / name).mkdir(parents=True)
        save = model.config.save_pretrained if name == "text_encoder" else model.save_config
        save(folder / "configs" / name)
    DDIMScheduler(steps_offset=1, clip_sample=False).save_pretrained(folder / "configs" / "scheduler")
    (folder / "configs" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}\n')
