"""The memory of the steward, with large messages on hold."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import milter, processes
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import NUMBERS, PARENTS, SENDER, Office, letter

MESSAGES = 12
SIZE = 9_500_000
MAX_ANONYMOUS = 150_000
"""kB of both halves together: 77,000 were measured, 59,000 of them before the first message, and 523,000 where all
messages were read at once."""


@pytest.fixture
def office(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Office]:
    """A gateway that holds what shows too many."""
    with Gateway(installed_postfix, outside, user=milter.unprivileged_user()) as gateway:
        gateway.configure(gateway.policy("quarantine"))
        gateway.milter.reload()
        office = Office(gateway)
        yield office
        office.journal.close()
        installed_postfix.wait_until_idle()
        installed_postfix.empty()


def anonymous(pids: list[int]) -> int:
    """RssAnon of these processes, in kB (proc(5))."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
    return total


def test_large_messages_without_a_record(office: Office) -> None:
    """Adopting 30 held messages of 10 MB took 1.24 GB (hostile review, 17). Their size does not matter any more."""
    gateway, line = office.gateway, b"x" * 76 + b"\n"
    with gateway.postfix.deferring():
        for _ in range(MESSAGES):
            large = letter(next(NUMBERS), To=PARENTS[0], Cc="") + line * (SIZE // len(line))
            assert gateway.send(large, sender=SENDER, to=[PARENTS[0]]).accepted
        until(lambda: len(gateway.postfix.queue("deferred")) == MESSAGES, what="all to be deferred")
        gateway.postfix.postsuper("-h", "ALL")
    measured: list[int] = []
    ends = threading.Event()
    with Steward(gateway.config, directory=gateway.state) as steward:

        def measure() -> None:
            while not ends.wait(0.002):
                measured.append(anonymous([steward.pid, *processes.children(steward.pid)]))

        thread = threading.Thread(target=measure, daemon=True)
        thread.start()
        until(lambda: len(steward.log(event="copy_adopted")) == MESSAGES, what="all to be recorded")
        ends.set()
        thread.join()
    assert max(measured) < MAX_ANONYMOUS
