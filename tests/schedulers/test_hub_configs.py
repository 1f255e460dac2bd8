"""Scheduler configs as they lie on the Hub, new and old, load by the class that they name."""

import json

import numpy as np
import pytest

from fdiff import schedulers
from fdiff.schedulers import Scheduler
from tests.schedulers.runs import diffusers_class


def test_every_config_loads_and_plans(shared_data):
    files = sorted((shared_data / "hub_configs").rglob("scheduler_config.json"))
    assert files
    for file in files:
        scheduler = Scheduler.from_config(file)
        config = json.loads(file.read_text())
        assert type(scheduler).__name__ == config["_class_name"]
        kept = json.loads(json.dumps(scheduler.to_config()))  # as it is written: lists for tuples
        same = set(config) - {"_class_name", "_diffusers_version"}
        assert {key: kept[key] for key in same} == {key: config[key] for key in same}, file
        options = {"mu": 0.8} if config.get("use_dynamic_shifting") else {}
        plan = scheduler.plan(5, **options)  # MiniMax-H3 counts the level at the end among them
        assert len(plan) >= 4 and np.isfinite(plan.carry).all(), file


@pytest.mark.parametrize(("name", "cls"), [
    ("FlaxPNDMScheduler", "PNDMScheduler"),
    ("FlaxDDIMScheduler", "DDIMScheduler"),
    ("FlaxDPMSolverMultistepScheduler", "DPMSolverMultistepScheduler"),
    ("DDIMParallelScheduler", "DDIMScheduler"),
    ("DDPMParallelScheduler", "DDPMScheduler"),
])
def test_other_names(name, cls):
    assert type(Scheduler.from_config({"_class_name": name, "_diffusers_version": "0.3.0"})).__name__ == cls


def test_keys_of_old_versions():
    old = {"_class_name": "DDPMScheduler", "_diffusers_version": "0.0.4", "timestep_values": None, "timesteps": 1000,
           "tensor_format": "pt", "beta_schedule": "linear", "clip_sample": True, "predict_epsilon": False}
    assert Scheduler.from_config(old).prediction_type == "sample"
    old = {"_class_name": "DDIMInverseScheduler", "set_alpha_to_zero": False}
    assert Scheduler.from_config(old).set_alpha_to_one is False


def test_another_class_keeps_the_options_that_it_does_not_have():
    first = schedulers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False)
    second = schedulers.DPMSolverMultistepScheduler.from_config(first)
    third = schedulers.DDIMScheduler.from_config(second)
    assert third == first and third.clip_sample is False
    edm = schedulers.EDMEulerScheduler(sigma_min=0.01, sigma_max=20.0)
    karras = schedulers.DPMSolverMultistepScheduler.from_config(edm, use_karras_sigmas=True).plan(5)
    np.testing.assert_allclose(karras.sigma[0] / karras.alpha[0], 20.0, rtol=1e-5)


def test_another_class_has_its_own_defaults():
    config = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "beta_end": 0.012}
    swapped = schedulers.DPMSolverMultistepScheduler.from_config(Scheduler.from_config(config))
    assert (swapped.timestep_spacing, swapped.beta_end) == ("linspace", 0.012), "leading is PNDM's default alone"
    spelt = Scheduler.from_config({**config, "timestep_spacing": "leading"})
    assert schedulers.DPMSolverMultistepScheduler.from_config(spelt).timestep_spacing == "leading"


@pytest.mark.parity
def test_swapping_does_what_it_does_in_diffusers(shared_data):
    pytest.importorskip("diffusers")
    for file in sorted((shared_data / "hub_configs").rglob("scheduler_config.json")):
        config = json.loads(file.read_text())
        for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DDIMScheduler"):
            theirs = diffusers_class(config["_class_name"]).from_config(config)
            theirs = diffusers_class(name).from_config(theirs.config).config
            ours = getattr(schedulers, name).from_config(Scheduler.from_config(config)).to_config()
            for key in ("timestep_spacing", "steps_offset", "prediction_type", "beta_end", "set_alpha_to_one"):
                if key in theirs and key in ours:
                    assert ours[key] == theirs[key], (file, name, key)


@pytest.mark.parametrize(("config", "message"), [
    ({"_class_name": "VQDiffusionScheduler"}, "fdiff has no scheduler 'VQDiffusionScheduler'"),
    ({}, "fdiff has no scheduler None"),
    ({"_class_name": "DDIMScheduler", "beta_sta": 0.1}, "no scheduler has the option 'beta_sta'"),
])
def test_wrong_configs(config, message):
    with pytest.raises(ValueError, match=message):
        Scheduler.from_config(config)
