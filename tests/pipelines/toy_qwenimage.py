"""Tiny pipelines of Qwen-Image: of fdiff, and of diffusers with random weights."""

import json

import fdiff
from fdiff.image_processors import Qwen2VLProcessor
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


MARKS = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
SEEING = {
    "text_config": {**make_seeing_lm.CONFIGS["qwen2_5_vl"][1]["text_config"], "vocab_size": len(tiny.pieces()) + 3},
    "vision_config": {**make_seeing_lm.QWEN2_VISION, "patch_size": 14, "window_size": 56},
    "image_token_id": len(tiny.pieces()) + 1,
}  # fmt: skip


def marked(folder):
    """The folder of a tokenizer that also has the tokens around and for pictures."""
    file = tiny.qwen(folder) / "tokenizer_config.json"
    told = json.loads(file.read_text())
    for i, mark in enumerate(MARKS):
        told["added_tokens_decoder"][len(tiny.pieces()) + i] = {"content": mark, "special": True, "normalized": False}
    file.write_text(json.dumps(told))
    return folder


class Processor:
    """What of transformers' processor pipelines need, which itself needs torchvision."""

    def __init__(self, tokenizer):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.tokenizer, self.see = tokenizer, Qwen2VLImageProcessorPil()

    def __call__(self, text, images, padding, return_tensors):
        seen = self.see(images, return_tensors=return_tensors)
        counts = [int(grid.prod()) // 4 for grid in seen["image_grid_thw"]]
        written = []
        for one in text:
            before, *parts = one.split(MARKS[1])
            written.append(before + "".join(MARKS[1] * n + part for n, part in zip(counts, parts, strict=True)))
        seen = {name: array.repeat(len(text), 1) for name, array in seen.items()}  # the same for each text
        return type(seen_by := self.tokenizer(written, padding=padding, return_tensors=return_tensors))(
            {**seen_by, **seen}
        )


def their_edit(folder, cls="QwenImageEditPipeline"):
    """Qwen-Image-Edit, of diffusers, which does not tell transformers where pictures are in a text: here it does."""
    import diffusers
    import torch
    import transformers as hub

    tokenizer = hub.AutoTokenizer.from_pretrained(marked(folder))
    config = hub.Qwen2_5_VLConfig(**SEEING)
    encoder = make_qwenimage.built(hub.Qwen2_5_VLForConditionalGeneration, {"config": config})
    told, token = encoder.forward, SEEING["image_token_id"]

    def forward(input_ids, **options):
        return told(input_ids=input_ids, mm_token_type_ids=(input_ids == token).to(torch.int), **options)

    encoder.forward = forward
    return getattr(diffusers, cls)(
        diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        make_qwenimage.built(diffusers.AutoencoderKLQwenImage, VAE), encoder, tokenizer, Processor(tokenizer),
        make_qwenimage.built(diffusers.QwenImageTransformer2DModel, TRANSFORMER),
    )  # fmt: skip


def our_edit(folder, cls="QwenImageEditPipeline"):
    """Qwen-Image-Edit, of fdiff, without parameters."""
    tokenizer = fdiff.Qwen2Tokenizer.from_folder(marked(folder))
    return getattr(fdiff, cls)(
        fdiff.FlowMatchEulerDiscreteScheduler(**SCHEDULER), fdiff.AutoencoderKLQwenImage(**VAE),
        fdiff.Qwen2_5_VLForConditionalGeneration.from_config(SEEING), tokenizer, Qwen2VLProcessor(tokenizer),
        fdiff.QwenImageTransformer2DModel(**TRANSFORMER),
    )  # fmt: skip
