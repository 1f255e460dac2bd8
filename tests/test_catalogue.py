"""What is there, by name."""

import re
import subprocess
import sys

import fdiff
from fdiff import registry
from tests.schedulers.runs import hub_classes


def test_schedulers_with_their_facts():
    found = {one.name: one for one in fdiff.list_schedulers()}
    assert {cls.__name__ for cls in hub_classes()} <= set(found)
    assert found["DPMSolverMultistepScheduler"][1:] == (2, False, 1, "betas")
    assert found["KDPM2AncestralDiscreteScheduler"][1:] == (2, True, 2, "betas")
    assert found["LCMScheduler"][1:] == (None, True, 1, "betas")
    assert found["FlowMatchHeunDiscreteScheduler"][1:] == (2, False, 2, "flow")
    assert found["EDMEulerScheduler"][1:] == (1, False, 1, "EDM")
    assert found["SCMScheduler"].kind == "own"


def test_models_and_pipelines():
    assert {"UNet2DModel", "AutoencoderKL", "CLIPTextModel"} <= set(fdiff.list_models())
    takes = dict(fdiff.list_pipelines())
    assert takes["StableDiffusionInpaintPipeline"] == ("prompt", "image", "mask_image")
    assert "DiffusionPipeline" not in takes


def test_what_another_package_registers_is_there(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {name: list(entries) for name, entries in registry._ENTRIES.items()})

    class Mine(fdiff.DDIMScheduler):
        """Order 3."""

    fdiff.register(Mine)
    fdiff.register(Mine, "Second")
    mine = [one for one in fdiff.list_schedulers() if one.name in ("Mine", "Second")]
    assert mine == [("Mine", 3, False, 1, "betas")]


def test_a_notebook_without_widgets_gets_a_bar_and_no_warning():
    code = """
import sys, types, warnings
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell, display=None)
sys.modules["ipywidgets"] = None
warnings.simplefilter("error")
from fdiff.bars import bar
print(type(bar(range(3))).__name__, len(list(bar(range(3)))))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert re.search(r"tqdm\w* 3", run.stdout) and "IProgress" not in run.stderr
