"""What notebooks show of pipelines, plans and pictures: well-formed, escaped, bounded, and never an error."""

import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff.display import curves, table
from fdiff.pipelines.pipeline import ImageOutput
from tests.schedulers.runs import hub_classes


def parsed(text):
    """The HTML as a tree, which it is only if every tag is closed and every sign escaped."""
    assert len(text) < 1_000_000
    return ElementTree.fromstring(text)


def words(text):
    return " ".join(parsed(text).itertext())


def test_a_plan_is_a_small_plot():
    ddim, sa = fdiff.DDIMScheduler().plan(10), fdiff.SASolverScheduler().plan(1000)
    assert "Plan: 10 rows, 10 network calls, 1 slot, deterministic" in words(ddim._repr_html_())
    assert "stochastic" in words(sa._repr_html_()) and len(sa._repr_html_()) < 20_000
    lines = [node.attrib["points"] for node in parsed(ddim._repr_html_()).iter() if node.tag.endswith("polyline")]
    x, y = np.array([pair.split(",") for pair in lines[0].split()], float).T
    assert len(lines) == 2 and np.all(np.diff(x) > 0) and np.all(np.diff(y) > 0), "timesteps fall, so SVG's y grows"


@pytest.mark.parametrize("cls", hub_classes(), ids=lambda cls: cls.__name__)
def test_a_plan_of_every_scheduler(cls):
    plan = next((cls().plan(n) for n in (20, 2) if not _fails(cls, n)), None)
    assert plan is None or "Plan" in words(plan._repr_html_())


def _fails(cls, n):
    try:
        cls().plan(n)
    except ValueError:
        return True
    return False


def test_odd_plans_are_no_error():
    plan = fdiff.DDIMScheduler().plan(3)
    told = []
    jax.jit(lambda plan: told.append(plan._repr_html_()) or plan.t)(plan)
    assert told == [None], "a traced plan has no numbers; the notebook shows its plain repr"
    several = jax.tree.map(lambda *leaves: np.stack(leaves), plan, plan)
    assert "2 of 3 rows" in words(several._repr_html_())
    for odd in (plan[:0], plan[:1], plan[0], plan.map(lambda leaf: leaf * np.nan)):
        shown = odd._repr_html_()
        assert shown is None or parsed(shown) is not None
    assert parsed(curves("<&>", [("a", [1, np.inf, -1], True), ("b", [0, 0], False)])) is not None


def test_a_pipeline_is_a_table_of_components():
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    shown = words(pipe._repr_html_())
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert "ClassConditionalPipeline" in shown and f"{count:,} parameters" in shown
    assert type(pipe.scheduler).__name__ in shown and "num_train_timesteps" in shown
    with_signs = dataclasses.replace(pipe, scheduler="<script>")
    assert "<script>" not in with_signs._repr_html_() and parsed(with_signs._repr_html_()) is not None


def test_tables_are_bounded_and_escaped():
    text = table("a & b", [("<b>", "x" * 10_000)] * 1000)
    assert "<b>x" not in text.replace("<b>a", "") and "and 960 more" in text and len(text) < 20_000


def test_pictures_are_a_sheet_in_the_page():
    colours = [Image.new("RGB", (8, 8), (25 * i, 0, 0)) for i in range(9)]
    shown = ImageOutput(colours)._repr_html_()
    data = base64.b64decode(re.search(r"base64,([^\"]+)\"", shown)[1])
    sheet = Image.open(io.BytesIO(data))
    assert sheet.format == "PNG" and sheet.getpixel((3, 3)) == (0, 0, 0) and sheet.getpixel((sheet.width - 1, 3))[0] > 0
    assert "8 x 8 pixels" in words(shown)
    many = ImageOutput([Image.effect_noise((512, 512), 90)] * 100)._repr_html_()
    assert "of 100, these are 36" in words(many)


def test_outputs_that_are_no_pictures():
    assert "float32 array, 2 x 8 x 8 x 3" in words(ImageOutput(np.zeros((2, 8, 8, 3), np.float32))._repr_html_())
    assert "none" in words(ImageOutput([])._repr_html_())
    assert ImageOutput(["not a picture"])._repr_html_() is None
    told = []
    jax.jit(lambda x: told.append(ImageOutput(x)._repr_html_()) or x)(np.zeros((1, 2, 2, 3), np.float32))
    assert "1 x 2 x 2 x 3" in told[0]
