"""Options: stated once, each held to its kind and range; those of other packages' schedulers are known too."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import fdiff.schedulers
from fdiff.schedulers import DDIMScheduler, Scheduler, fields
from tests.schedulers.runs import hub_classes


def below(cls):
    return {cls} | {deeper for sub in cls.__subclasses__() for deeper in below(sub)}


def test_bases_are_no_schedulers_of_the_hub():
    own = {cls for cls in below(Scheduler) if cls.__module__.startswith("fdiff.")}
    leaves = {cls for cls in own if not any(sub in own for sub in cls.__subclasses__())}
    assert leaves == set(hub_classes())
    for base in own - leaves:
        with pytest.raises(ValueError, match="fdiff has no scheduler"):
            fdiff.schedulers.find_scheduler(base.__name__)


def test_options_of_other_packages_are_known_however_deep():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Deeper(DDIMScheduler):
        warmth: fields.Positive = 1.0

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Deepest(Deeper):
        cold: bool = False

    kept = fdiff.schedulers.EulerDiscreteScheduler.from_config(Deepest(warmth=2.0, cold=True))
    assert dict(kept.others)["warmth"] == 2.0 and dict(kept.others)["cold"] is True
    assert Deepest.from_config(kept) == Deepest(warmth=2.0, cold=True)
    with pytest.raises(ValueError, match="warmth is 0; it must be above 0"):
        Deepest(warmth=0)


def test_options_are_saved_by_name():
    names = list(fdiff.schedulers.UniPCMultistepScheduler.from_config({"s_churn": 2.0}).to_config())
    assert names[0] == "_class_name" and names[1:] == sorted(names[1:]) and "s_churn" in names


WRONG = [
    ("beta_start", float("nan"), r"beta_start is nan; it must be 0 or more and below 1"),
    ("beta_end", 2, "beta_end is 2; it must be"),
    ("beta_end", "0.02", "beta_end is '0.02'; it must be a number"),
    ("beta_schedule", ["linear"], r"beta_schedule is \('linear',\); it must be a word"),
    ("num_train_timesteps", 10**9, "is 1000000000; it must be a whole number of 1 or more and 100000 at most"),
    ("num_train_timesteps", 10**4000, "num_train_timesteps is a number of 13288 bits"),
    ("num_train_timesteps", True, "it must be a whole number"),
    ("trained_betas", 0.1, r"trained_betas is 0\.1; it must be a list of numbers"),
    ("trained_betas", [0.1, "x"], r"trained_betas\[1\] is 'x'; it must be a number"),
    ("trained_betas", [0.1, float("inf")], r"trained_betas\[1\] is inf; it must be"),
    ("clip_sample", 1, "clip_sample is 1; it must be true or false"),
    ("clip_sample_range", float("inf"), "clip_sample_range is inf; it must be above 0"),
    ("prediction_type", "noise", "prediction_type is 'noise'; it can be epsilon"),
    ("steps_offset", -1, "steps_offset is -1; it must be 0 or more"),
    ("solver_p", {}, r"solver_p is {}; it must be a number, a word"),
    ("sample_max_value", 0.5, "sample_max_value is 0.5; it must be 1 or more"),
]


@pytest.mark.parametrize(("option", "value", "message"), WRONG)
def test_an_option_of_another_kind_or_out_of_range_is_one_sentence(option, value, message):
    with pytest.raises(ValueError, match=message) as error:
        DDIMScheduler.from_config({option: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_an_option_that_another_scheduler_left_is_held_to_its_kind_where_it_is_read():
    scheduler = DDIMScheduler.from_config({"sigma_min": "low"})
    euler = fdiff.schedulers.KDPM2DiscreteScheduler.from_config(scheduler, use_karras_sigmas=True)
    with pytest.raises(ValueError, match="sigma_min is 'low'; it must be a number"):
        euler.plan(5)


def test_the_ends_of_sigma_are_in_order():
    with pytest.raises(ValueError, match="sigma_min is 3 and sigma_max is 2; the first must be below"):
        fdiff.schedulers.EDMEulerScheduler(sigma_min=3.0, sigma_max=2.0)


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), np.array(3), jnp.asarray(3)])
def test_a_whole_number_may_be_of_any_kind(value):
    found = fdiff.schedulers.UniPCMultistepScheduler(solver_order=value).solver_order
    assert found == 3 and type(found) is int


@pytest.mark.parametrize(("name", "cls"), [
    ("Euler", "EulerDiscrete"), ("euler", "EulerDiscrete"), ("EulerDiscreteScheduler", "EulerDiscrete"),
    ("UniPC", "UniPCMultistep"), ("heun", "HeunDiscrete"), ("DDIM", "DDIM"),
    ("EulerAncestral", "EulerAncestralDiscrete"),
    ("DPMSolverMultistep", "DPMSolverMultistep"), ("EDMEuler", "EDMEuler"), ("deis", "DEISMultistep"),
])
def test_a_scheduler_has_short_names(name, cls):
    assert fdiff.schedulers.named_scheduler(name) is getattr(fdiff.schedulers, f"{cls}Scheduler")


@pytest.mark.parametrize(("name", "message"), [
    ("DPMSolver", "is several of fdiff's; choose DPMSolverMultistepScheduler or DPMSolverSinglestepScheduler"),
    ("Eular", "'Eular' is none of fdiff's; choose .*EulerDiscreteScheduler"), ("", "is none"),
])
def test_a_name_of_none_or_several_is_one_sentence(name, message):
    with pytest.raises(ValueError, match=message):
        fdiff.schedulers.named_scheduler(name)
