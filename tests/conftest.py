"""What every test may ask for."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import jax
import pytest

from tests.fake_hub import FakeHub, serving


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Most tests compile much and run little, so XLA optimizes little; not so parity tests and examples."""
    marked = request.config.getoption("markexpr")
    runs_long = request.module.__name__ == "tests.test_examples" or marked.startswith("parity")
    jax.config.update("jax_disable_most_optimizations", not runs_long)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that hold an address: workers that run side by side would collect different tests."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} has another name in every process; give its parameters ids")


MAPPINGS = Path("/proc/self/maps")  # one line each, on Linux
MOST_MAPPINGS = 10_000


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Compiled programs are let go before they fill the 65,530 mappings that Linux gives a process: XLA dies there."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def wide_mode() -> Callable[[bool], AbstractContextManager[None]]:
    """A context in which 64-bit types are switched on, or off."""

    @contextmanager
    def mode(on: bool) -> Iterator[None]:
        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", on)
        try:
            yield
        finally:
            jax.config.update("jax_enable_x64", before)

    return mode


@pytest.fixture(scope="session")
def reference() -> Path:
    """Tiny checkpoints with inputs and outputs, written by torch and diffusers (tests/reference/make.py)."""
    return Path(__file__).parent / "reference"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real public files (Hub configs, manifests, data sets), where a folder of them stands beside the project."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FDIFF_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("the folder of real public files is absent; set FDIFF_SHARED_DATA to it")
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A stand-in for the Hub, which huggingface_hub reaches."""
    from huggingface_hub import constants

    with serving() as fake:
        monkeypatch.setattr(constants, "ENDPOINT", fake.endpoint)
        template = fake.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield fake
