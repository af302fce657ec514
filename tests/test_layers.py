"""The direction of imports, as the design draws it: the core imports no adapter, and one room speaks to each thing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import undisclosed

SOURCE = Path(undisclosed.__file__).parent

CORE = (
    {"domains", "encoded_words"},
    {"tokens", "sight"},
    {"address_scan"},
    {"addresses"},
    {"senders"},
    {"kinds"},
    {"sections"},
    {"policy"},
    {"message"},
    {"obstacles", "rendering"},
    {"rewrite"},
    {"decide", "records"},
    {"explain", "incident"},
)
"""The rooms of the core, values in, values out: each imports rooms of earlier rows only."""

PATH = ({"together"}, {"recorder"}, {"session"}, {"milter"}, {"heap", "host", "listener", "notify"}, {"workers"})
"""The rooms on a message's way from Postfix to the core, by the same rule; none of them imports another adapter."""

HANDED_IN = {("workers", "journal")}
"""Who makes the journal that the rooms before it are handed: before a message comes, and shared by all workers."""

ONLY_IMPORTER = {"milter": {"milter"}, "typer": {"cli"}, "tomllib": {"config"}}
"""Outside things that one room alone may speak to."""

IMPURE = {
    "os",
    "io",
    "time",
    "socket",
    "subprocess",
    "logging",
    "structlog",
    "random",
    "secrets",
    "threading",
    "pathlib",
}
"""What the core has no use for: no clock, file, socket or log."""

VALUES_ALL_THE_SAME = {("kinds", "pathlib"), ("sections", "pathlib"), ("policy", "pathlib")}
"""Paths as settings: named, never opened."""

SLOW_TO_IMPORT = {"rich", "sqlalchemy", "alembic", "jinja2", "typer"}
"""What no room on a message's way may load."""


def rooms() -> dict[str, list[Path]]:
    """The files of each room: a module, or all of a package."""
    found: dict[str, list[Path]] = {}
    for path in SOURCE.rglob("*.py"):
        found.setdefault(path.relative_to(SOURCE).parts[0].removesuffix(".py"), []).append(path)
    return found


def imports(room: str) -> set[tuple[str, str]]:
    """Every module that a room imports anywhere, as (top package, full dotted name)."""
    found = set()
    for path in rooms()[room]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {(alias.name.split(".")[0], alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {(node.module.split(".")[0], name) for name in names}
    return found


def ours(room: str) -> set[str]:
    """The other rooms of this project that a room imports."""
    names = {full.split(".")[1] for top, full in imports(room) if top == "undisclosed" and "." in full}
    return (names & set(rooms())) - {room}


ROWS = [(row, room) for row, names in enumerate((*CORE, *PATH)) for room in sorted(names)]


@pytest.mark.parametrize(("row", "room"), ROWS, ids=[room for _, room in ROWS])
def test_imports_go_one_way(row: int, room: str) -> None:
    """A room of the core, or on a message's way, imports rooms of earlier rows only."""
    earlier = set().union(*(*CORE, *PATH)[:row])
    assert {(room, other) for other in ours(room) - earlier} - HANDED_IN == set()


@pytest.mark.parametrize("room", sorted(set().union(*CORE)))
def test_the_core_is_pure(room: str) -> None:
    """The core imports nothing that has a clock, a file, a socket or a log."""
    tops = {top for top, _ in imports(room)}
    assert {(room, top) for top in tops & IMPURE} - VALUES_ALL_THE_SAME == set()


@pytest.mark.parametrize("room", sorted(set().union(*CORE, *PATH)))
def test_nothing_slow_is_loaded_on_a_messages_way(room: str) -> None:
    """What is slow to import, or large, stays out of the milter's path."""
    assert {top for top, _ in imports(room)} & SLOW_TO_IMPORT == set()


@pytest.mark.parametrize("thing", sorted(ONLY_IMPORTER))
def test_one_room_speaks_to_each_outside_thing(thing: str) -> None:
    """pymilter, the command line and TOML are imported in one room each."""
    assert {room for room in rooms() if thing in {top for top, _ in imports(room)}} == ONLY_IMPORTER[thing]
