"""The direction of imports, as the design draws it: the core imports no adapter, and one room speaks to each thing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import undisclosed

SOURCE = Path(undisclosed.__file__).parent

CORE = {"addresses", "decide", "domains", "encoded_words", "explain", "message", "obstacles", "policy", "rewrite"}
"""Rooms of the core: values in, values out."""

LAYERS = {
    "domains": set(),
    "addresses": {"domains"},
    "policy": {"addresses", "domains"},
    "message": {"addresses", "policy"},
    "decide": {"addresses", "domains", "message", "policy", "rewrite"},
    "explain": {"decide", "message", "policy"},
    "session": {"decide", "explain", "message", "policy", "rewrite"},
    "milter": {"policy", "rewrite", "session"},
    "listener": {"milter", "policy"},
    "notify": set(),
    "log": set(),
    "workers": {"listener", "milter", "notify", "session"},
}
"""What each room on a message's way may import of the others."""

ONLY_IMPORTER = {"milter": {"milter"}, "typer": {"cli"}, "tomllib": {"config"}}
"""Outside things that one room alone may speak to."""

IMPURE = {
    "os",
    "io",
    "time",
    "datetime",
    "socket",
    "subprocess",
    "logging",
    "structlog",
    "random",
    "secrets",
    "threading",
}
"""Modules that the core has no use for: no clock, file, socket or log. (policy.py knows durations, as values.)"""

PURE_AFTER_ALL = {("policy", "datetime")}


def imports(room: Path) -> set[tuple[str, str]]:
    """Every module that a file imports anywhere, as (top package, full dotted name)."""
    found = set()
    for node in ast.walk(ast.parse(room.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name.split(".")[0], alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {(node.module.split(".")[0], name) for name in names}
    return found


def ours(room: Path) -> set[str]:
    """The rooms of this project that a file imports."""
    rooms = {path.stem for path in SOURCE.rglob("*.py")}
    names = {full.split(".")[1] for top, full in imports(room) if top == "undisclosed" and "." in full}
    return names & rooms


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_each_room_imports_only_what_its_layer_allows(name: str) -> None:
    """A room on a message's way imports the rooms that its layer allows, and no other."""
    assert ours(SOURCE / f"{name}.py") - LAYERS[name] == set()


@pytest.mark.parametrize("path", [SOURCE / f"{name}.py" for name in sorted(CORE)], ids=lambda path: path.stem)
def test_the_core_is_pure(path: Path) -> None:
    """The core imports no adapter, and nothing that has a clock, a file, a socket or a log."""
    if path.exists():
        assert ours(path) - CORE == set()
        tops = {top for top, _ in imports(path)}
        assert {(path.stem, top) for top in tops & IMPURE} - PURE_AFTER_ALL == set()


@pytest.mark.parametrize("thing", sorted(ONLY_IMPORTER))
def test_one_room_speaks_to_each_outside_thing(thing: str) -> None:
    """pymilter, the command line and TOML are imported in one room each."""
    importers = {path.stem for path in SOURCE.rglob("*.py") if thing in {top for top, _ in imports(path)}}
    assert importers == ONLY_IMPORTER[thing]
