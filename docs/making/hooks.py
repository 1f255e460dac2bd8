"""MkDocs' hooks: put what the code of the pages prints and draws into the site.

A picture that the code of a page PAGE.md writes as NAME.png is shown by ![...](made/PAGE/NAME.png).
"""

from __future__ import annotations

import json
import posixpath
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from docs.making import kept, newcomer, reference  # noqa: E402
from docs.making.pages import DOCS, text_of, with_outputs  # noqa: E402
from docs.making.run import OUTCOME  # noqa: E402

PICTURES = (".png", ".gif", ".jpg")
AT_ONCE = 2  # pages that run side by side


def on_files(files: Any, config: Any) -> Any:
    """Add what is made: pictures, notebooks as pages, examples, the reference."""
    sources = {file: DOCS / file for file in sorted(_sources())}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        folders = dict(zip(sources, pool.map(kept.made, sources.values()), strict=True))
    kept.forget_all_but(folders.values())
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
