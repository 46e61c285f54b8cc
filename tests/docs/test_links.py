"""Links of the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/README.md"),
        ROOT / "manifests/README.md",
    ]
)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def links(page: Path) -> list[str]:
    """Relative targets of a page, without those inside code."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target) and target[0] != "#"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_exists(page: Path):
    broken = [
        target for target in links(page) if not (page.parent / target.partition("#")[0]).resolve().exists()
    ]
    assert broken == []


def test_links_are_found():
    """The pattern sees links: README has some, to files that exist."""
    assert "docs/howto/write_a_plugin.md" in links(ROOT / "README.md")


def test_every_page_of_the_docs_is_reached_from_readme():
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
        todo += [target for target in targets if target.suffix == ".md" and target.is_relative_to(ROOT)]
    assert [str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md") if page not in seen] == []
