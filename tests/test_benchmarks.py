"""The benchmarks: they run at tiny sizes, and the pages show what was found."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.benchmarks import report
from tests.benchmarks.case import Setting
from tests.benchmarks.networks import NETWORKS, fdiff_side, torch_side


def test_a_case_is_measured_and_told(tmp_path):
    line = [sys.executable, "-m", "tests.benchmarks", "digits", "--small", "--sides", "fdiff", "openvino"]
    line += ["--rounds", "2", "--out", str(tmp_path)]
    said = subprocess.run(line, cwd=report.ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads((tmp_path / "results.json").read_text())["digits"]
    fdiff, openvino = found["sides"]["fdiff"], found["sides"]["openvino"]
    assert len(fdiff["turns"]) == 2 and fdiff["peak"] > 0 and said.startswith("digits: fdiff ")
    assert openvino.get("turns") or openvino["failed"], "a side that cannot run says why"
    assert "U-Net of the digits that ship" in (tmp_path / "table.md").read_text()


def test_the_pages_show_what_was_found():
    results = json.loads(report.RESULTS.read_text())
    text = report.PAGE.read_text() + (report.ROOT / "README.md").read_text()
    for part in report.parts(results).values():
        assert part in text


@pytest.mark.parity
@pytest.mark.parametrize("name", NETWORKS)
def test_sides_agree(name, tmp_path):
    setting = Setting(True, tmp_path)
    expected = torch_side(NETWORKS[name], False, setting).begin()()
    actual = fdiff_side(NETWORKS[name], setting).begin()()
    assert actual.shape == expected.shape and np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()
