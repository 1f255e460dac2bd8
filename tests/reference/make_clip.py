"""CLIP as transformers computes it: a small tokenizer, tiny text and vision towers, a safety checker."""

import collections
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

START, END = "<|startoftext|>", "<|endoftext|>"
PAGE = """a photo of a cat and a dog sitting in the garden, painted in the style of an old master
the quick brown fox jumps over the lazy dog while the bright sun sets behind the far mountains
an astronaut riding a horse on the moon, highly detailed, cinematic light, sharp focus
a small red house near the sea with a wooden boat, watercolor, soft colors, trending
portrait of a woman with long hair, oil on canvas, dramatic lighting, high quality"""
TEXTS = [
    "a photo of a cat",
    "",
    "   spaces\tand\nlines  ",
    "An ASTRONAUT riding a horse!!! 1984, don't we'll they've",
    "café naïve Ünïcödé İstanbul ß",
    "日本語の猫 한국어 中文",
    "emoji 😀👍🏽👨‍👩‍👧 ❤️ flags 🇫🇷",
    "control \x00\x07\x1b\x7f\u200b\ufeff\u2028 signs\xa0here",
    "<|startoftext|> inside <|endoftext|> and <|EndOfText|>",
    "hello! what? (brackets) [square] {curly} a_b-c/d\\e",
    "ﬁne ½ ① Ａ é e\u0301",
    "very long " * 60,
]


def learn_pairs(words: collections.Counter[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """Byte pairs, the most frequent first (Sennrich et al. 2016)."""
    merges = []
    for _ in range(count):
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged: collections.Counter[tuple[str, ...]] = collections.Counter()
        for word, times in words.items():
            new, rest = [], list(word)
            while rest:
                size = 2 if tuple(rest[:2]) == best else 1
                new.append("".join(rest[:size]))
                del rest[:size]
            merged[tuple(new)] += times
        words = merged
    return merges


def write_tokenizer(folder: Path, pad: str) -> None:
    """vocab.json, merges.txt and the two files of special tokens, as repositories of 2022 have them."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = collections.Counter((*word[:-1], word[-1] + "</w>") for word in re.findall(r"[a-z]+", PAGE))
    merges = learn_pairs(words, 150)
    signs = sorted(ByteLevel.alphabet())
    signs.remove("!")
    signs.insert(0, "!")  # id 0, as CLIP has it
    tokens = [*signs, *(sign + "</w>" for sign in signs), *("".join(pair) for pair in merges), START, END]
    marks = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    named = {"bos_token": {"content": START, **marks}, "eos_token": {"content": END, **marks}}
    special = {**named, "unk_token": {"content": END, **marks}, "pad_token": pad}
    config = {
        "model_max_length": 77,
        "pad_token": END,
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
    }
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), "utf-8")


def scatter(model: Any, seed: int) -> Any:
    """Draw every parameter anew, numbers that float16 can hold, so that no part of the model is idle."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.5 if "embedding" in name else parameter.shape[-1] ** -0.5
        is_norm_scale = "norm" in name and name.endswith("weight")
        parameter.data = (1 + 0.2 * noise if is_norm_scale else scale * noise).half().float()
    return model.eval()


def save(folder: Path, model: Any, tower: str = "", prefix: str = "", buffer: str | None = None) -> None:
    """The Hub's layout, with float16 weights; names that start with `tower` get the prefix of Hub files."""
    import torch
    from safetensors.torch import save_file

    named = {prefix * key.startswith(tower) + key: value for key, value in model.state_dict().items()}
    tensors = {key: value.half().contiguous() for key, value in named.items()}
    if buffer:  # which torch wrote beside the weights once
        tensors[buffer] = torch.arange(77)[None]
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))


def make_text(folder: Path, vocab_size: int, ids: np.ndarray, mask: np.ndarray) -> None:
    """A text encoder like SD 1.5's and one like the second of SDXL, with what they compute."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    shared = {"vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    shared |= {"num_hidden_layers": 3, "bos_token_id": vocab_size - 2, "pad_token_id": 1}
    old = CLIPTextConfig(**shared, hidden_act="quick_gelu", eos_token_id=2)
    new = CLIPTextConfig(**shared, hidden_act="gelu", eos_token_id=vocab_size - 1, projection_dim=24)
    first, second = scatter(CLIPTextModel(old), 1), scatter(CLIPTextModelWithProjection(new), 2)
    tensors = torch.from_numpy(ids).long()
    arrays = {}
    with torch.no_grad():
        for name, model in {"text_encoder": first, "text_encoder_2": second}.items():
            for case, extra in {"": {}, "masked.": {"attention_mask": torch.from_numpy(mask).long()}}.items():
                output = model(tensors, output_hidden_states=True, **extra)
                tower = getattr(model, "text_model", model)
                arrays[f"{name}.{case}last_hidden_state"] = output.last_hidden_state
                arrays[f"{name}.{case}penultimate"] = output.hidden_states[-2]
                arrays[f"{name}.{case}skipped"] = tower.final_layer_norm(output.hidden_states[-2])
                pooled = "text_embeds" if name == "text_encoder_2" else "pooler_output"
                arrays[f"{name}.{case}{pooled}"] = output[pooled]
    np.savez_compressed(folder / "text.npz", ids=ids, mask=mask, **{k: v.numpy() for k, v in arrays.items()})
    save(folder / "text_encoder", first, "", "text_model.", "text_model.embeddings.position_ids")
    save(folder / "text_encoder_2", second)


def set_thresholds(checker: Any, pictures: Any) -> None:
    """Let some pictures be unsafe, some only because they need special care, and most be safe."""
    import torch

    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(pictures).pooler_output)
        special = torch.cosine_similarity(embeds[:, None], checker.special_care_embeds, dim=-1)
        cosines = torch.cosine_similarity(embeds[:, None], checker.concept_embeds, dim=-1)
    checker.special_care_embeds_weights.data = special.quantile(0.8, dim=0).half().float()
    margin = torch.where(torch.arange(17) % 4 == 0, -0.01, 0.005)
    checker.concept_embeds_weights.data = (cosines.max(0).values + margin).half().float()


def make_vision(folder: Path) -> None:
    """A vision tower with its projection, and a safety checker that finds something in some pictures."""
    import torch
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

    shared = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = CLIPVisionConfig(**shared, projection_dim=24, image_size=28, patch_size=7, hidden_act="gelu")
    tower = scatter(CLIPVisionModelWithProjection(config), 3)
    text = {"hidden_size": 32, "num_attention_heads": 4}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(projection_dim=24, vision_config=config.to_dict(), text_config=text)
    )
    scatter(checker, 4)
    contrast = np.linspace(0.2, 3, 24)[:, None, None, None]
    pictures = (np.random.default_rng(0).standard_normal((24, 28, 28, 3)) * contrast).astype(np.float16)
    tensors = torch.from_numpy(pictures).float().permute(0, 3, 1, 2)
    set_thresholds(checker, tensors)
    with torch.no_grad():
        output = tower(tensors[:3], output_hidden_states=True)
        _, unsafe = checker(tensors, [np.zeros((1, 1, 3))] * 24)
    arrays = {"image_embeds": output.image_embeds, "last_hidden_state": output.last_hidden_state}
    arrays["penultimate"] = output.hidden_states[-2]
    arrays = {key: value.numpy() for key, value in arrays.items()}
    np.savez_compressed(folder / "vision.npz", unsafe=unsafe, pictures=pictures, **arrays)
    save(folder / "image_encoder", tower)
    save(folder / "safety_checker", checker, "vision_model.", "vision_model.")


def make(folder: Path) -> None:
    """Write the tokenizers with their ids, and the checkpoints with their inputs and outputs."""
    from transformers import CLIPTokenizer

    expected: dict[str, Any] = {"texts": TEXTS}
    for name, pad in {"tokenizer": END, "tokenizer_2": "!"}.items():
        write_tokenizer(folder / name, pad)
        tokenizer = CLIPTokenizer.from_pretrained(folder / name)
        expected[name] = [tokenizer(text).input_ids for text in TEXTS]
        padded = tokenizer(TEXTS, padding="max_length", truncation=True)
        expected[f"{name}.padded"] = padded.input_ids
    (folder / "ids.json").write_text(json.dumps(expected))
    chosen = [4, 11]
    make_text(
        folder,
        len(tokenizer),
        np.array(expected["tokenizer.padded"], np.int32)[chosen],
        np.array(padded.attention_mask, np.int32)[chosen],
    )
    make_vision(folder)
