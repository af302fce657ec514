"""The direction of imports (import-linter, see pyproject.toml), and what that cannot say: measured in new processes."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

import undisclosed
from support.paths import PROJECT

SOURCE = Path(undisclosed.__file__).parent

HEAVY = {"alembic", "babel", "jinja2", "sqlalchemy", "typer"}
"""Slow to import, or large: they stay out of the milter's path. (structlog itself imports rich.)"""

STANDARD_LIBRARY_ONLY_MODULES = 150
"""More modules than the root half of the steward needs (114 with Python 3.11)."""

FLAT = {"__init__", "__main__", "log"}
"""The modules outside any room: each new one of them has to be argued for."""


def run_python(program: str) -> str:
    """The output of a program, in a Python that has imported no module of this project."""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def importers(package: str) -> set[str]:
    """The modules of ours that import an outside package anywhere, functions included."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            if package in {name.partition(".")[0] for name in names}:
                found.add(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    return found


def test_the_rooms_import_in_one_direction() -> None:
    """The contracts in pyproject.toml are kept: layers, the pure core, one room for SQL and for the command line."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_room_may_import_only_the_rooms_that_it_imports() -> None:
    """The contracts refuse every other lower room: a new dependency starts with a change of pyproject.toml."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = [set(row.split(" | ")) for row in contracts[0]["layers"]]
    refused: dict[str, set[str]] = {}
    for contract in contracts[1:]:
        for room in contract["source_modules"]:
            refused.setdefault(room, set()).update(contract["forbidden_modules"])
    graph = grimp.build_graph("undisclosed", cache_dir=None)
    for number, row in enumerate(rows[1:], start=1):  # the first row is cli, which may import all
        lower = {f"undisclosed.{room}" for room in set().union(*rows[number + 1 :])}
        for name in row:
            room = f"undisclosed.{name}"
            imported = {
                other for other in lower if graph.direct_import_exists(importer=room, imported=other, as_packages=True)
            }
            assert lower - refused.get(room, set()) == imported, room


def test_few_modules_stand_outside_a_room() -> None:
    """A new file belongs to a room; the ones at the top are what every room may use."""
    assert {path.stem for path in SOURCE.glob("*.py")} == FLAT


def test_nothing_heavy_is_imported_on_a_messages_way() -> None:
    """The milter's room and all below it load no database, template or command line library of themselves.

    The journal's engine is loaded once by `worker.check_journal`, before the fork, so that the workers share it.
    """
    rooms = ("milter", "incidents", "decision", "policy", "addresses")
    modules = sorted(f"undisclosed.{room}.{path.stem}" for room in rooms for path in (SOURCE / room).glob("*.py"))
    loaded = set(run_python(f"import sys, {', '.join(modules)}; print(*sys.modules)").split())
    assert loaded & HEAVY == set()


def test_the_root_half_of_the_steward_imports_the_standard_library_only(capsys: pytest.CaptureFixture[str]) -> None:
    """The root half is one file of this project and the standard library; its modules and memory are printed."""
    program = """
import sys
before = set(sys.modules)
import undisclosed.steward.privileged
loaded = {name.partition(".")[0] for name in sys.modules.keys() - before}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(len(sys.modules), status["VmRSS"].split()[0], *sorted(loaded - set(sys.stdlib_module_names) ))
print(*sorted(name for name in sys.modules if name.startswith("undisclosed")))
"""
    summary, ours = run_python(program).splitlines()
    modules, kilobytes, *others = summary.split()
    with capsys.disabled():
        print(f"\n  the root half: {modules} modules, {int(kilobytes) / 1024:.1f} MB")
    assert others == ["undisclosed"]
    assert ours.split() == ["undisclosed", "undisclosed.steward", "undisclosed.steward.privileged"]
    assert int(modules) < STANDARD_LIBRARY_ONLY_MODULES


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("milter", {"milter.callbacks"}), ("tomllib", {"config.load", "config.gateway_file"})],
)
def test_few_modules_speak_to_each_outside_thing(package: str, allowed: set[str]) -> None:
    """pymilter is imported in one place; TOML where the configuration and the gateway's identity are read."""
    assert importers(package) == allowed
