"""The documentation: its code runs as it stands, its links lead somewhere, its reference leaves nothing out."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import fdiff
from docs.making import kept, links, newcomer, reference
from docs.making.pages import ROOT, blocks_of, pages, text_of, with_outputs
from docs.making.run import SETS_UP, run_page

WITH_CODE = [page for page in pages() if any(block.runs for block in blocks_of(text_of(page)))]


@pytest.fixture(scope="module")
def runs(request):
    """The runs of the pages that are to be tested, two side by side; what a build has run is not run anew."""
    chosen = [item.callspec.params["page"] for item in request.session.items if "runs" in item.fixturenames]
    with ThreadPoolExecutor(2) as pool:
        yield {page: pool.submit(kept.made, page) for page in chosen}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(page, runs):
    runs[page].result()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_is_not_run_says_why(page):
    text = text_of(page)
    blocks = blocks_of(text)
    assert len(re.findall(r"^ *```(?:python|bash|py|sh|shell|console|pycon)\b", text, re.MULTILINE)) == len(blocks)
    for block in blocks:
        assert block.runs or len(block.title) > len("not run: ") + 5, f"line {block.line} says no reason"
        assert re.fullmatch(r"|not run: .*|raises \w+|refused", block.title), f"line {block.line}: {block.title}"
    commands = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in re.findall(r"^    +(?:\$ )?(fdiff .*|import .*)$", commands, re.MULTILINE):
        raise AssertionError(f"{line!r} is code outside a fence")


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", "AssertionError"),
        ('```python title="raises ValueError"\nx = 1\n```\n', "raises no ValueError"),
        ("```bash\nfdiff generate --steps 0\n```\n", "--steps is 0"),
        ("```bash\nls\n```\n", "is no command of fdiff"),
        ('```bash title="refused"\nfdiff --help\n```\n', "ends with 0"),
    ],
)
def test_a_page_that_is_wrong_is_found(page, error, tmp_path):
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(RuntimeError, match=error):
        run_page(tmp_path / "page.md", tmp_path)


def test_outputs_are_put_under_their_blocks(tmp_path):
    page = tmp_path / "page.md"
    refused = '```bash title="refused"\nfdiff generate --steps 0\n```\n'
    page.write_text(f"a\n\n    ```python\n    print(1 + 1)\n    ```\n\n{refused}b\n")
    found = run_page(page, tmp_path / "made")
    text = with_outputs(page.read_text(), found["outputs"], found["pictures"], "made/page")
    assert '\n    ```text title="Output"\n    2\n    ```\n' in text
    assert text.endswith('```text title="Output"\nfdiff: --steps is 0; it must be 1 or more\n```\n\nb\n')


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda page: page.name)
def test_notebooks_are_kept_without_outputs(page):
    notebook = json.loads(page.read_text())
    assert notebook["nbformat"] == 4 and notebook["nbformat_minor"] >= 5
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


def test_internal_links_lead_somewhere():
    generated = {**reference.pages(), **reference.examples()}
    assert not links.broken(generated)


def test_external_links_have_the_form_of_one():
    for page in pages():
        for link in links.links(page):
            assert not link.external or links.well_formed(link), link


def test_broken_links_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(links, "pages", lambda: [tmp_path / "page.md"])
    monkeypatch.setattr(links, "ROOT", tmp_path)
    good, bad = "[2](#a-b) [4](page.md#a-b)", "[1](gone.md) [3](#a-c) ![5](made/page/x.png)"
    (tmp_path / "page.md").write_text(f"# A b\n\n{good} {bad}\n```python\n[6](no.md)\n```\n")
    assert [line.split()[1] for line in links.broken({})] == ["gone.md", "#a-c", "made/page/x.png"]


def test_every_public_name_is_in_the_reference():
    found = reference.pages()
    index = found["reference/index.md"]
    for name in fdiff.__all__:
        assert f"[`fdiff.{name}`](" in index, name
        if name not in reference.MODULES:
            assert any(f"{{ #fdiff.{name} }}" in text for text in found.values()), name


def test_every_option_of_a_pipeline_is_in_the_reference():
    found = reference.pages()
    text = found["reference/pipelines/stable_diffusion.md"]
    for one in fdiff.StableDiffusionPipeline.steps.task.options:
        assert f"| `{one.name}` |" in text and one.doc.split(".")[0].split("|")[0].split("<")[0] in text


def test_the_reference_and_the_examples_are_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in [*reference.pages(), *reference.examples()]:
        assert f"- {page}\n" in navigation, page


def test_the_minutes_of_a_newcomer_are_under_their_tasks(tmp_path, monkeypatch):
    titles = list(newcomer.tasks())
    assert len(titles) == 10
    monkeypatch.setattr(newcomer, "MINUTES", tmp_path / "minutes.json")
    assert newcomer.with_minutes("## 1. x\n") == "## 1. x\n"
    newcomer.MINUTES.write_text(json.dumps({title: [90.0, 30.0] for title in titles}))
    text = newcomer.with_minutes(newcomer.PAGE.read_text())
    for title in titles:
        assert f"## {title}\n\n*1.5 minutes, 0.5 of them of one core*" in text


def test_what_sets_up_is_only_what_installs():
    assert all(word.split()[0] in ("pip", "python", "source", "export", "git", "cd") for word in SETS_UP)
