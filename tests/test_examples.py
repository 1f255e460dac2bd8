"""Each example runs as a user runs it, with small numbers."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from fdiff import audio

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(list(arguments))


def test_seeds_under_vmap(tmp_path):
    out = tmp_path / "sheet.png"
    run("seeds_under_vmap", "--out", str(out), "--seeds", "2", "--steps", "3")
    assert out.stat().st_size > 500


def test_many_schedulers_one_program(tmp_path):
    out = tmp_path / "schedulers.png"
    assert run("many_schedulers_one_program", "--out", str(out), "--steps", "4", "6") == 1
    assert out.stat().st_size > 500


def test_custom_solver():
    errors = run("custom_solver")
    assert errors[20]["yours"] / errors[80]["yours"] > 10  # order 2: sixteen times smaller
    assert errors[80]["yours"] < 0.2 * errors[80]["ddim"]


def test_gradients_through_the_sampler(tmp_path):
    out = tmp_path / "found.png"
    values = run("gradients_through_the_sampler", "--out", str(out), "--updates", "6")
    assert values[-1] < 0.8 * values[0] and out.stat().st_size > 500


def test_train_digits(tmp_path, capsys):
    pytest.importorskip("sklearn")
    run("train_digits", "--out", str(tmp_path / "digits"), "--steps", "2", "--batch-size", "4", "--count", "10")
    assert (tmp_path / "digits" / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert "held-out" in capsys.readouterr().out


@pytest.mark.sweep
def test_train_on_a_subject(tmp_path):
    losses = run("train_on_a_subject", "--out", str(tmp_path), "--methods", "lora", "dreambooth", "--steps", "20",
                 "--draws", "8", "--count", "4", "--batch-size", "4")  # fmt: skip
    assert all(losses[method]["learned"] < losses[method]["base"] for method in ("lora", "dreambooth"))


@pytest.mark.sweep
def test_train_spoken_digits(tmp_path):
    (tmp_path / "recordings").mkdir()
    for digit in range(10):
        for take in range(5):  # a tone for each digit
            tone = np.sin(np.arange(4000) * (0.1 + 0.05 * digit + 0.002 * take)).astype(np.float32) / 2
            audio.write(tmp_path / "recordings" / f"{digit}_me_{take}.wav", audio.Sound(tone, 8000))
    result = run("train_spoken_digits", "--data", str(tmp_path / "recordings"), "--output", str(tmp_path / "out"),
                 "--steps", "2", "--samples", "10")  # fmt: skip
    assert result["held_out_accuracy"] > 0.9 and 0 <= result["heard_as_asked"] <= 1
    assert (tmp_path / "out" / "model" / "mel" / "mel_config.json").exists()


def test_compare_schedulers(tmp_path):
    out = tmp_path / "compared.png"
    run("compare_schedulers", "--out", str(out), "--calls", "4")
    assert out.stat().st_size > 500


def test_learn_a_sampler(tmp_path):
    small = ("--run-steps", "12", "--runs", "16", "--updates", "30", "--batch-size", "8", "--exact-steps", "30")
    place = ("--out", str(tmp_path / "learned"))
    errors = run("learn_a_sampler", *place, "--timesteps", "999,700,300", *small, "--fresh", "8")
    assert errors["learned"] < 0.95 * min(errors["DPM-Solver++(2M), 3 calls"], errors["where it began"])


def test_invert_and_interpolate(tmp_path):
    out = tmp_path / "between.png"
    assert run("invert_and_interpolate", "--out", str(out), "--steps", "50", "--between", "3") < 0.05
    assert out.stat().st_size > 500


def test_likelihood():
    pytest.importorskip("sklearn")
    bits = run("likelihood", "--levels", "20", "--count", "4", "--probes", "1")
    assert bits["real digits"] < bits["real digits, told the wrong class"] < bits["their pixels shuffled"]


def test_adaptive_ode(tmp_path):
    pytest.importorskip("diffrax")
    out = tmp_path / "adaptive.png"
    assert run("adaptive_ode", "--out", str(out), "--fixed-steps", "60", "--tolerance", "0.003") < 0.1
    assert out.stat().st_size > 500


def test_scheduler_table():
    names = ("DDIM", "DDPM", "UniPCMultistep", "FlowMatchHeunDiscrete", "SCM", "CMStochasticIterative")
    table = run("scheduler_table", "--steps", "4", "12", "41", "--each", "1", "--fine", "60", "--names", *names)
    for name in ("DDIM", "UniPCMultistep", "FlowMatchHeunDiscrete"):
        assert table[name][1] < 0.6 * table[name][0]
    assert np.isfinite(table["DDPM"] + table["SCM"]).all()
    assert table["CMStochasticIterative"][2] is None  # it has 40 levels
    karras = run("scheduler_table", "--steps", "12", "--each", "1", "--fine", "60", "--names", *names, "--karras")
    assert list(karras) == ["UniPCMultistep"] and karras["UniPCMultistep"][0] < table["UniPCMultistep"][1]


def test_scheduler_orders():
    tables = run("scheduler_orders", "--count", "64", "--names", "LMS", "UniPC 2", "FlowMatchEuler, shift 3")
    heads, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in tables["order"]]
    orders = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert float(orders["UniPC 2"]["as configured"]) < 1.2 and orders["UniPC 2"]["Karras"].startswith("stops at ")
    assert float(orders["UniPC 2"]["Karras, to sigma_min"]) == pytest.approx(3, abs=0.3)
    assert float(orders["LMS"]["as configured"]) > 2.7
    page = (EXAMPLES.parent / "docs" / "schedulers.md").read_text().splitlines()
    for row in [row for found in tables.values() for row in found[2:]]:
        assert any(alike(row, line) for line in page), row


def alike(row, line):
    """Whether two rows of a table say the same, but for the last digits of numbers."""
    return all(map(same, *(re.split(r"[ |]+", text) for text in (row, line)))) and row.count("|") == line.count("|")


def same(one, other):
    """Whether two words are one, or nearly the same number."""
    try:
        return float(one) == pytest.approx(float(other), rel=0.02, abs=0.11 * (len(one) == 3))  # 2.1 for 2.0
    except ValueError:
        return one == other


def test_draw_molecules(tmp_path):
    pytest.importorskip("rdkit")
    import jax

    import fdiff
    from fdiff import molecules

    pipe = fdiff.MoleculePipeline(
        fdiff.EGNNModel(in_features=6, hidden_features=4, num_layers=1), fdiff.PolynomialScheduler(), sizes=(0, 0, 0, 1)
    )
    pipe.save_pretrained(tmp_path / "model", {"egnn": pipe.egnn.init_params(jax.random.key(0))})
    small = ("--count", "2", "--steps", "3", "--out", str(tmp_path / "out"))
    quality = run("draw_molecules", str(tmp_path / "model"), *small)
    assert 0 <= quality.valid <= 1 and (tmp_path / "out" / "drawn.png").stat().st_size > 500
    assert len(molecules.read(tmp_path / "out" / "drawn.sdf").numbers) == 2
    assert len(molecules.read(tmp_path / "out" / "trajectory.xyz").numbers) == 4
