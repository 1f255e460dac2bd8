"""Every sentence that docs/errors.md quotes is one of fdiff's code; that its snippets raise is a test of all pages."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
GAP = "…"


def sentences():
    """The strings of the code, docstrings left out, with … for what is filled in."""
    for folder in ("fdiff", "convert"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text())
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp) and id(node) not in docs:
                    yield text(node)


def text(node):
    """A string as the code has it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text(node.left) + text(node.right)
    return GAP


def is_one_of(quoted, known):
    """Whether one of the sentences is the quoted one, whose gaps may hold less or more than theirs."""
    pieces = [piece for piece in re.split(f"{GAP}+", quoted) if piece.strip(" .;")]
    pattern = re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)
    return any(pattern.search(one) for one in known)


def quoted():
    """The first cells of the page's tables."""
    for line in (ROOT / "docs" / "errors.md").read_text().splitlines():
        if line.startswith("| `"):
            yield line.split("|")[1].strip().removeprefix("`").removesuffix("`").replace("``", "`")


def test_every_sentence_is_raised():
    known, asked = set(sentences()), list(quoted())
    assert len(asked) > 55
    assert not [one for one in asked if not is_one_of(one, known)]


def test_a_sentence_that_is_not_raised_is_found():
    known = set(sentences())
    assert not is_one_of("… keys are given for … pictures", known)
    assert is_one_of("… keys are given for … images", known)
