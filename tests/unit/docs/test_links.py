"""The documents: the target of every link and every named path exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.paths import PROJECT

PAGES = [
    *sorted(PROJECT.glob("*.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted(PROJECT.glob("tests/**/*.md")),
]
PACKAGE = PROJECT / "src" / "undisclosed"
ROOMS = "|".join(sorted(file.name for file in PACKAGE.iterdir() if (file / "__init__.py").exists()))

LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.-])(?:src|tests|deploy|docs)/[\w./-]*[\w/]")
IN_A_ROOM = re.compile(rf"`((?:{ROOMS})/[\w./-]+)`")

TEST_FILE = re.compile(r"`(test_\w+\.py)\b")


def _anchor(heading: str) -> str:
    """The name under which a heading can be linked to, as code hosts make it."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def _anchors(page: Path) -> set[str]:
    return {_anchor(heading) for heading in re.findall(r"(?m)^#+ (.+)$", page.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_relative_link_resolves(page: Path) -> None:
    """To a file, and to a heading in it where one is named."""
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not heading or heading in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_path_exists(page: Path) -> None:
    """Paths from the top of the repository anywhere in the text; in backticks, paths in a room and test files."""
    text = page.read_text()
    missing = [path for path in PATH.findall(text) if not (PROJECT / path).exists() and "/." not in path]
    missing += [path for path in IN_A_ROOM.findall(text) if not (PACKAGE / path).exists()]
    missing += [name for name in TEST_FILE.findall(text) if not list((PROJECT / "tests").rglob(name))]
    assert missing == []


def test_the_architecture_names_every_room() -> None:
    """In backticks, in one of the tables."""
    text = (PROJECT / "docs" / "architecture.md").read_text()
    assert [room for room in ROOMS.split("|") if f"`{room}`" not in text] == []
