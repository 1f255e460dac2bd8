"""The links of the pages: where each leads, and whether it is there.

    python -m docs.making.links [SITE]      list the external ones; with the built site, check that it loads nothing
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from docs.making.pages import DOCS, FENCE, ROOT, pages, text_of

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<to>[^()\s]+(?:\([^()\s]*\))?)(?: \"[^\"]*\")?\)")
BARE = re.compile(r"<(?P<to>https?://[^>\s]+)>")
OTHER_FENCE = re.compile(r"^( *)(```+).*?^\1\2$", re.DOTALL | re.MULTILINE)
# What a browser would fetch by itself: scripts, styles, pictures, frames.
LOADS = re.compile(r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?P<src>(?:https?:)?//[^\"'\s>]+)"
                   r"|<link\b[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect)[^>]*\bhref=[\"']?(?P<href>(?:https?:)?//[^\"'\s>]+)")


class Link(NamedTuple):
    """A link as a page has it."""

    page: Path
    to: str

    @property
    def external(self) -> bool:
        """Whether it leads out of the project."""
        return "://" in self.to or self.to.startswith("mailto:")


def links(page: Path) -> list[Link]:
    """The links of a page, those in code left out."""
    text = re.sub(r"`[^`\n]+`", "", OTHER_FENCE.sub("", FENCE.sub("", text_of(page))))
    return [Link(page, found["to"]) for form in (LINK, BARE) for found in form.finditer(text)]


def broken(generated: dict[str, str]) -> list[str]:
    """The internal links of all pages that lead nowhere, each a line.

    generated: the pages that the build adds to the site, their path in it and their text.
    """
    found = []
    for page in pages():
        for link in links(page):
            if not link.external and (why := _wrong(link, generated)):
                found.append(f"{page.relative_to(ROOT)}: {link.to} {why}")
    return found


def _wrong(link: Link, generated: dict[str, str]) -> str:
    path, _, anchor = link.to.partition("#")
    target = (link.page.parent / path).resolve() if path else link.page
    made = target.parent.parent.name == "made"  # a picture that the page makes, whose code names it
    if made:
        return "" if target.name in text_of(link.page).replace(link.to, "") else "is made by no code of the page"
    inside = target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else ""
    if target.with_suffix(".ipynb").exists():
        text = text_of(target.with_suffix(".ipynb"))
    elif inside in generated:
        text = generated[inside]
    elif target.exists():
        text = target.read_text() if target.suffix == ".md" else ""
    else:
        return "is not there"
    return "" if not anchor or anchor in anchors(text) else f"has no such heading; it has {sorted(anchors(text))}"


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a page, as MkDocs and GitHub make them."""
    found, text = set(), OTHER_FENCE.sub("", text)
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        said, _, own = heading.partition("{ #")
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", said)).strip().lower()
        slug = own.rstrip(" }") if own else re.sub(r"[\s-]+", "-", plain)
        copies = sum(slug == one or re.fullmatch(re.escape(slug) + r"_\d+", one) is not None for one in found)
        found.add(f"{slug}_{copies}" if copies else slug)
    return found


def well_formed(link: Link) -> bool:
    """Whether an external link has the form of one: https, a host with a dot, no spaces."""
    parts = urlsplit(link.to)
    return parts.scheme == "https" and "." in parts.netloc and re.fullmatch(r"[\w.-]+", parts.netloc) is not None


def loaded(site: Path) -> list[str]:
    """What the pages of a built site would fetch from elsewhere, each a line."""
    return [
        f"{page.relative_to(site)}: {found['src'] or found['href']}"
        for page in sorted(site.rglob("*.html"))
        for found in LOADS.finditer(page.read_text())
    ]


def main(arguments: list[str]) -> int:
    """List the external links; check a site."""
    for to in sorted({link.to for page in pages() for link in links(page) if link.external}):
        sys.stdout.write(f"{to}\n")
    found = loaded(Path(arguments[0])) if arguments else []
    sys.stdout.writelines(f"fetched from elsewhere: {line}\n" for line in found)
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
