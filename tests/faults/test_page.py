"""The page of faults: each test that injects one has its row, and each row its test."""

from __future__ import annotations

from pathlib import Path

from faults.proofs import PROOFS
from faults.table import PAGE, README, Row, named_in, page, with_proofs
from faults.write_page import all_tests

ROW = Row("It breaks", {250: 3, 0: 1}, {"worker_died": 2}, {}, "by itself", 0.24, 0, 0, 0, 0)


def test_each_fault_has_its_row() -> None:
    """Otherwise: `tests/faults/run`."""
    tests = all_tests()
    assert tests
    assert sorted(named_in(PAGE.read_text())) == sorted(tests)
    assert f"injects {len(tests)} faults" in README.read_text()


def test_the_sums_of_the_page_are_zero() -> None:
    """The last run found no message over the limit, none lost, none that nobody was told of and none sent twice."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.endswith("` |") and "`test_" in line]
    assert rows
    assert {tuple(row[-5:-1]) for row in rows} == {("0",) * 4}


def test_rows_replace_rows() -> None:
    """Nothing else on the page changes."""
    text = "Before.\n<!-- faults: begin -->\nold\n<!-- faults: end -->\nAfter.\n"
    new = page(text, {"test_x.py::test_it[a]": Row.from_json(ROW.as_json())})
    assert new.startswith("Before.\n<!-- faults: begin -->\n| Fault |")
    assert new.endswith(
        "\n| It breaks | 250 x 3, no answer x 1 | `worker_died` x 2 | - | by itself (0.2 s) | 0 | 0 | 0 | 0"
        " | `test_x.py::test_it[a]` |\n<!-- faults: end -->\nAfter.\n"
    )
    assert named_in(new) == ["test_x.py::test_it[a]"]


def test_each_promise_about_held_mail_names_tests_that_exist() -> None:
    """Otherwise: `tests/faults/run`."""
    tests = Path(__file__).parents[1]
    named = [test.split("::") for several in PROOFS.values() for test in several]
    assert [f"{file}::{name}" for file, name in named if f"def {name}(" not in (tests / file).read_text()] == []
    assert with_proofs(PAGE.read_text(), PROOFS) == PAGE.read_text()
