"""Every call in the tables of docs/coming-from-diffusers.md is one: its names are there, and so are its arguments."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import jax
import pytest

import fdiff

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-diffusers.md"
SNIPPET = re.compile(r"`([^`]+)`")


@dataclasses.dataclass(frozen=True)
class Of:
    """Something of that class, in the snippets."""

    cls: type


def columns():
    """The cells of the tables, those of diffusers and those of fdiff."""
    rows = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    pairs = [[cell.strip() for cell in row] for row in rows if len(row) == 2]
    assert len(pairs) == len(rows) > 40
    return zip(*[pair for pair in pairs if pair[0] not in ("diffusers", "---")], strict=True)


def snippets(cells):
    """The pieces of code that name or call something."""
    for text in SNIPPET.findall(" ".join(cells)):
        code = f"{text[:-3]}pass" if text.startswith("for ") else text
        if re.search(r"\w\.\w|\(", code):
            yield text, ast.parse(code)


def check(tree, known):
    """Raise AssertionError for an attribute or an argument that there is not, of what starts with a known name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found(node, known)
        elif isinstance(node, ast.Call) and (function := found(node.func, known, called=True)) is not None:
            takes = inspect.signature(function).parameters
            more = [one for one in takes.values() if one.kind is one.VAR_KEYWORD]
            fields = getattr(getattr(function, "__self__", None), "__dataclass_fields__", {})  # of from_pretrained
            for word in node.keywords:
                assert word.arg in takes or word.arg in fields or (more and not fields), (ast.unparse(node), word.arg)
            places = [one for one in takes.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
            spread = any(one.kind is one.VAR_POSITIONAL for one in takes.values())
            assert spread or len(node.args) <= len(places), ast.unparse(node)


def found(node, known, called=False):
    """What the expression is, None where that is not known."""
    if isinstance(node, ast.Name):
        value = known.get(node.id)
    elif isinstance(node, ast.Attribute):
        above = found(node.value, known)
        if above is None:
            return None
        owner = above.cls if isinstance(above, Of) else above
        fields = getattr(owner, "__dataclass_fields__", {})
        made = known["made"]  # what only an instance has
        assert hasattr(owner, node.attr) or node.attr in fields or (owner, node.attr) in made, ast.unparse(node)
        value = made.get((owner, node.attr), getattr(owner, node.attr, None))
        if isinstance(above, Of) and inspect.isfunction(value):
            value = value.__get__(object())
    else:
        return None
    return value.cls.__call__.__get__(object()) if called and isinstance(value, Of) and callable(value.cls) else value


def test_what_stands_for_it_in_fdiff_is_there():
    pipe = fdiff.StableDiffusionPipeline
    known = {
        "fdiff": fdiff, "jax": jax, "pipe": Of(pipe), "scheduler": Of(fdiff.EulerDiscreteScheduler),
        "plan": Of(fdiff.Plan), "state": Of(fdiff.State), "unet": Of(fdiff.UNet2DConditionModel),
        "lora": fdiff.adapters.lora, "textual_inversion": fdiff.adapters.textual_inversion,
        "ip_adapter": fdiff.adapters.ip_adapter, "dataclasses": dataclasses,
        "made": {(pipe, "scheduler"): Of(fdiff.DDIMScheduler), (pipe, "unet"): Of(fdiff.UNet2DConditionModel)},
    }  # fmt: skip
    codes = list(snippets(list(columns())[1]))
    assert len(codes) > 45
    for _, tree in codes:
        check(tree, known)


@pytest.mark.parametrize("wrong", ["fdiff.sampel(x)", "pipe(params, sise=3)", "lora.load(file, params, scale=1)",
                                   "fdiff.StableDiffusionPipeline.from_pretrained(name, controlnet=net)",
                                   "pipe.scheduler.plan(3, etta=1)", "fdiff.step(plan[i], state, out, 1, 2)"])
def test_what_is_not_there_is_found(wrong):
    known = {"fdiff": fdiff, "pipe": Of(fdiff.StableDiffusionPipeline), "lora": fdiff.adapters.lora,
             "made": {(fdiff.StableDiffusionPipeline, "scheduler"): Of(fdiff.DDIMScheduler)}}  # fmt: skip
    with pytest.raises(AssertionError):
        check(ast.parse(wrong), known)


@pytest.mark.parity
def test_what_it_stands_for_in_diffusers_is_there():
    diffusers = pytest.importorskip("diffusers")
    pipe = diffusers.StableDiffusionPipeline
    known = {
        "diffusers": diffusers, "pipe": Of(pipe), "scheduler": Of(diffusers.EulerDiscreteScheduler),
        "unet": Of(diffusers.UNet2DConditionModel),
        "made": {(pipe, "scheduler"): Of(diffusers.EulerDiscreteScheduler), (pipe, "vae"): Of(diffusers.AutoencoderKL),
                 (pipe, "unet"): Of(diffusers.UNet2DConditionModel),
                 (pipe, "transformer"): Of(diffusers.FluxTransformer2DModel),
                 (diffusers.EulerDiscreteScheduler, "timesteps"): None},
    }  # fmt: skip
    for _, tree in snippets(next(iter(columns()))):
        check(tree, known)
