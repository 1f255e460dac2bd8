"""What peft and diffusers say of a LoRA beside its tensors, in JSON: the alphas of its layers."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METADATA = "lora_adapter_metadata"  # where diffusers keeps it in a safetensors file
CURE = "correct it or download it again"


def read(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The config in adapter_config.json beside adapter_model.*, or else in the file's metadata, {} for none.

    Raises ValueError for what is no JSON object, and for an alpha that is no number.
    """
    beside = file.with_name("adapter_config.json")
    place = f"{METADATA} of {file}"
    try:
        if file.name.startswith("adapter_model.") and beside.is_file():
            place = str(beside)
            config = json.loads(beside.read_text(encoding="utf-8"))
        else:
            config = json.loads(metadata.get(METADATA, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is no JSON ({error}); {CURE}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{place} is no JSON object; {CURE}.")
    for key, value in config.items():
        option = key.rpartition(".")[2]  # "unet.lora_alpha" or "lora_alpha"
        if option == "lora_alpha" and value is not None:
            _check_number(value, f"{key} in {place}")
        if option == "alpha_pattern" and value is not None:
            _check_pattern(value, f"{key} in {place}")
    return config


def _check_pattern(patterns: Any, what: str) -> None:
    if not isinstance(patterns, dict):
        raise ValueError(f"{what} is {patterns!r}, not a mapping from layers to numbers; {CURE}.")
    for pattern, value in patterns.items():
        try:
            _ending(pattern)
        except re.error as error:
            raise ValueError(f"{what} has {pattern!r}, which is no regular expression ({error}); {CURE}.") from error
        _check_number(value, f"{pattern!r} of {what}")


def _ending(pattern: str) -> re.Pattern[str]:
    """What finds the layers that peft means: those whose names end so."""
    return re.compile(rf"(.*\.)?({pattern})$")


def _check_number(value: Any, what: str) -> None:
    if not isinstance(value, int | float) or not abs(value) < 1e38:  # what float32 holds
        raise ValueError(f"{what} is {value!r}, not a number; {CURE}.")


def alpha(config: Mapping[str, Any], component: str, layer: str, rank: int) -> float | None:
    """The alpha of a layer, None where the config does not say it."""

    def option(key: str) -> Any:
        return config.get(f"{component}.{key}", config.get(key))

    patterns = option("alpha_pattern") or {}
    given = next((value for key, value in patterns.items() if _ending(key).match(layer)), None)
    found = option("lora_alpha") if given is None else given
    return found * math.sqrt(rank) if found is not None and option("use_rslora") else found


def describe(layers: Mapping[str, Any]) -> dict[str, Any]:
    """The config of layers and their factors."""
    # transformers 5 has no text_model: without it, the ends of the names fit both.
    short = {layer.removeprefix("text_model."): factors for layer, factors in layers.items()}
    rank = Counter(factors.rank for factors in short.values()).most_common(1)[0][0]
    usual = Counter(factors.alpha for factors in short.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": usual,
        "rank_pattern": {layer: factors.rank for layer, factors in short.items() if factors.rank != rank},
        "alpha_pattern": {layer: factors.alpha for layer, factors in short.items() if factors.alpha != usual},
        "target_modules": sorted(short),
        "use_dora": any(factors.dora_scale is not None for factors in short.values()),
    }
