"""Every case of the list against what diffusers computes, stored or live."""

import numpy as np
import pytest

from tests.schedulers import runs
from tests.schedulers.cases import all_cases

cases = pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)


@cases
def test_stored(case, reference):
    with np.load(reference / "schedulers" / f"{case.scheduler}.npz") as stored:
        wanted = {key: stored[f"{case.id}/{key}"] for key in ("timesteps", "start", "x", "draws")}
    runs.assert_equal(case, runs.run_fdiff(case), wanted)


@pytest.mark.parity
@cases
def test_live(case):
    pytest.importorskip("diffusers")
    # torch's float32 differs with the processor: DEIS with thresholding is within 1e-5 on some, 1.04e-5 off on others
    runs.assert_equal(case, runs.run_fdiff(case), runs.run_diffusers(case), 2e-5)
