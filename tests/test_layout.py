"""The rules of the house: imports point one way, and importing starts nothing."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part of fdiff may import of fdiff; parts that are not named may import anything.
ALLOWED = {
    "messages": set(),
    "limits": set(),
    "display": set(),
    "plan": {"display"},
    "noise": set(),
    "spacing": {"messages"},
    "torch_random": set(),
    "keys": set(),
    "lean": set(),
    "sharding": set(),
    "solvers": {"plan", "solvers"},
    "rows": {"plan"},
    "sampling": {"plan", "keys", "lean", "rows"},
    "guidance": {"sampling"},
    "windows": {"sampling"},
    "layer_cuts": set(),
    "stacked": set(),
    "caching": {"guidance", "layer_cuts", "plan", "rows", "sampling"},
    "token_merging": set(),
    "registry": set(),
    "models": {"messages", "models", "keys", "hub", "upload", "registry", "sources", "stacked"},
    "downloads": set(),
    "sources": {"hub"},
    "hub": {"downloads"},
    "upload": {"hub", "downloads"},
    "schedulers": {
        "messages", "schedulers", "registry", "solvers", "spacing", "noise", "plan", "sampling", "rows", "keys",
        "hub", "upload",
    },
    "tokenizers": {"tokenizers", "hub", "registry"},
    "audio": {"audio", "hub", "registry", "keys"},
    "molecules": {"molecules", "hub"},
    "training": {
        "adapters", "bars", "guidance", "hub", "images", "keys", "limits", "models", "molecules",
        "pipelines", "plan", "plan_files", "prompts", "registry", "sampling", "schedulers", "sharding", "tokenizers",
        "training",
    },
}
OPTIONAL = {  # what an extra of pyproject.toml brings
    "plotting": {"matplotlib"}, "commands": {"argcomplete"}, "loader": {"grain", "absl"}, "checkpoints": {"orbax"},
    "events": {"tensorboardX"}, "data": {"datasets"},
    "files": {"soundfile"},
    "chemistry": {"rdkit"},
}  # fmt: skip
NUMPY_ONLY = ("messages", "display", "plan", "noise", "spacing", "solvers", "torch_random")


def imports(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(part: str) -> list[Path]:
    single = ROOT / "fdiff" / f"{part}.py"
    return [single] if single.exists() else sorted((ROOT / "fdiff" / part).rglob("*.py"))


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    assert files(part)
    for file in files(part):
        parts = {name.split(".")[1] for name in imports(file) if name.startswith("fdiff.")}
        assert parts <= ALLOWED[part], f"{file} imports {parts - ALLOWED[part]}"


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", one)[0] for one in project["dependencies"]} | {"PIL"}
    for file in [*(ROOT / "fdiff").rglob("*.py"), *(ROOT / "convert").rglob("*.py")]:
        roots = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"fdiff", "convert"}
        assert roots <= declared | OPTIONAL.get(file.stem, set()), f"{file} imports {roots - declared}"


@pytest.mark.parametrize("part", NUMPY_ONLY)
def test_the_host_side_is_numpy(part):
    for file in files(part):
        roots = {name.split(".")[0] for name in imports(file)}
        assert not roots & {"jax", "flax", "optax"}, file


def test_convert_stands_alone_and_nothing_imports_torch():
    for file in sorted((ROOT / "convert").rglob("*.py")):
        assert not any(name.split(".")[0] == "fdiff" for name in imports(file)), file
    for file in [file for part in ("fdiff", "convert", "examples") for file in (ROOT / part).rglob("*.py")]:
        roots = {name.split(".")[0] for name in imports(file)}
        assert not roots & {"torch", "diffusers", "transformers"}, file


def test_the_parts_that_users_name_are_there():
    code = "import fdiff; a = fdiff.adapters; print(a.ip_adapter.load, a.lora.load, a.textual_inversion.load)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_is_light():
    heavy = ["huggingface_hub", "PIL", "tokenizers", "tqdm", "optax", "matplotlib", "scipy.stats", "sklearn", "torch"]
    code = (
        "import jax, flax.linen, sys; before = set(sys.modules); import fdiff.api;"
        f"print([m for m in {heavy} if m in sys.modules and m not in before]);"
        "print(jax._src.xla_bridge.backends_are_initialized())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[0] == "[]", "import fdiff also imports these"
    assert out[1] == "False", "import fdiff starts a backend"
