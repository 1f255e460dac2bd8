"""The pages of the reference, made of what is public: docstrings by mkdocstrings, options as tables, each once."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fdiff
import fdiff.audio
import fdiff.images
import fdiff.molecules
import fdiff.single_file
import fdiff.training
from fdiff.models.fields import OneOf
from fdiff.pipelines.task import Task, options_of

SAMPLING = "Sampling", "A scheduler gives a plan; these run it, keep it in a file, or make one of a solver."
PAGES = {  # module: (title, what is said first); its `__all__` or its public functions and classes
    "solvers": ("Solvers", "One textbook solver a function; `fdiff.tabulate` makes a plan of it."),
    "guidance": ("Guidance", "From a network that is told a condition to one that is guided: (x, t) -> out."),
    "adapters.lora": ("LoRA", ""),
    "adapters.textual_inversion": ("Textual inversion", ""),
    "adapters.ip_adapter": ("IP-Adapter", ""),
    "prompts": ("Prompts", ""),
    "tokenizers": ("Tokenizers", ""),
    "torch_random": ("Torch's random numbers", ""),
    "images": ("Pictures", ""),
    "single_file": ("Single files", ""),
    "training": ("Training", ""),
    "audio": ("Sound", ""),
    "molecules": ("Molecules", ""),
}
MODULES = {  # what is public as a whole: the page of each
    "adapters": "adapters_lora.md", "guidance": "guidance.md", "models": "models.md", "pipelines": "pipelines/index.md",
    "prompts": "prompts.md", "schedulers": "schedulers.md", "solvers": "solvers.md", "tokenizers": "tokenizers.md",
    "torch_random": "torch_random.md",
}  # fmt: skip
KEPT = ("parent", "name", "others", "given")  # fields that no config sets
EXAMPLES = Path(__file__).parents[2] / "examples"
ONE = "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n      heading_level: 4\n"


def pages() -> dict[str, str]:
    """Every page of the reference: its path in the site and its Markdown."""
    found = {f"reference/{name.replace('.', '_')}.md": _module(name, *told) for name, told in PAGES.items()}
    found["reference/sampling.md"] = _page(*SAMPLING, _entries("fdiff", _rest()))
    found["reference/schedulers.md"] = _schedulers()
    found["reference/models.md"] = _models()
    found |= _pipelines()
    found["reference/index.md"] = _index(found)
    return found


def _page(title: str, said: str, parts: Iterable[str]) -> str:
    return f"# {title}\n\n" + (f"{said}\n\n" if said else "") + "\n".join(parts)


def _rest() -> list[str]:
    """The public names that have no page of their own module."""
    pages = [set(getattr(fdiff, part).__all__) for part in ("models", "pipelines", "schedulers", "tokenizers")]
    return [name for name in sorted(set(fdiff.__all__) - set().union(*pages))
            if not isinstance(getattr(fdiff, name), types.ModuleType)]


def _entries(module: str, names: Iterable[str], members: bool = True) -> list[str]:
    return [_entry(f"{module}.{name}", members) for name in names]


def _entry(path: str, members: bool = True) -> str:
    """A heading with the public name as its anchor, and the docstring below."""
    value = _value(path)
    told = "" if members else "      members: false\n"
    return f"### {path.rpartition('.')[2]} {{ #{path} }}\n\n::: {value.__module__}.{value.__qualname__}\n{ONE}{told}"


def _value(path: str) -> Any:
    value: Any = fdiff
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    return value


def _module(name: str, title: str, said: str) -> str:
    module = _value(f"fdiff.{name}")
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    ]
    intro = said or inspect.cleandoc(module.__doc__)
    if name == "adapters.lora":  # what its functions take
        names = [one for one in names if one not in ("parameters", "layers")]
    at = "fdiff" if set(names) <= set(fdiff.__all__) else f"fdiff.{name}"
    return _page(title, f"`fdiff.{name}`\n\n{intro}", _entries(at, names))


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "needed"
    text = getattr(value, "__name__", None) or repr(value)
    return f"`{text}`"


def _fields(cls: Any) -> str:
    """The fields of a dataclass that a config or a call sets, as a table that opens."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    kinds = typing.get_type_hints(cls, include_extras=True)
    rows = [
        f"    | `{field.name}` | {_cell(_words(kinds[field.name]))} | {_default(field.default)} |"
        for field in fields if field.init and field.name not in KEPT
    ]
    table = "\n".join(["    | option | kind | default |", "    | --- | --- | --- |", *rows])
    return f'\n??? note "Options"\n\n{table}\n' if rows else ""


def _words(kind: Any) -> str:
    """A kind of values in words, its range or its choices with it."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        rule = inside[1]
        choices = rule if isinstance(rule, OneOf) else getattr(rule, "words", str(rule))
        if isinstance(choices, tuple):
            return ", ".join(choices)
        return choices.removeprefix("a ") if "number" in choices else f"{_words(inside[0])}, {choices}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, inside))
    if origin in (tuple, list, Sequence):
        return f"list: {_words(inside[0])}"
    known = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none"}
    return known.get(kind) or getattr(kind, "__name__", str(kind))


def _schedulers() -> str:
    names = fdiff.schedulers.__all__
    classes = [name for name in names if inspect.isclass(getattr(fdiff, name))]
    others = [name for name in names if name not in classes]
    said = (
        "Each has the name and the options of the Hub's scheduler_config.json, and gives a "
        "[plan](sampling.md#fdiff.Plan). The methods of all are those of `Scheduler`."
    )
    listed = [_entry(f"fdiff.{name}", members=name == "Scheduler") + _fields(getattr(fdiff, name))
              for name in sorted(classes, key=lambda name: (name != "Scheduler", name))]
    return _page("Schedulers", said, [*listed, *_entries("fdiff", others)])


def _models() -> str:
    said = "Each has the name and the options of the Hub's config.json. The methods of all are those of `Model`."
    names = sorted(fdiff.models.__all__, key=lambda name: (name != "Model", name))
    return _page("Models", said, [
        _entry(f"fdiff.{name}", members=name == "Model") + (_fields(_value(f"fdiff.{name}")) if name != "Model" else "")
        for name in names
    ])


def _pipelines() -> dict[str, str]:
    """A page for what all share, and one for each file of pipelines."""
    shared, families = [], {}
    for name in fdiff.pipelines.__all__:
        value = getattr(fdiff, name)
        if inspect.isclass(value) and hasattr(value, "steps") and hasattr(value.steps, "task"):
            families.setdefault(value.__module__.rpartition(".")[2], []).append(name)
        elif inspect.isclass(value) or inspect.isfunction(value):
            shared.append(_entry(f"fdiff.{name}"))
        else:
            shared.append(f"### {name} {{ #fdiff.{name} }}\n\n{_said(name, value)}\n")
    found = {"reference/pipelines/index.md": _page("Pipelines", "What all of them share.", shared)}
    for module, names in families.items():
        entries = [_entry(f"fdiff.{name}", members=False) + _components(name) + _asked(name) for name in names]
        found[f"reference/pipelines/{module}.md"] = _page(module.replace("_", " ").capitalize(), "", entries)
    return found


def _said(name: str, value: Any) -> str:
    """What is said of a public value that is neither a class nor a function."""
    said = {"DIGITS": "The folder of the digits of 8x8 pixels that fdiff ships.",
            "MNIST": "The folder of the digits of 32x32 pixels that fdiff ships."}
    return value.doc if isinstance(value, Task) else said[name]


def _components(name: str) -> str:
    cls = getattr(fdiff, name)
    rows = [f"`{field.name}`" for field in dataclasses.fields(cls)]
    return f"\nComponents: {', '.join(rows)}.\n"


def _asked(name: str) -> str:
    """The options of a call, from the request."""
    task = getattr(fdiff, name).steps.task
    rows = [
        f"| `{one.name}` | `{one.kind}` | {_default(one.default)} | {_cell(one.doc)} |"
        for one in options_of(task.request)
    ]
    head = ["| option | kind | default | meaning |", "| --- | --- | --- | --- |"]
    told = f"{task.doc} `pipe(params, ...)` and `pipe.steps(params, ...)` take:"
    return f"\n{told}\n\n" + "\n".join([*head, *rows]) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _index(found: dict[str, str]) -> str:
    """Every public name of fdiff, with where it is described."""
    where = dict(MODULES)
    for page, text in found.items():
        for name in fdiff.__all__:
            if f"{{ #fdiff.{name} }}" in text:
                where[name] = f"{page.removeprefix('reference/')}#fdiff.{name}"
    lines = [f"- [`fdiff.{name}`]({where[name]})" for name in sorted(where, key=str.lower)]
    said = ("Every name that `import fdiff` gives. More modules are to be imported by name: "
            "[`fdiff.images`](images.md), [`fdiff.single_file`](single_file.md), [`fdiff.training`](training.md), "
            "[`fdiff.audio`](audio.md) and [`fdiff.molecules`](molecules.md).")
    return _page("Reference", said, lines) + "\n"


def examples() -> dict[str, str]:
    """A page for each example, and one with what each says first."""
    found, lines = {}, []
    for file in sorted(EXAMPLES.glob("*.py")):
        text = file.read_text()
        found[f"examples/{file.stem}.md"] = f"# {file.name}\n\n```python\n{text}```\n"
        said = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
        lines.append(f"- [{file.name}]({file.stem}.md): {' '.join(said.split())}")
    found["examples/index.md"] = _page("Examples", "Scripts, each run by the tests.", lines) + "\n"
    return found
