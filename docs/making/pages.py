"""Pages: Markdown files and notebooks, and the blocks of code that they hold.

A fence ```python or ```bash is run, all of a page's in order. Its title may say otherwise, for readers to see too:

    ```python title="not run: needs two GPUs"     nothing is run
    ```python title="raises ValueError"           the block must raise it; the message is its output
    ```bash title="refused"                       the command must be refused; what it says is its output
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r'^(?P<indent> *)```(?P<kind>python|bash)(?: +title="(?P<title>[^"\n]*)")? *\n(?P<code>.*?)^(?P=indent)```$',
    re.DOTALL | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fence: its code, its title, the line of the page that its code begins at, and where it ends in the text."""

    kind: str
    code: str
    title: str
    line: int
    indent: str
    end: int

    @property
    def runs(self) -> bool:
        """Whether it is to be run."""
        return not self.title.startswith("not run: ")

    @property
    def raises(self) -> str:
        """The name of the error that it must raise, or nothing."""
        return self.title.removeprefix("raises ") if self.title.startswith("raises ") else ""


def pages() -> list[Path]:
    """Every page of the project with code to run: README, CONTRIBUTING, the site's pages, the notebooks."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.ipynb"))]


def text_of(page: Path) -> str:
    """The page as Markdown; a notebook's cells of code are fences."""
    text = page.read_text()
    return _notebook(json.loads(text)) if page.suffix == ".ipynb" else text


def blocks_of(text: str) -> list[Block]:
    """The fences of a page, in order."""
    return [
        Block(found["kind"], textwrap.dedent(found["code"]), found["title"] or "",
              text.count("\n", 0, found.start()) + 2, found["indent"], found.end())
        for found in FENCE.finditer(text)
    ]


def _notebook(notebook: dict) -> str:
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"


def with_outputs(text: str, outputs: list[str], pictures: list[list[str]], where: str) -> str:
    """The page with what each block printed and showed put under it; `where` is the folder of the pictures shown."""
    for block, output, shown in reversed(list(zip(blocks_of(text), outputs, pictures, strict=True))):
        under = f'\n```text title="Output"\n{output.rstrip()}\n```\n' if output.strip() else ""
        under += "".join(f"\n![{name}]({where}/{name})\n" for name in shown)
        text = text[: block.end] + "\n" + textwrap.indent(under, block.indent) + text[block.end :]
    return text
