"""docs/architecture.md and its picture against the code."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from support.paths import PROJECT

MAX_LEVELS = 10


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    """The program that draws the picture."""
    spec = importlib.util.spec_from_file_location("draw_architecture", PROJECT / "docs" / "draw_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_current(draw: ModuleType) -> None:
    """Otherwise: `.venv/bin/python docs/draw_architecture.py`."""
    assert draw.drawing() == draw.PICTURE.read_text()


def test_rooms_stand_on_few_levels_without_a_circle(draw: ModuleType) -> None:
    """`levels` raises CycleError where rooms import each other."""
    levels = draw.levels(draw.imports())
    assert max(levels.values()) + 1 <= MAX_LEVELS
    assert levels["addresses"] == max(levels.values())


def test_an_arrow_stands_only_where_no_longer_way_does(draw: ModuleType) -> None:
    """A graph small enough to check by eye: a -> c follows from a -> b -> c."""
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}
    assert draw.reduced(graph) == [("a", "b"), ("b", "c"), ("d", "c")]
    assert draw.levels(graph) == {"a": 0, "d": 0, "b": 1, "c": 2}
