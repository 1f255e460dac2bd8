"""Every scheduler can be drawn."""

import numpy as np
import pytest

from fdiff.schedulers import Scheduler

pytest.importorskip("matplotlib")


def test_all_schedulers_in_one_picture():
    from fdiff.plotting import draw_schedulers

    classes = sorted(Scheduler.__subclasses__(), key=lambda cls: cls.__name__)
    picture = draw_schedulers({cls.__name__: cls() for cls in classes}, 2)
    assert picture.mode == "RGB" and np.asarray(picture).std() > 5
