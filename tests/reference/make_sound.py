"""Tiny models of sound with inputs and outputs. Arrays are as fdiff takes them, sequences being (b, n, c).

Weights are drawn by their names, so that only outputs are stored.
"""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, Any]


class Case(NamedTuple):
    """A model of diffusers or transformers, what it is given, and how it is run: (model, tensors) -> tensors.

    method: what of ours is called. config: the class of its config, in transformers.
    """

    name: str
    options: dict[str, Any]
    inputs: Callable[[], Arrays]
    run: Callable[[Any, dict[str, Any]], Any]
    config: str = ""
    method: str = "__call__"


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of that name, in torch's axes: of a fresh layer's size, or about 1 where it scales."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        drawn /= math.sqrt(math.prod(shape[1:]))
    else:
        drawn = 0.1 * drawn + name.endswith((".weight", "scale"))
    return drawn.astype(np.float32)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


DANCE = {
    "sample_size": 512,
    "sample_rate": 16000,
    "extra_in_channels": 16,
    "time_embedding_dim": 16,
    "block_out_channels": (32, 32, 64),
}
MOTION = {
    "in_channels": 6,
    "out_channels": 6,
    "time_embedding_type": "positional",
    "use_timestep_embedding": True,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "act_fn": "mish",
    "down_block_types": ("DownResnetBlock1D",) * 3,
    "up_block_types": ("UpResnetBlock1D",) * 2,
    "mid_block_type": "MidResTemporalBlock1D",
    "out_block_type": "OutConv1DBlock",
    "block_out_channels": (16, 24, 32),
}
VALUE = {
    **MOTION,
    "down_block_types": ("DownResnetBlock1D",) * 3,
    "up_block_types": (),
    "downsample_each_block": True,
    "mid_block_type": "ValueFunctionMidBlock1D",
    "out_block_type": "ValueFunction",
    "block_out_channels": (16, 32, 64),
}


def noisy(length: int, channels: int) -> Callable[[], Arrays]:
    """A batch of two samples, and their times."""
    return lambda: {"sample": normal(2, length, channels), "timestep": np.array([0.25, 0.9], np.float32)}


def unet_1d(model: Any, arrays: dict[str, Any]) -> Any:
    """UNet1DModel, whose sequences are (b, c, n)."""
    out = model(arrays["sample"].mT, arrays["timestep"]).sample
    return out.mT if out.ndim == 3 else out


OOBLECK = {
    "encoder_hidden_size": 8,
    "downsampling_ratios": [2, 4],
    "channel_multiples": [1, 2],
    "decoder_channels": 6,
    "decoder_input_channels": 4,
    "sampling_rate": 16000,
}
STABLE = {
    "sample_size": 16,
    "in_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "num_key_value_attention_heads": 2,
    "out_channels": 4,
    "cross_attention_dim": 10,
    "time_proj_dim": 12,
    "global_states_input_dim": 20,
    "cross_attention_input_dim": 10,
}
HIFIGAN = {
    "model_in_dim": 8,
    "upsample_initial_channel": 16,
    "upsample_rates": [5, 2],
    "upsample_kernel_sizes": [11, 4],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "normalize_before": True,
}
CLAP = {
    "vocab_size": 20,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "projection_dim": 6,
}


LDM2 = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": ((None, 6, 5), (None, 6, 5)),
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "sample_size": 16,
}
GPT2 = {"vocab_size": 7, "n_positions": 48, "n_embd": 8, "n_layer": 2, "n_head": 2}
LDM2_PROJECTION = {"text_encoder_dim": 6, "text_encoder_1_dim": 5, "langauge_model_dim": 8}
ACE_STEP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "sliding_window": 2,
}


def stable_audio(model: Any, arrays: dict[str, Any]) -> Any:
    """StableAudioDiTModel, which is told how its tokens are turned."""
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    x = arrays.pop("hidden_states").mT
    turns = get_1d_rotary_pos_embed(
        model.config.attention_head_dim // 2, x.shape[2] + 1, use_real=True, repeat_interleave_real=False
    )
    return model(x, **arrays, rotary_embedding=turns).sample.mT


def oobleck_encode(model: Any, arrays: dict[str, Any]) -> Any:
    """The distribution of the latents."""
    found = model.encode(arrays["samples"].mT).latent_dist
    return found.mean.mT, found.std.mT


def projection(model: Any, arrays: dict[str, Any]) -> Any:
    """StableAudioProjectionModel, all at once."""
    out = model(arrays["text"], arrays["start"], arrays["end"])
    return out.text_hidden_states, out.seconds_start_hidden_states, out.seconds_end_hidden_states


def clap(model: Any, arrays: dict[str, Any]) -> Any:
    """CLAP's text tower."""
    out = model(arrays["input_ids"].long(), attention_mask=arrays.get("attention_mask"))
    return out.text_embeds, out.last_hidden_state


def audio_ldm2_projection(model: Any, arrays: dict[str, Any]) -> Any:
    """AudioLDM2ProjectionModel, and where there is something."""
    out = model(arrays["first"], arrays["second"], arrays["first_mask"], arrays["second_mask"])
    return out.hidden_states, out.attention_mask.float()


def ace_told() -> Arrays:
    """Two texts and lyrics, one of each shorter, and a sound for each."""
    return {
        "text": normal(2, 4, 5), "text_mask": np.int32([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "lyrics": normal(2, 7, 5, seed=1), "lyrics_mask": np.int32([[1, 1, 1, 0, 0, 0, 0], [1] * 7]),
        "refer_audio": normal(2, 6, 3, seed=2), "refer_audio_order": np.int32([1, 0]),
    }  # fmt: skip


def ace_condition(model: Any, arrays: dict[str, Any]) -> Any:
    """What AceStepConditionEncoder packs, and where there is something."""
    text, lyrics, audio = (arrays[name] for name in ("text", "lyrics", "refer_audio"))
    masks = (arrays[name].long() for name in ("text_mask", "lyrics_mask", "refer_audio_order"))
    text_mask, lyrics_mask, order = masks
    states, mask = model(text, text_mask, lyrics, lyrics_mask, audio, order)
    return states, mask.float()


def tokens() -> Arrays:
    """Two texts, one of them shorter."""
    ids = np.array([[0, 5, 7, 9, 11, 2], [0, 6, 8, 2, 1, 1]], np.int32)
    return {"input_ids": ids, "attention_mask": (ids != 1).astype(np.int32)}


CASES = {
    "dance": Case("UNet1DModel", DANCE, noisy(64, 2), unet_1d),
    "motion": Case("UNet1DModel", MOTION, noisy(16, 6), unet_1d),
    "value": Case("UNet1DModel", VALUE, noisy(20, 6), unet_1d),
    "oobleck_encode": Case(
        "AutoencoderOobleck", OOBLECK, lambda: {"samples": normal(2, 32, 2)}, oobleck_encode, method="encode"
    ),
    "oobleck_decode": Case(
        "AutoencoderOobleck", OOBLECK, lambda: {"latents": normal(2, 5, 4)},
        lambda model, arrays: model.decode(arrays["latents"].mT).sample.mT, method="decode",
    ),
    "stable_audio": Case(
        "StableAudioDiTModel", STABLE,
        lambda: {
            "hidden_states": normal(2, 16, 4), "timestep": np.array([0.3, 0.8], np.float32),
            "encoder_hidden_states": normal(2, 5, 10, seed=1), "global_hidden_states": normal(2, 1, 20, seed=2),
        },
        stable_audio,
    ),
    "stable_audio_projection": Case(
        "StableAudioProjectionModel",
        {"text_encoder_dim": 6, "conditioning_dim": 10, "min_value": 0, "max_value": 512},
        lambda: {"text": normal(2, 5, 6), "start": np.float32([0, 3]), "end": np.float32([47.5, 600])},
        projection,
    ),
    "hifigan": Case(
        "SpeechT5HifiGan", HIFIGAN, lambda: {"spectrogram": normal(2, 7, 8)},
        lambda model, arrays: model(arrays["spectrogram"]), "SpeechT5HifiGanConfig",
    ),
    "audio_ldm2": Case(
        "AudioLDM2UNet2DConditionModel", LDM2,
        lambda: {
            "sample": normal(2, 6, 4, 4), "timestep": np.int32([3, 900]),
            "encoder_hidden_states": normal(2, 3, 6, seed=1), "encoder_hidden_states_1": normal(2, 5, 5, seed=2),
            "encoder_attention_mask_1": np.int32([[1, 1, 1, 0, 0], [1] * 5]),
        },
        lambda model, arrays: model(arrays.pop("sample").permute(0, 3, 1, 2), **arrays).sample.permute(0, 2, 3, 1),
    ),
    "audio_ldm2_projection": Case(
        "AudioLDM2ProjectionModel", LDM2_PROJECTION,
        lambda: {
            "first": normal(2, 1, 6), "first_mask": np.ones((2, 1), np.int32), "second": normal(2, 4, 5, seed=1),
            "second_mask": np.int32([[1, 1, 0, 0], [1] * 4]),
        },
        audio_ldm2_projection,
    ),
    "gpt2": Case(
        "GPT2Model", GPT2,
        lambda: {"inputs_embeds": normal(2, 5, 8), "attention_mask": np.int32([[1, 1, 0, 1, 1], [1] * 5])},
        lambda model, arrays: model(**arrays).last_hidden_state, "GPT2Config",
    ),
    "ace_step": Case(
        "AceStepTransformer1DModel",
        {**ACE_STEP, "num_hidden_layers": 3, "in_channels": 10, "audio_acoustic_hidden_dim": 3,
         "encoder_hidden_size": 12},
        lambda: {
            "hidden_states": normal(2, 9, 3), "timestep": np.float32([0.3, 1.0]),
            "timestep_r": np.float32([0.1, 1.0]), "encoder_hidden_states": normal(2, 5, 12, seed=1),
            "context_latents": normal(2, 9, 7, seed=2),
        },
        lambda model, arrays: model(**arrays).sample,
    ),
    "ace_step_condition": Case(
        "AceStepConditionEncoder",
        {**ACE_STEP, "text_hidden_dim": 5, "timbre_hidden_dim": 3, "num_lyric_encoder_hidden_layers": 2,
         "num_timbre_encoder_hidden_layers": 2},
        ace_told, ace_condition,
    ),
    "clap": Case("ClapTextModelWithProjection", CLAP, tokens, clap, "ClapTextConfig"),
}  # fmt: skip

def build(name: str) -> Any:
    """The torch model of that name."""
    import diffusers
    import torch
    import transformers

    case = CASES[name]
    if case.config:
        model = getattr(transformers, case.name)(getattr(transformers, case.config)(**case.options))
    else:
        model = getattr(diffusers, case.name, None) or getattr(diffusers.pipelines.ace_step, case.name)
        model = model(**case.options)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not key.endswith(".kernel"):  # a filter that nobody trains
            tensor.copy_(torch.from_numpy(weight(key, tuple(tensor.shape))))
    return model.eval()


def run(name: str, model: Any) -> list[np.ndarray]:
    """What torch computes from the inputs."""
    import torch

    case = CASES[name]
    with torch.no_grad():
        made = case.run(model, {key: torch.from_numpy(array) for key, array in case.inputs().items()})
    return [np.ascontiguousarray(one.numpy()) for one in (made if isinstance(made, tuple) else (made,))]


def make(folder: Path) -> None:
    """Write `<name>.npz` with the outputs of each."""
    for name in CASES:
        np.savez(folder / f"{name}.npz", *run(name, build(name)))
