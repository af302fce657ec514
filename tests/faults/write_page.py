"""Run the faults' tests, and write the rows that they report into the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from faults.proofs import PROOFS
from faults.table import PAGE, README, Row, page, with_number, with_proofs

HERE = Path(__file__).parent


class Collector:
    """A plugin of pytest's that keeps each test's row, in the order of the tests."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the row of a test that passed."""
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == "fault" and isinstance(value, dict):
                    self.rows[report.nodeid.rpartition("/")[2]] = Row.from_json(value)


def main(arguments: list[str]) -> int:
    """Returns pytest's exit status; the page is written if it is 0 and no fault was left out."""
    collector = Collector()
    # The page's own test is left out: it passes only after the page is written.
    status = pytest.main([str(HERE), f"--ignore={HERE / 'test_page.py'}", *arguments], plugins=[collector])
    if status == pytest.ExitCode.OK and set(collector.rows) == set(all_tests()):
        PAGE.write_text(with_proofs(page(PAGE.read_text(), collector.rows), PROOFS))
        README.write_text(with_number(README.read_text(), len(collector.rows)))
        print(f"{len(collector.rows)} faults written to {PAGE}")
    else:
        print(f"{PAGE} is unchanged: not every fault was injected, or not every test passed")
    return int(status)


def all_tests() -> list[str]:
    """Every test that injects a fault, by the name that its row has."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", str(HERE)]
    collected = subprocess.run(
        [*command, f"--ignore={HERE / 'test_page.py'}"], capture_output=True, text=True, check=True, cwd=HERE.parents[1]
    ).stdout
    return [line.rpartition("/")[2] for line in collected.splitlines() if "::" in line]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
