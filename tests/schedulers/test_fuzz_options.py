"""Any options at all, of a scheduler and of its plan: the plan's numbers are finite, or the error is one sentence."""

import collections
import dataclasses
import inspect
import random
import warnings

import numpy as np
import pytest

from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from tests.schedulers.runs import hub_classes
from tests.schedulers.test_properties import CHOICES

CLASSES = hub_classes()
NUMBERS = (0, 1, 2, 3, 5, 40, 999, 1000, 1001, 10**6, 10**9, 10**40, -1, -7, 0.0, 0.5, 1.0, 0.3, 1.5, 7.0, 80.0, -0.5,
           1e-3, 1e-30, 1e-308, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), np.float32(0.5),
           np.float64("nan"), np.int64(3), np.array(2), np.array([2.0]))
OTHERS = (None, True, False, "", "0.5", "linear", "karras", "\n", [], {}, [None], ["1"], [[1.0]], [True], {"a": 1},
          [float("nan")], [float("inf"), 0.0], [0.9, 0.5, 0.1], [900, 500, 100], [3, 2, 1, 0], [1.0, 1.0], [1, 2, 3],
          [0.1] * 1000, [1.0] * 1000, [0.0] * 1000, [1e-3] * 100, (1,), 1j, b"1", np.array([]), np.arange(3), range(3))
ARGUMENTS = {
    "num_inference_steps": (1, 2, 3, 4, 7, 10, 20, 21, 50),
    "strength": (1.0, 0.5, 0.9), "eta": (0.0, 0.3, 1.0), "timesteps": ([900, 500, 100], [0.9, 0.5, 0.1], [3, 2]),
    "sigmas": ([0.9, 0.5, 0.1], [80.0, 5.0, 0.0], [1.0, 0.5]), "mu": (0.0, 0.7, 2.0),
}


def value(rng, usual):
    """One that there may well be, or nearly any other."""
    if usual and rng.random() < 0.5:
        return rng.choice(usual)
    return rng.choice(NUMBERS if rng.random() < 0.6 else OTHERS)


def forged(seed):
    """A class, its options, and those of a plan."""
    rng = random.Random(seed)
    cls = rng.choice(CLASSES)
    fields = {field.name: field.default for field in dataclasses.fields(cls) if field.name not in ("others", "given")}
    config = {}
    for name in rng.sample(sorted(fields), min(rng.choice((0, 1, 1, 2, 3, 5)), len(fields))):
        usual = [True, False] if isinstance(fields[name], bool) else CHOICES.get(name, [fields[name]])
        config[name] = value(rng, usual)
    if rng.random() < 0.1:  # what another scheduler left
        config[rng.choice(("sigma_min", "sigma_max", "shift", "use_karras_sigmas", "solver_p"))] = value(rng, [0.1])
    options = {"num_inference_steps": rng.choice(ARGUMENTS["num_inference_steps"])}
    names = sorted(set(inspect.signature(cls.plan).parameters) - {"self"})
    for name in rng.sample(names, min(rng.choice((0, 0, 1, 2)), len(names))):
        options[name] = value(rng, ARGUMENTS.get(name, ()))
        if name in ("timesteps", "sigmas") and rng.random() < 0.8:
            options["num_inference_steps"] = None
    return cls, config, options


def outcome(cls, config, options):
    """The plan, or the sentence, or what is wrong with either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plan = cls.from_config(config).plan(**options)
    except ValueError as error:
        text = str(error)
        good = text and "\n" not in text and len(text) < 400 and "the solver" not in text
        return text if good else [f"no sentence: {text[:300]!r}"]
    except Exception as error:
        return [f"{type(error).__name__}: {str(error)[:200]}"]
    finite = {name: ~np.isnan(leaf) if name == "clip" else np.isfinite(leaf) for name, leaf in vars(plan).items()}
    return [f"{name} is not finite" for name, good in finite.items() if not good.all()] or plan


def answer(seeds):
    """How many plans and sentences there were, and all that is neither."""
    kinds, bad = collections.Counter(), []
    for seed in seeds:
        cls, config, options = forged(seed)
        found = outcome(cls, config, options)
        kinds[type(found)] += 1
        if isinstance(found, list):
            bad.append(f"{seed}: {cls.__name__}.from_config({config}).plan(**{options}): {found[0]}"[:500])
    return kinds[Plan], kinds[str], bad


def test_any_options_of_a_thousand():
    plans, sentences, bad = answer(range(1000))
    assert not bad, "\n".join(bad)
    assert plans > 200 and sentences > 200, "both kinds were tried"


@pytest.mark.fuzz
@pytest.mark.parametrize("part", range(10))
def test_any_options_of_ten_thousand(part):
    _plans, _sentences, bad = answer(range(1000 * part, 1000 * (part + 1)))
    assert not bad, "\n".join(bad)


ABSURD = (10**5, 10**9, 10**18)


@pytest.mark.parametrize("count", ABSURD)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_absurd_count_is_one_sentence_and_no_work(cls, count):
    with pytest.raises(ValueError, match="num_inference_steps is"):
        cls().plan(count)
    for field in dataclasses.fields(cls):
        if type(field.default) is int:
            found = outcome(cls, {field.name: count}, {"num_inference_steps": 2})
            assert not isinstance(found, list), (field.name, found)


def test_a_scheduler_is_made_of_a_config():
    named = {"_class_name": "DDIMScheduler"}
    for config in (None, 3, [], "missing.json", {"_class_name": ["DDIMScheduler"]}, {**named, 3: 4}):
        with pytest.raises((ValueError, OSError)):
            Scheduler.from_config(config)
