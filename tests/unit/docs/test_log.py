"""docs/log.md against the code: every event with its level and fields, and nothing that no code writes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from support.factories import policy, rule, strangers
from support.recorders import SessionRecorder
from undisclosed import log
from undisclosed.milter.answers import Continue
from undisclosed.milter.session import Runtime, Session, Snapshot

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "log.md").read_text()
LEVELS = frozenset({"debug", "info", "warning", "error", "critical", "exception"})
LOGGERS = frozenset({"log", "_log", "logger"})
"""The names under which the code keeps a logger."""

SNAKE_CASE = re.compile(r"[a-z]+(_[a-z]+)*")


class Event(NamedTuple):
    """One event as the code or the page has it."""

    name: str
    level: str
    fields: frozenset[str]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _bound(tree: ast.AST) -> dict[tuple[str, int], set[str]]:
    """The fields that `name = log.bind(…)` binds, by the name and the number of the enclosing function's first line."""
    bound = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                match node:
                    case ast.Assign([ast.Name(name)], ast.Call(ast.Attribute(logger, "bind"), keywords=keywords)) if (
                        _name(logger) in LOGGERS
                    ):
                        bound[name, function.lineno] = {str(keyword.arg) for keyword in keywords}
    return bound


def _names(event: ast.expr, where: str) -> list[str]:
    match event:
        case ast.Constant(str(name)):
            return [name]
        case ast.IfExp(_, ast.Constant(str(one)), ast.Constant(str(other))):
            return [one, other]
    raise AssertionError(f"{where}: write the event's name as a string")


def _events(source: str, where: str) -> Iterator[Event]:
    tree = ast.parse(source)
    bound = _bound(tree)
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        for node in ast.walk(function):
            match node:
                case ast.Call(ast.Attribute(logger, level), [event, *_], keywords) if (
                    level in LEVELS and _name(logger) in LOGGERS
                ):
                    fields = {"exception" if key.arg == "exc_info" else str(key.arg) for key in keywords}
                    fields |= bound.get((_name(logger), function.lineno), set())
                    for name in _names(event, f"{where}:{node.lineno}"):
                        yield Event(name, level, frozenset(fields))


def in_the_code() -> dict[str, list[Event]]:
    """Every call of a logger, by the name of its event."""
    found: dict[str, list[Event]] = {}
    for file in sorted((ROOT / "src").rglob("*.py")):
        for event in _events(file.read_text(), str(file.relative_to(ROOT))):
            found.setdefault(event.name, []).append(event)
    return found


def on_the_page() -> dict[str, Event]:
    """The rows of the tables of events."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: Event(name, level, frozenset(re.findall(r"`(\w+)`", fields))) for name, level, fields in rows}


CODE = in_the_code()


def test_the_page_has_every_event_of_the_code_and_no_other() -> None:
    """`message` has a section of its own."""
    assert sorted(on_the_page()) == sorted(CODE.keys() - {"message"})


@pytest.mark.parametrize("name", sorted(CODE.keys() - {"message"}))
def test_an_event_has_the_level_and_the_fields_that_the_page_says(name: str) -> None:
    """If two calls write one event, the page has the fields of both."""
    row, calls = on_the_page()[name], CODE[name]
    assert {call.level for call in calls} == {row.level}
    assert frozenset().union(*(call.fields for call in calls)) == row.fields


@pytest.mark.parametrize("name", sorted(CODE))
def test_an_event_has_a_name_in_snake_case(name: str) -> None:
    """An administrator can then search for it as one word."""
    assert SNAKE_CASE.fullmatch(name)


def test_a_message_has_the_fields_that_the_page_says() -> None:
    """Messages for every optional field: a login, an obstacle, a journal that fails, monitor mode."""
    section = PAGE.partition("## One message, one line")[2].partition("\n## ")[0]
    always: set[str] = set()
    sometimes: set[str] = set()
    for names, when in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", section, re.MULTILINE):
        (always if when == "always" else sometimes).update(re.findall(r"`(\w+)`", names))
    lines = []
    for mode in ("enforce", "monitor"):
        own = policy(mode=mode, rules=[rule(more_than_addresses=10, action="rewrite")])
        for signature in ((), (("Content-Type", "multipart/signed"),)):
            with structlog.testing.capture_logs() as captured:
                session = Session(Runtime(Snapshot(own, b"0" * 32, "mx1"), log.get(), SessionRecorder(fails=True)))
                session.connect("127.0.0.1", 40000)
                session.mail("<clerk@council.test>", "clerk")
                session.rcpt("<parent@family.test>")
                fields = (("From", "clerk@council.test"), ("To", ", ".join(strangers(11))), *signature)
                for name, value in fields:
                    session.header(name, value)
                answer = session.end_of_header("4dX1")
                if isinstance(answer, Continue):
                    answer = session.end_of_message()
                session.answered(answer)
            lines += captured
    keys = [line.keys() - {"event", "log_level"} for line in lines]
    assert set().union(*keys) == always | sometimes
    assert set.intersection(*map(set, keys)) >= always
