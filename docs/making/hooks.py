"""MkDocs' hooks: run the code of the pages, and put what it prints and draws into the site.

What a page gave is kept in .cache/docs under a hash of its code and of fdiff, so that a build runs what has changed.
A picture that the code of a page PAGE.md writes as NAME.png is shown by ![...](made/PAGE/NAME.png).
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from docs.making import newcomer, reference  # noqa: E402
from docs.making.pages import DOCS, blocks_of, text_of, with_outputs  # noqa: E402
from docs.making.run import OUTCOME, run_page  # noqa: E402

CACHE = ROOT / ".cache" / "docs"
PICTURES = (".png", ".gif", ".jpg")
AT_ONCE = 2  # pages that run side by side


def on_files(files: Any, config: Any) -> Any:
    """Add what is made: pictures, notebooks as pages, examples, the reference."""
    sources = {file: DOCS / file for file in sorted(_sources())}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        folders = dict(zip(sources, pool.map(_made, sources.values()), strict=True))
    _forget(set(folders.values()))
    for name, folder in folders.items():
        for picture in sorted(folder.iterdir() if folder.is_dir() else ()):
            if picture.suffix in PICTURES:
                place = posixpath.join(posixpath.dirname(name), _pictures(name), picture.name)
                files.append(File.generated(config, place, abs_src_path=str(picture)))
        if name.endswith(".ipynb"):
            download = f"[This page as a notebook]({posixpath.basename(name)}){{ download }}\n"
            text = _shown(text_of(DOCS / name), name, folder) + "\n" + download
            files.append(File.generated(config, name.removesuffix("ipynb") + "md", content=text))
    for name, text in {**reference.pages(), **reference.examples()}.items():
        files.append(File.generated(config, name, content=text))
    config["made"] = folders
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with what its code printed."""
    name = page.file.src_uri
    folder = config["made"].get(name)
    text = markdown if folder is None else _shown(markdown, name, folder)
    return newcomer.with_minutes(text) if DOCS / name == newcomer.PAGE else text


def _sources() -> Iterator[str]:
    for file in [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]:
        yield file.relative_to(DOCS).as_posix()


def _pictures(name: str) -> str:
    """Where the pictures of a page are, from the page."""
    return f"made/{Path(name).stem}"


def _shown(text: str, name: str, folder: Path) -> str:
    if not folder.is_dir():
        return text
    outcome = json.loads((folder / OUTCOME).read_text())
    return with_outputs(text, outcome["outputs"], outcome["pictures"], _pictures(name))


def _made(page: Path) -> Path:
    """The folder of what the page made, run now unless it is there; it is absent where there is nothing to run."""
    blocks = blocks_of(text_of(page))
    code = json.dumps([(block.kind, block.title, block.code) for block in blocks])
    folder = CACHE / hashlib.sha256(f"{page.name} {code} {_sources_hash()}".encode()).hexdigest()[:24]
    if any(block.runs for block in blocks) and not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run_page(page, partial, JAX_COMPILATION_CACHE_DIR=str(CACHE / "compiled"))
        partial.rename(folder)
    return folder


def _sources_hash() -> str:
    """A hash of all that decides what code gives: fdiff, its checkpoints, and what runs pages."""
    digest = hashlib.sha256()
    for part in ("fdiff", "convert", "docs/making", "tests/fake_hub.py", "tests/reference"):
        place = ROOT / part
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and "__pycache__" not in file.parts and file.name not in ("hooks.py", "reference.py"):
                digest.update(file.relative_to(ROOT).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _forget(wanted: set[Path]) -> None:
    """Remove what no page of today made."""
    for folder in CACHE.iterdir() if CACHE.is_dir() else ():
        if folder not in wanted and folder.name != "compiled":
            shutil.rmtree(folder)

