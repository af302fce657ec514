"""The simulated Postfix of tests/model answers as a real one: the same operations are played on both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from lab.gateway import Gateway
from lab.waiting import until
from live_postfix.office import letter
from model.hold_queue import SimulatedHoldQueue
from model.operations import OPERATIONS, PEOPLE, Side
from model.postfix import SimulatedPostfix
from undisclosed.steward.hold_queue import HoldQueue

SENDER = "clerk@council.test"
NUMBERS = count(1)


class RealSide:
    """A private Postfix. Mail that the milter must not hold shows too few addresses."""

    def __init__(self, gateway: Gateway, queue: HoldQueue) -> None:
        self.queue = queue
        self._gateway = gateway
        self._postfix = gateway.postfix
        self._read = 0
        self.log()
        self._is_still = False

    def hold(self, *, by_milter: bool = True, by_access: bool = False) -> str:
        """See Side."""
        before = set(self.queue.list().held)
        access = "check_sender_access static:HOLD" if by_access else ""
        if self._postfix.get("smtpd_sender_restrictions") != access:
            self._postfix.set(smtpd_sender_restrictions=access)
        assert self._gateway.send(message(next(NUMBERS), by_milter), sender=SENDER, to=PEOPLE).accepted
        [new] = set(self.queue.list().held) - before
        return new

    def postsuper(self, *arguments: str) -> str:
        """See Side."""
        return self._postfix.run("postsuper", *arguments).stderr

    @contextmanager
    def still(self) -> Iterator[None]:
        """See Side."""
        with self._postfix.deferring():
            self._is_still = True
            yield
            self._is_still = False

    def settle(self) -> None:
        """See Side."""
        if self._is_still:
            until(lambda: {"hold", "deferred"} >= {row["queue_name"] for row in self._postfix.queue()}, what="qmgr")
        else:
            self._postfix.wait_until_idle()

    def rename(self) -> None:
        """See Side."""
        self._postfix.set(enable_long_queue_ids="no")
        self._postfix.run("postsuper")

    def log(self) -> Sequence[str]:
        """See Side. The log is written by another process: wait for a line that follows all others."""
        mark = f"mark {next(NUMBERS)}"
        self._postfix.run("postlog", mark)
        self._postfix.wait_for_log(mark)
        lines = self._postfix.log_lines()
        new, self._read = lines[self._read :], len(lines)
        # Postfix 3.10 logs the milter's reason, older versions a text of their own.
        told = [
            re.sub(r"(: milter-hold: \S+ from \S+: ).*; from=<", r"\1milter triggers HOLD action; from=<", line)
            for line in new
        ]
        return [re.sub(r"^.*? postfix/(\w+)\[\d+\]", r"\1", line) for line in told]

    def delivered(self) -> Sequence[tuple[str, ...]]:
        """See Side."""
        return [delivery.recipients for delivery in self._gateway.sink.deliveries]


class SimulatedSide:
    """The simulation. Its time is that of the first message."""

    def __init__(self, directory: Path) -> None:
        self.postfix = SimulatedPostfix(lambda: datetime(2026, 3, 1, 12, tzinfo=UTC), directory / "mail.log")
        self.queue: HoldQueue = SimulatedHoldQueue(self.postfix, lambda _: None, lambda: "250")
        self._read = 0
        self._is_still = False

    def hold(self, *, by_milter: bool = True, by_access: bool = False) -> str:
        """See Side."""
        text = message(next(NUMBERS), by_milter)
        file = self.postfix.begin(text, SENDER, PEOPLE)
        self.postfix.hold(file, by_milter=by_milter, by_access=by_access)
        return file.queue_id

    def postsuper(self, *arguments: str) -> str:
        """See Side."""
        return self.postfix.run("postsuper", *arguments)[1].decode()

    @contextmanager
    def still(self) -> Iterator[None]:
        """See Side."""
        self._is_still = True
        yield
        self._is_still = False

    def settle(self) -> None:
        """See Side."""
        if self._is_still:
            self.postfix.pick_up()
        else:
            self.postfix.deliver()

    def rename(self) -> None:
        """See Side."""
        self.postfix.rename()

    def log(self) -> Sequence[str]:
        """See Side."""
        lines = self.postfix.log.read_text().splitlines()
        new, self._read = lines[self._read :], len(lines)
        return [re.sub(r"^.*? postfix/(\w+)\[\d+\]", r"\1", line) for line in new]

    def delivered(self) -> Sequence[tuple[str, ...]]:
        """See Side."""
        return [delivery.recipients for delivery in self.postfix.deliveries]


def message(number: int, many: bool) -> bytes:
    """A letter that shows too many addresses, or few."""
    return letter(number, **({} if many else {"To": PEOPLE[0], "Cc": PEOPLE[2]}))


@pytest.fixture
def real(standing: Gateway) -> Iterator[Side]:
    """A real Postfix with nothing held or delivered."""
    standing.postfix.empty()
    standing.settle()
    standing.sink.clear()
    if standing.postfix.get("enable_long_queue_ids") != "yes" or standing.postfix.get("smtpd_sender_restrictions"):
        standing.postfix.set(enable_long_queue_ids="yes", smtpd_sender_restrictions="")
    with HoldQueue(standing.postfix.config_dir) as queue:
        yield RealSide(standing, queue)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_simulation_answers_as_postfix(real: Side, tmp_path: Path, name: str) -> None:
    """The same operation shows the same on both."""
    assert OPERATIONS[name](SimulatedSide(tmp_path)) == OPERATIONS[name](real)
