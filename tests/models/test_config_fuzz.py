"""Damaged config.json files: each is a model, or one sentence that names the file and the key."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fdiff

FILE = "somewhere/config.json"
STRANGE = (
    None, True, False, 0, -1, 1, 2, 3, 5, 7, 0.5, -0.5, 2.0, math.nan, math.inf, 1e308, 10**6, 10**9, 10**400, 100_000,
    "", "1", "silu", "GELU", "no such thing", "x" * 1000, [], [0], [1, 2, 3], [[1], [2]], ["1"], [None], [1] * 1000,
    {}, {"a": 1}, [[[[]]]],
)  # fmt: skip


def configs() -> list[dict[str, Any]]:
    """The configs of the tiny checkpoints."""
    files = sorted((Path(__file__).parents[1] / "reference").rglob("config.json"))
    found = [json.loads(file.read_text()) for file in files]
    return [config for config in found if class_of(config) is not None]


def class_of(config: dict[str, Any]) -> Any:
    names = [config.get("_class_name"), *(config.get("architectures") or ())]
    return next((getattr(fdiff, name) for name in names if name and hasattr(fdiff, name)), None)


def damaged(config: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A config with one or two fields changed."""
    fields = sorted({key for key in class_of(config).__dataclass_fields__ if key not in ("parent", "name")})
    changed = dict(config)
    for key in rng.sample(fields, rng.choice((1, 1, 2))):
        value = changed.get(key, getattr(class_of(config), key, None))
        changed[key] = rng.choice((rng.choice(STRANGE), bent(value, rng)))
    return changed


def bent(value: Any, rng: random.Random) -> Any:
    """Something like the value."""
    if isinstance(value, list | tuple) and value:
        value = list(value)
        i = rng.randrange(len(value))
        other = rng.choice((value[i], rng.choice(STRANGE), bent(value[i], rng)))
        return rng.choice((value[:i], value[i:], [*value, other], [*value[:i], other, *value[i + 1 :]], value[::-1]))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return rng.choice((-value, 2 * value, value + 1, value - 1, float(value), str(value), [value], value / 3))
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(value))
        return {**value, key: rng.choice((rng.choice(STRANGE), bent(value[key], rng)))}
    return rng.choice(STRANGE)


def forged(count: int, seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Damaged configs, and the model of each that is still one."""
    rng, originals = random.Random(seed), configs()
    for _ in range(count):
        config = damaged(rng.choice(originals), rng)
        cls = class_of(config)
        try:
            yield config, cls.from_config(config, file=FILE)
        except ValueError as error:
            sentence = str(error)
            assert sentence.startswith(FILE) and "\n" not in sentence and len(sentence) < 500, (config, sentence)
            nested = [key for value in config.values() if isinstance(value, dict) for key in value]
            keys = [*cls.__dataclass_fields__, *nested]
            assert any(key in sentence for key in keys), (config, sentence)
            assert sentence.endswith("."), sentence
            yield config, None


def try_all(count: int, traced: int, seed: int) -> int:
    """Try so many; of those that are models, so many are traced, as loading does it."""
    models = 0
    for config, model in forged(count, seed):
        if model is not None:
            models += 1
            assert type(model).from_config(json.loads(json.dumps(model.config()))) == model, config
            assert hash(model) is not None
            if models <= traced:
                assert model.shapes(), config
    return models


def test_a_damaged_config_is_a_model_or_a_sentence():
    assert 100 < try_all(1000, traced=12, seed=0) < 700


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_damaged_configs(seed):
    try_all(1000, traced=100, seed=seed)
