"""Tiny pipelines of the transformers of 2026: of fdiff, and of diffusers with random weights."""

import fdiff
from tests.pipelines import checkpoints, transformers
from tests.reference import make_causal_lm, make_seeing_lm, make_single_stream
from tests.tokenizers import tiny

MISTRAL = {"vocab_size": len(tiny.MISTRAL) + len(tiny.pieces()) - len(tiny.ADDED), "hidden_size": 10}
ERNIE_IMAGE = {**make_single_stream.ERNIE_IMAGE, "in_channels": 16, "out_channels": 16, "text_in_dim": 10}
FIXED, DYNAMIC = {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}
FLUX2 = {**transformers.FLUX2, "guidance_embeds": True}
TEMPLATE = (
    "{{ bos_token }}{% for one in messages %}{% set name = 'SYSTEM_PROMPT' if one.role == 'system' else 'INST' %}"
    "[{{ name }}]{% for part in one.content %}{{ part.text }}{% endfor %}[/{{ name }}]{% endfor %}"
)
LEFT = {"padding_side": "left", "chat_template": TEMPLATE}


def mistral(folder, cls="mistral3", **told):
    """The text encoder and the tokenizer, of transformers; `told` is of tokenizer_config.json."""
    from transformers import AutoTokenizer

    return make_seeing_lm.build(cls, 3, **MISTRAL), AutoTokenizer.from_pretrained(tiny.mistral(folder, **told))


def our_mistral(folder, cls="mistral3", **told):
    """The same, of fdiff, without parameters."""
    name, options = make_seeing_lm.CONFIGS[cls]
    config = {"text_config": {**options["text_config"], **MISTRAL}}
    tokenizer = fdiff.PreTrainedTokenizerFast.from_folder(tiny.mistral(folder, **told))
    return getattr(fdiff, name).from_config(config), tokenizer


def flux2_vae():
    """FLUX.2's autoencoder, of diffusers, with statistics that are none of a fresh model's."""
    import diffusers
    import torch

    vae = checkpoints.seeded(lambda: diffusers.AutoencoderKLFlux2(**transformers.FLUX2_VAE), 2)
    vae.bn.running_mean.copy_(torch.randn(16))
    vae.bn.running_var.copy_(torch.rand(16) / 1000)  # so small that what is added to it is seen
    return vae


def ernie_image(folder):
    """ERNIE-Image, of diffusers; the folder is for its tokenizer."""
    import diffusers

    encoder, tokenizer = mistral(folder)
    return diffusers.ErnieImagePipeline(
        make_single_stream.build_of("ErnieImageTransformer2DModel", ERNIE_IMAGE), flux2_vae(), encoder, tokenizer,
        diffusers.FlowMatchEulerDiscreteScheduler(**FIXED),
    )  # fmt: skip


def our_ernie_image(folder):
    """ERNIE-Image, of fdiff, without parameters."""
    encoder, tokenizer = our_mistral(folder)
    return fdiff.ErnieImagePipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**FIXED), fdiff.AutoencoderKLFlux2(**transformers.FLUX2_VAE), encoder,
        tokenizer, fdiff.ErnieImageTransformer2DModel(**ERNIE_IMAGE),
    )  # fmt: skip


def flux2_dev(folder):
    """FLUX.2 dev, of diffusers; the folder is for its tokenizer, which pads on the left."""
    import diffusers

    encoder, tokenizer = mistral(folder, "mistral3_with_head", **LEFT)
    return diffusers.Flux2Pipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(**DYNAMIC), flux2_vae(), encoder, tokenizer,
        make_single_stream.build_of("Flux2Transformer2DModel", FLUX2),
    )  # fmt: skip


def our_flux2_dev(folder):
    """FLUX.2 dev, of fdiff, without parameters."""
    encoder, tokenizer = our_mistral(folder, "mistral3_with_head", **LEFT)
    return fdiff.Flux2Pipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**DYNAMIC), fdiff.AutoencoderKLFlux2(**transformers.FLUX2_VAE), encoder,
        tokenizer, fdiff.Flux2Transformer2DModel(**FLUX2),
    )  # fmt: skip


QWEN3_VL = {"vocab_size": len(tiny.pieces())}
QWEN21_VAE = {
    "base_dim": 4, "decoder_base_dim": 4, "z_dim": 6, "dim_mult": [1, 1], "num_res_blocks": 1,
    "temperal_downsample": [True], "latents_mean": [0.5] * 6, "latents_std": [2.0, 1.0, 0.5, 1.0, 1.0, 1.0],
}  # fmt: skip
QWEN21 = {**make_single_stream.QWEN21, "out_channels": 6, "context_in_dim": 16}
LINEAR = {"use_dynamic_shifting": True, "base_shift": 0.3, "max_shift": 2.0, "base_image_seq_len": 4}


class Processor:
    """What of transformers' processor pipelines need, which itself needs torchvision."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages, tokenize, return_dict=False, add_generation_prompt=False):
        said = [(one["role"], one["content"]) for one in messages]
        said = [(role, text if isinstance(text, str) else text[0]["text"]) for role, text in said]
        text = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said)
        text += "<|im_start|>assistant\n" if add_generation_prompt else ""
        return [self.tokenizer(text)["input_ids"]] if tokenize else text

    def __call__(self, text, **options):
        return self.tokenizer(text, **options)


def qwenimage21(folder, **options):
    """Qwen-Image-2.1, of diffusers; the folder is for its tokenizer."""
    import diffusers

    encoder = make_seeing_lm.build("qwen3_vl_with_head", 3, **QWEN3_VL)
    vae = checkpoints.seeded(lambda: diffusers.AutoencoderKLQwenImage21(**QWEN21_VAE), 2)
    return diffusers.QwenImage21Pipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(**LINEAR), vae, encoder, Processor(transformers.tokenizer(folder)),
        make_single_stream.build_of("QwenImage21Transformer2DModel", QWEN21), **options,
    )  # fmt: skip


def our_qwenimage21(folder, **options):
    """Qwen-Image-2.1, of fdiff, without parameters."""
    config = {"text_config": {**make_seeing_lm.CONFIGS["qwen3_vl_with_head"][1]["text_config"], **QWEN3_VL}}
    return fdiff.QwenImage21Pipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**LINEAR), fdiff.AutoencoderKLQwenImage21(**QWEN21_VAE),
        fdiff.Qwen3VLForConditionalGeneration.from_config(config), fdiff.Qwen2Tokenizer.from_folder(tiny.qwen(folder)),
        fdiff.QwenImage21Transformer2DModel(**QWEN21), **options,
    )  # fmt: skip


FLUX3 = {**make_single_stream.FLUX3, "in_channels": 16, "cond_in_channels": 16, "joint_attention_dim": 3 * 16}
STEEP = {"shift": 6.93}


def flux3(folder, distilled=False):
    """FLUX.3, of diffusers, which has it as blocks; the folder is for its tokenizer."""
    import diffusers
    from diffusers.modular_pipelines import flux3 as blocks

    steps = (blocks.Flux3DistilledAutoBlocks if distilled else blocks.Flux3AutoBlocks)()
    steps.sub_blocks.pop("prompt_upsampler")  # which has another language model write the prompt anew
    pipe = steps.init_pipeline()
    transformer = make_single_stream.build_of("Flux3Transformer2DModel", {**FLUX3, "flow_map": distilled})
    parts = {
        "text_encoder": make_seeing_lm.build("qwen3_vl_with_head", 3, **QWEN3_VL), "vae": flux2_vae(),
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**STEEP),
        "image_processor": blocks.image_processor.Flux3ImageProcessor(vae_scale_factor=4),
    }  # fmt: skip
    pipe.update_components(**parts)
    pipe.tokenizer = Processor(transformers.tokenizer(folder))
    return pipe


def our_flux3(folder, distilled=False):
    """FLUX.3, of fdiff, without parameters."""
    config = {"text_config": {**make_seeing_lm.CONFIGS["qwen3_vl_with_head"][1]["text_config"], **QWEN3_VL}}
    return fdiff.Flux3Pipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**STEEP), fdiff.AutoencoderKLFlux2(**transformers.FLUX2_VAE),
        fdiff.Qwen3VLForConditionalGeneration.from_config(config), fdiff.Qwen2Tokenizer.from_folder(tiny.qwen(folder)),
        fdiff.Flux3Transformer2DModel(**{**FLUX3, "flow_map": distilled}),
    )  # fmt: skip


KREA2 = {**make_single_stream.KREA2, "in_channels": 16, "text_hidden_dim": 16}
WAN = {
    "base_dim": 4, "z_dim": 4, "dim_mult": [1, 1], "num_res_blocks": 1, "temperal_downsample": [True],
    "latents_mean": [0.5, -0.5, 0.0, 1.0], "latents_std": [2.0, 1.0, 0.5, 1.0],
}  # fmt: skip
TAPPED = (0, 1, 3)


def krea2(folder, **options):
    """Krea 2, of diffusers; the folder is for its tokenizer."""
    import diffusers

    vae = checkpoints.seeded(lambda: diffusers.AutoencoderKLQwenImage(**WAN), 2)
    return diffusers.Krea2Pipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(**LINEAR), vae, make_seeing_lm.build("qwen3_vl", 3, **QWEN3_VL),
        transformers.tokenizer(folder), make_single_stream.build_of("Krea2Transformer2DModel", KREA2),
        text_encoder_select_layers=TAPPED, **options,
    )  # fmt: skip


def our_krea2(folder, **options):
    """Krea 2, of fdiff, without parameters."""
    config = {"text_config": {**make_seeing_lm.CONFIGS["qwen3_vl"][1]["text_config"], **QWEN3_VL}}
    return fdiff.Krea2Pipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**LINEAR), fdiff.AutoencoderKLQwenImage(**WAN),
        fdiff.Qwen3VLModel.from_config(config), fdiff.Qwen2Tokenizer.from_folder(tiny.qwen(folder)),
        fdiff.Krea2Transformer2DModel(**KREA2), text_encoder_select_layers=TAPPED, **options,
    )  # fmt: skip


GEMMA = {**make_causal_lm.CONFIGS["gemma2"][1], "vocab_size": len(tiny.gemma_vocab())}
LUMINA2 = {
    **make_single_stream.LUMINA2, "in_channels": 4, "out_channels": None, "cap_feat_dim": GEMMA["hidden_size"],
    "sample_size": 4,
}  # fmt: skip
DEEP_VAE = {**transformers.SHIFTED_VAE, **transformers.FOUR}  # of eight pixels a latent, which diffusers does not ask


def gemma(folder):
    """Gemma 2 and its tokenizer, of transformers."""
    import transformers as hub

    encoder = checkpoints.seeded(lambda: hub.Gemma2Model(hub.Gemma2Config(**GEMMA)), 3)
    return encoder, hub.AutoTokenizer.from_pretrained(tiny.gemma(folder))


def lumina2(folder, **scheduler):
    """Lumina 2, of diffusers; the folder is for its tokenizer."""
    import diffusers

    return diffusers.Lumina2Pipeline(
        make_single_stream.build_of("Lumina2Transformer2DModel", LUMINA2),
        diffusers.FlowMatchEulerDiscreteScheduler(**scheduler or {"shift": 6.0}),
        checkpoints.seeded(lambda: diffusers.AutoencoderKL(**DEEP_VAE), 2), *gemma(folder),
    )  # fmt: skip


def our_lumina2(folder):
    """Lumina 2, of fdiff, without parameters."""
    return fdiff.Lumina2Pipeline(
        fdiff.Lumina2Transformer2DModel(**LUMINA2), fdiff.FlowMatchEulerDiscreteScheduler(shift=6.0),
        fdiff.AutoencoderKL(**DEEP_VAE), fdiff.Gemma2Model(**GEMMA),
        fdiff.GemmaTokenizer.from_folder(tiny.gemma(folder)),
    )  # fmt: skip
