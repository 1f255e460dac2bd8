"""Every scheduler can be drawn."""

import numpy as np
import pytest

import fdiff
from tests.schedulers.runs import hub_classes

pytest.importorskip("matplotlib")


def test_all_schedulers_in_one_picture():
    from fdiff.plotting import draw_schedulers

    classes = hub_classes()
    two = {"ConsistencyDecoderScheduler", "SCMScheduler"}  # their timesteps are for two
    few = {cls.__name__: cls() for cls in classes if cls.__name__ in two}
    many = {cls.__name__: cls() for cls in classes if cls.__name__ not in few}
    for named, steps in ((few, 2), (many, 20)):
        picture = draw_schedulers(named, steps)
        assert picture.mode == "RGB" and np.asarray(picture).std() > 5


def test_what_nobody_has_takes_no_room():
    from fdiff.plotting import draw_schedulers

    euler, ancestral = {"a": fdiff.EulerDiscreteScheduler()}, {"a": fdiff.EulerAncestralDiscreteScheduler()}
    assert not fdiff.EulerDiscreteScheduler().plan(9).from_noise.any()
    without, noisy = (np.asarray(draw_schedulers(named, 9).convert("L")) for named in (euler, ancestral))
    assert without.shape[0] < noisy.shape[0]
    for picture in (without, noisy):  # no panel is empty: each quarter of each row of panels has ink inside
        assert all(part.std() > 5 for half in np.array_split(picture, 2, axis=1) for part in np.array_split(half, 3))
