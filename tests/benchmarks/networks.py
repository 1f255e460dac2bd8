"""Networks at their true widths with random weights: fdiff, torch eager, torch.compile and OpenVINO, in float32."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks.case import Case, Ready, Run, Setting, fill, normal, parameters

SD_UNET = {"cross_attention_dim": 768, "sample_size": 64}
SDXL_UNET = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": (1, 2, 10),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
CIFAR10 = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
DIGITS = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 16,
    "norm_num_groups": 8,
    "num_class_embeds": 11,
}
CLIP = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "eos_token_id": 2,
}
KLEIN = {
    "in_channels": 128,
    "num_layers": 2,
    "num_single_layers": 4,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
T5 = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 4,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
QWEN3 = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "sliding_window": None,
}
UNET_1D = {
    "extra_in_channels": 16,
    "time_embedding_dim": 16,
    "sample_rate": 16000,
    "block_out_channels": (128, 128, 256, 256, 512, 512, 512, 512),
    "down_block_types": ("DownBlock1DNoSkip", *("DownBlock1D",) * 4, *("AttnDownBlock1D",) * 3),
    "up_block_types": (*("AttnUpBlock1D",) * 3, *("UpBlock1D",) * 4, "UpBlock1DNoSkip"),
}
NARROW = {"block_out_channels": (32, 64), "norm_num_groups": 8}


class Network(NamedTuple):
    """A network of both libraries, and what it is given.

    `cls` is fdiff's class, and `theirs` that of diffusers or transformers. `inputs` gives arrays, pictures as
    (b, h, w, c), for a size which `size` is but for a small run. `ours` and `torchs` say how each is called with them;
    outputs are turned as `inputs` are.
    """

    about: str
    cls: str
    theirs: str
    config: Mapping[str, Any]
    size: int
    inputs: Callable[[Any, int], tuple[np.ndarray, ...]]  # of the config and the size
    torchs: Callable[..., Any]
    ours: Callable[..., Any] = lambda model, params, *arrays: model.apply({"params": params}, *arrays)
    narrow: Mapping[str, Any] = {}  # what makes it small
    smaller: int = 8
    wanted: float | None = None
    gigabytes: float = 1.0
    rounds: int | None = None

    def configured(self, small: bool) -> dict[str, Any]:
        """The config of a run."""
        return {**self.config, **(self.narrow if small else {})}

    def arrays(self, small: bool) -> tuple[np.ndarray, ...]:
        """The inputs of a run."""
        return self.inputs(self.configured(small), self.smaller if small else self.size)


T = np.array([500.0], np.float32)
NARROW_UNET = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4, "layers_per_block": 1, **NARROW,
}  # fmt: skip
NARROW_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, **NARROW,
}  # fmt: skip


def latents_and_text(config: Any, size: int) -> tuple[np.ndarray, ...]:
    return normal(2, size, size, 4), T, normal(2, 77, config["cross_attention_dim"])


def and_size(config: Any, size: int) -> tuple[np.ndarray, ...]:
    width = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return *latents_and_text(config, size), normal(2, width), np.full((2, 6), size, np.float32)


def ids(vocab: int, batch: int, tokens: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, vocab - 2, (batch, tokens)).astype(np.int32)


def words(config: Any, tokens: int) -> tuple[np.ndarray, ...]:
    return (ids(config["vocab_size"], 1, tokens),)


def prompts(config: Any, tokens: int) -> tuple[np.ndarray, ...]:
    found = ids(config["vocab_size"], 2, 77)
    found[:, 0], found[:, 30:] = config["vocab_size"] - 2, config["vocab_size"] - 1
    return (found,)


def joint(config: Any, rows: int) -> tuple[np.ndarray, ...]:
    """Tokens of a square picture, and half as many of a text."""
    pictures, texts = rows * rows, rows * rows // 2
    img_ids, txt_ids = np.zeros((pictures, 4), np.float32), np.zeros((texts, 4), np.float32)
    img_ids[:, 1], img_ids[:, 2] = np.divmod(np.arange(pictures), rows)
    txt_ids[:, 3] = np.arange(texts)
    x, y = normal(1, pictures, config["in_channels"]), normal(1, texts, config["joint_attention_dim"])
    return x, y, np.array([0.5], np.float32), img_ids, txt_ids


def decoded(model: Any, params: Any, x: Any) -> Any:
    return model.apply({"params": params}, x, method="decode")


def sdxl(model: Any, params: Any, x: Any, t: Any, text: Any, pooled: Any, sizes: Any) -> Any:
    added = {"text_embeds": pooled, "time_ids": sizes}
    return model.apply({"params": params}, x, t, text, added_cond_kwargs=added)


UNET_PAIR = {
    "cls": "UNet2DConditionModel", "theirs": "diffusers.UNet2DConditionModel", "config": SD_UNET,
    "inputs": latents_and_text, "torchs": lambda m, x, t, text: m(x, t, text).sample, "narrow": NARROW_UNET,
    "gigabytes": 5.0,
}  # fmt: skip
SMALL_UNET = {
    "cls": "UNet2DModel", "theirs": "diffusers.UNet2DModel", "torchs": lambda m, x, t: m(x, t).sample,
    "inputs": lambda config, batch: (normal(batch, config["sample_size"], config["sample_size"], 3), T),
}  # fmt: skip
DIGITS_PAIR = {
    **SMALL_UNET, "config": DIGITS, "torchs": lambda m, x, t, labels: m(x, t, labels).sample,
    "inputs": lambda config, batch: (normal(batch, 8, 8, 1), T, np.arange(batch, dtype=np.int32) % 10),
}  # fmt: skip
NETWORKS = {
    "unet32": Network("SD 1.5's U-Net, batch 2, 32x32", size=32, **UNET_PAIR),
    "unet64": Network("SD 1.5's U-Net, batch 2, 64x64", size=64, **UNET_PAIR),
    "vae512": Network(
        "SD 1.5's VAE decoder, 512x512", "AutoencoderKL", "diffusers.AutoencoderKL", VAE, 64,
        lambda config, size: (normal(1, size, size, 4),), lambda m, x: m.decode(x).sample, decoded, NARROW_VAE,
        gigabytes=2.5,
    ),
    "cifar10": Network(
        "U-Net of ddpm-cifar10-32, batch 1", config=CIFAR10, size=1, smaller=1, narrow={
            **NARROW, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        }, **SMALL_UNET,
    ),
    "cifar10_batch8": Network(
        "U-Net of ddpm-cifar10-32, batch 8", config=CIFAR10, size=8, smaller=2, narrow=DIGITS | {
            "in_channels": 3, "out_channels": 3, "num_class_embeds": None,
        }, **SMALL_UNET,
    ),
    "digits": Network("U-Net of the digits that ship, batch 1", size=1, smaller=1, **DIGITS_PAIR),
    "digits_batch16": Network("U-Net of the digits that ship, batch 16", size=16, smaller=2, **DIGITS_PAIR),
    "sdxl": Network(
        "SDXL's U-Net, batch 2, 32x32", "UNet2DConditionModel", "diffusers.UNet2DConditionModel", SDXL_UNET, 32,
        and_size, lambda m, x, t, text, pooled, sizes: m(
            x, t, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}
        ).sample, sdxl, {**NARROW_UNET, "transformer_layers_per_block": 1}, gigabytes=13.0,
    ),
    "clip": Network(
        "SD 1.5's text encoder, batch 2", "CLIPTextModel", "transformers.CLIPTextModel", CLIP, 77, prompts,
        lambda m, ids: m(ids).last_hidden_state,
        lambda model, params, ids: model.apply({"params": params}, ids).last_hidden_state,
        {"vocab_size": 100, "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}, 77,
    ),
    "klein": Network(
        "FLUX.2 klein's blocks, 2 joint and 4 single, 1,024 + 512 tokens", "Flux2Transformer2DModel",
        "diffusers.Flux2Transformer2DModel", KLEIN, 32, joint,
        lambda m, x, y, t, places, order: m(
            hidden_states=x, encoder_hidden_states=y, timestep=t, img_ids=places, txt_ids=order
        ).sample, narrow={"num_attention_heads": 2, "joint_attention_dim": 64}, smaller=4, wanted=0.75, gigabytes=6.0,
        rounds=2,
    ),
    "t5": Network(
        "T5-XXL's first four layers, 256 tokens", "T5EncoderModel", "transformers.T5EncoderModel", T5, 256, words,
        lambda m, ids: m(ids).last_hidden_state, narrow={
            "vocab_size": 100, "d_model": 64, "d_ff": 128, "num_heads": 2, "num_layers": 1
        }, smaller=16, wanted=0.75, gigabytes=4.5,
    ),
    "qwen3": Network(
        "Qwen3-4B's first four layers, 512 tokens", "Qwen3ForCausalLM", "transformers.Qwen3Model", QWEN3, 512, words,
        lambda m, ids: m(ids, {"full_attention": None}, use_cache=False).last_hidden_state,  # which is causal
        lambda model, params, ids: model.apply({"params": params}, ids)[0], {
            "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1,
        }, 16, wanted=0.75, gigabytes=4.0,
    ),
    "flux2_vae512": Network(
        "FLUX.2's VAE decoder, 512x512", "AutoencoderKLFlux2", "diffusers.AutoencoderKLFlux2", {}, 64,
        lambda config, size: (normal(1, size, size, 32),), lambda m, x: m.decode(x).sample, decoded, NARROW_VAE,
        wanted=0.65, gigabytes=2.5,
    ),
    "unet_1d": Network(
        "upper levels of harmonai's networks, 16,384 samples", "UNet1DModel", "diffusers.UNet1DModel", UNET_1D, 16384,
        lambda config, size: (normal(1, size, 2), np.array([0.5], np.float32)), lambda m, x, t: m(x.mT, t).sample.mT,
        smaller=2048,
    ),
    "oobleck": Network(
        "Stable Audio's decoder, 24 latents", "AutoencoderOobleck", "diffusers.AutoencoderOobleck", {}, 24,
        lambda config, size: (normal(1, size, 64),), lambda m, x: m.decode(x.mT).sample.mT, decoded, smaller=2,
    ),
}  # fmt: skip


def fdiff_side(network: Network, setting: Setting) -> Ready:
    """The function, jitted."""
    import jax

    import fdiff

    cls = getattr(fdiff, network.cls, None) or getattr(fdiff.models, network.cls)
    model = cls.from_config(network.configured(setting.small))
    params, arrays = parameters(model), network.arrays(setting.small)

    def begin() -> Run:
        run = jax.jit(lambda params, *arrays: network.ours(model, params, *arrays)).lower(params, *arrays).compile()
        return lambda: np.asarray(run(params, *arrays))

    return Ready(begin)


def torch_module(network: Network, setting: Setting) -> tuple[Any, tuple[Any, ...]]:
    """(a module that is called with tensors alone, and they)."""
    import torch

    library, name = network.theirs.split(".")
    config = network.configured(setting.small)
    if library == "diffusers":
        import diffusers

        inner = getattr(diffusers, name)(**config)
    else:
        import transformers

        inner = getattr(transformers, name)(getattr(transformers, name).config_class(**config))

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = fill(inner)

        def forward(self, *tensors: Any) -> Any:
            return network.torchs(self.inner, *tensors)

    tensors = (torch.from_numpy(array) for array in network.arrays(setting.small))
    return Called().eval(), tuple(x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x for x in tensors)


def turned(output: np.ndarray) -> np.ndarray:
    """What torch or OpenVINO gives, with channels last."""
    return output.transpose(0, 2, 3, 1) if output.ndim == 4 else output


def torch_side(network: Network, compiled: bool, setting: Setting) -> Ready:
    """Eager, or `torch.compile`d as it is by default."""
    import torch

    module, tensors = torch_module(network, setting)

    def begin() -> Run:
        called = torch.compile(module) if compiled else module

        def run() -> np.ndarray:
            with torch.no_grad():
                return turned(called(*tensors).numpy())

        if compiled:
            run()
        return run

    def count() -> float:
        from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

        looks = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        flash = {looks: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v)}
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=flash) as counter:
            module(*tensors)
        return float(counter.get_total_flops())

    return Ready(begin, None if compiled else count)


def openvino_side(network: Network, setting: Setting) -> Ready:
    """Converted from the module of torch, in float32."""
    import openvino
    import torch

    module, tensors = torch_module(network, setting)
    shapes = [openvino.PartialShape(list(tensor.shape)) for tensor in tensors]

    def begin() -> Run:
        with torch.no_grad():
            converted = openvino.convert_model(module, example_input=tensors, input=shapes)
        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(converted, "CPU", hints).create_infer_request()
        arrays = [tensor.numpy() for tensor in tensors]
        return lambda: turned(next(iter(request.infer(arrays, share_inputs=True, share_outputs=True).values())))

    return Ready(begin)


def case(name: str, network: Network) -> Case:
    """The case of a network."""
    sides = {
        "fdiff": functools.partial(fdiff_side, network),
        "torch": functools.partial(torch_side, network, False),
        "compile": functools.partial(torch_side, network, True),
        "openvino": functools.partial(openvino_side, network),
    }
    return Case(name, network.about, sides, network.wanted, network.gigabytes, network.rounds)


CASES = [case(name, network) for name, network in NETWORKS.items()]
