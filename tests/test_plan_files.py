"""Plans survive a trip to the disk, and other files are refused."""

import dataclasses

import numpy as np
import pytest

import fdiff


def test_round_trip(tmp_path):
    plan = fdiff.UniPCMultistepScheduler().plan(7)
    fdiff.save_plan(tmp_path / "plan.safetensors", plan)
    found = fdiff.load_plan(tmp_path / "plan.safetensors")
    for field in dataclasses.fields(plan):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(plan, field.name))


def test_it_is_a_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    plan = fdiff.DDIMScheduler().plan(3)
    fdiff.save_plan(tmp_path / "plan.safetensors", plan)
    np.testing.assert_array_equal(load_file(tmp_path / "plan.safetensors")["carry"], plan.carry)


def test_other_files_are_refused_but_for_those_of_old_releases(tmp_path):
    from safetensors.numpy import save_file

    plan = fdiff.DDIMScheduler().plan(3)
    leaves = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    save_file({**leaves, "t": np.zeros(2, np.float32)}, tmp_path / "short.safetensors")
    save_file({name: leaf for name, leaf in leaves.items() if name != "carry"}, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match="shape"):
        fdiff.load_plan(tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match="lacks carry"):
        fdiff.load_plan(tmp_path / "less.safetensors")
    save_file({name: leaf for name, leaf in leaves.items() if name != "draws"}, tmp_path / "old.safetensors")
    np.testing.assert_array_equal(fdiff.load_plan(tmp_path / "old.safetensors").draws, plan.draws)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        fdiff.load_plan(tmp_path / "nowhere.safetensors")
