"""Tiny pipelines of Qwen-Image: of fdiff, and of diffusers with random weights."""

import fdiff
from tests.pipelines import transformers
from tests.reference import make_qwenimage, make_seeing_lm
from tests.tokenizers import tiny

VAE = {
    "base_dim": 4, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [True],
    "latents_mean": [0.5, 0.0, -1.0, 0.25], "latents_std": [2.0, 1.0, 0.5, 1.0],
}  # fmt: skip
TRANSFORMER = {**make_qwenimage.TRANSFORMER, "in_channels": 16, "out_channels": 4, "joint_attention_dim": 16}
SCHEDULER = {
    "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 2.0, "base_image_seq_len": 4,
    "max_image_seq_len": 64, "shift_terminal": 0.02,
}  # fmt: skip
ENCODER = {"vocab_size": len(tiny.pieces())}


def theirs(folder):
    """Qwen-Image, of diffusers; the folder is for its tokenizer."""
    import diffusers

    return diffusers.QwenImagePipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        make_qwenimage.built(diffusers.AutoencoderKLQwenImage, VAE),
        make_seeing_lm.build("qwen2_5_vl", 3, **ENCODER), transformers.tokenizer(folder),
        make_qwenimage.built(diffusers.QwenImageTransformer2DModel, TRANSFORMER),
    )  # fmt: skip


def ours(folder):
    """Qwen-Image, of fdiff, without parameters."""
    text = {**make_seeing_lm.CONFIGS["qwen2_5_vl"][1]["text_config"], **ENCODER}
    return fdiff.QwenImagePipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**SCHEDULER), fdiff.AutoencoderKLQwenImage(**VAE),
        fdiff.Qwen2_5_VLForConditionalGeneration.from_config({"text_config": text}),
        fdiff.Qwen2Tokenizer.from_folder(tiny.qwen(folder)), fdiff.QwenImageTransformer2DModel(**TRANSFORMER),
    )  # fmt: skip
