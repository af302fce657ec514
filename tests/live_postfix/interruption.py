"""The calls by which the steward reads and changes journal, hold queue and Postfix, reported before and after each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from undisclosed.incidents.records import State
from undisclosed.journal.journal import Journal
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.reinject import Reinjector

Report = Callable[[str], None]
"""Gets `before CALL` and `after CALL`. It may break something, or end the process."""


@contextmanager
def reported(journal: Journal, queue: HoldQueue, report: Report) -> Iterator[None]:
    """Report the calls of a steward that works with these objects. CALL is the method's name, and a copy's new state.

    Reinjection objects belong to the steward alone, so their class is patched; of journal and queue only these objects.
    """
    methods: tuple[tuple[object, str], ...] = (
        (queue, "read"),
        (queue, "delete"),
        (journal.held, "add_event"),
        (journal.held, "set_state"),
        (journal.held, "record_accepted"),
        (journal.held, "ask"),
        (journal.held, "take"),
        (journal.held, "wait_for_person"),
        (journal.held, "answer"),
        (journal.repeats, "begin_release"),
        (journal.notices, "add"),
        (journal.expiring, "add_reminder"),
        (journal.expiring, "record_seen"),
        (journal.filing, "record_found"),
        (journal.filing, "adopt"),
        (Reinjector, "send"),
    )
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in methods:
            patch.setattr(owner, name, _reporting(getattr(owner, name), name, report))
        yield


def _reporting(method: Callable[..., Any], name: str, report: Report) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        states = [str(arg) for arg in args if isinstance(arg, State)]
        full_name = " ".join([name, *states])
        report(f"before {full_name}")
        result = method(*args, **kwargs)
        report(f"after {full_name}")
        return result

    return call
