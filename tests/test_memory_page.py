"""The numbers of docs/memory.md are those of the configs."""

import re
from pathlib import Path

import pytest

import fdiff
from convert import families
from docs.making import memory

LINES = (Path(memory.__file__).parents[1] / "memory.md").read_text().splitlines()
ROWS = {row[0].strip(): row[1:] for row in (line.strip("|").split("|") for line in LINES) if len(row) == 4}


def said(name):
    """What the page says of a checkpoint: {component: millions of parameters}."""
    return {part: float(number.replace(",", "")) for part, number in re.findall(r"(\w+) ([\d,.]+\d)", ROWS[name][0])}


def test_stable_diffusion_has_what_the_page_says():
    asked = said("runwayml/stable-diffusion-v1-5")
    models = {part: getattr(fdiff, kind).from_config(config) for part, (kind, config) in families.SD1.models.items()}
    assert {part: round(models[part].count_parameters() / 1e6, 1) for part in asked} == asked


def test_bytes_follow_from_parameters():
    for name in memory.CHECKPOINTS:
        total = sum(said(name).values()) / 1e3
        for cell, width in zip(ROWS[name][1:], (4, 2), strict=True):
            assert float(cell.split()[0]) == pytest.approx(width * total, abs=0.011), name


@pytest.mark.parametrize("name", ["google/ddpm-cifar10-32", "google/ddpm-cat-256"])
def test_real_configs_have_what_the_page_says(name, shared_data):
    counts = {part: model.count_parameters() / 1e6 for part, model in memory.models(shared_data / "hub_configs" / name)}
    assert counts == pytest.approx(said(name), abs=0.051)
