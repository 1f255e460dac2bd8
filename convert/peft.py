"""What peft and diffusers say of an adapter beside its tensors, in JSON: the method, the alphas of its layers."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METADATA = "lora_adapter_metadata"  # where diffusers keeps it in a safetensors file
CURE = "correct it or download it again"

METHODS = ("LORA", "LOHA", "LOKR")

# Ways to begin a LoRA that leave the base as it is: up @ down is zero at first, or is trained away from.
PLAIN_STARTS = ("true", "false", "gaussian", "eva", "orthogonal", "mica")
CONVERT = "save it with peft's path_initial_model_for_weight_conversion, which makes it a plain LoRA"
RELATIVE = {  # what takes a part of the base away and begins with it: its name, and the cure
    "pissa": ("PiSSA", CONVERT),
    "olora": ("OLoRA", CONVERT),
    "corda": ("CorDA", CONVERT),
    "lora_ga": ("LoRA-GA", CONVERT),
    "loftq": ("LoftQ", "merge it in peft into the base that LoftQ made, and load that model"),
}
VARIANTS = {
    "alora_invocation_tokens": "aLoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "layer_replication": "LoRA with layers replicated",
    "monteclora_config": "MonteCLoRA",
    "trainable_token_indices": "LoRA with tokens trained beside it",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QALoRA",
}


def read(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The config in adapter_config.json beside adapter_model.*, or else in the file's metadata, {} for none.

    Raises ValueError for what is no JSON object, for an alpha or a rank that is no number, and for methods whose
    tensors alone do not say what is added to the base, or say it otherwise.
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
        if option in ("lora_alpha", "alpha", "r") and value is not None:
            _check_number(value, f"{key} in {place}", 1 if option == "r" else None)
        if option in ("alpha_pattern", "rank_pattern") and value is not None:
            _check_pattern(value, f"{key} in {place}", 0 if option == "rank_pattern" else None)
        _check_method(option, value, f"{key} in {place}")
    return config


def _check_method(option: str, value: Any, what: str) -> None:
    if option == "peft_type" and value not in (None, *METHODS):
        raise ValueError(f"{what} is {value!r}, a method that is not supported; merge it in peft, load that model.")
    if option in VARIANTS and value:
        raise ValueError(f"{what} is set: {VARIANTS[option]} is not supported; merge it in peft, load that model.")
    start = str(value).lower()
    if option == "init_lora_weights" and value is not None and start not in PLAIN_STARTS:
        name, cure = next((found for known, found in RELATIVE.items() if start.startswith(known)), (start, CONVERT))
        raise ValueError(f"{what} is {value!r}: a {name} adapter is relative to a base that it does not hold; {cure}.")


def _check_pattern(patterns: Any, what: str, least: float | None) -> None:
    if not isinstance(patterns, dict):
        raise ValueError(f"{what} is {patterns!r}, not a mapping from layers to numbers; {CURE}.")
    for pattern, value in patterns.items():
        try:
            _ending(pattern)
        except re.error as error:
            raise ValueError(f"{what} has {pattern!r}, which is no regular expression ({error}); {CURE}.") from error
        _check_number(value, f"{pattern!r} of {what}", least)


def _ending(pattern: str) -> re.Pattern[str]:
    """What finds the layers that peft means: those whose names end so."""
    return re.compile(rf"(.*\.)?({pattern})$")


def _check_number(value: Any, what: str, least: float | None) -> None:
    if not isinstance(value, int | float) or not abs(value) < 1e38:  # what float32 holds
        raise ValueError(f"{what} is {value!r}, not a number; {CURE}.")
    if least is not None and value < least:
        raise ValueError(f"{what} is {value!r}, and must be {least} or more; {CURE}.")


def alpha(config: Mapping[str, Any], component: str, layer: str, rank: int) -> float | None:
    """The alpha of a layer, None where the config does not say it."""
    found = _option(config, component, layer, "alpha_pattern", "lora_alpha", "alpha")
    return found * math.sqrt(rank) if found is not None and _said(config, component, "use_rslora") else found


def rank(config: Mapping[str, Any], component: str, layer: str) -> int | None:
    """The rank of a layer, None where the config does not say it."""
    found = _option(config, component, layer, "rank_pattern", "r")
    return None if found is None else int(found)


def _option(config: Mapping[str, Any], component: str, layer: str, pattern: str, *options: str) -> Any:
    """What a pattern says of a layer, or else the first of the options that is set."""
    patterns = _said(config, component, pattern) or {}
    given = [value for key, value in patterns.items() if _ending(key).match(layer)]
    given += [_said(config, component, option) for option in options]
    return next((value for value in given if value is not None), None)


def _said(config: Mapping[str, Any], component: str, option: str) -> Any:
    return config.get(f"{component}.{option}", config.get(option))


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
