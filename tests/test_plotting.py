"""Every scheduler can be drawn."""

import numpy as np
import pytest

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
