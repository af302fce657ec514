"""Faults are injected into one gateway, under load; each test begins with a milter of its own, in order.

The milter runs as the user `nobody`, without rights as in production, unless that user may not read the checkout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from faults.held import Held, empty_journal, journal_file
from faults.relay import Relay
from faults.trial import Beside, Trial, close_all, fresh
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.stage import Stage, attached
from support.wall_clock import Clock


@pytest.fixture(scope="session")
def attached_stage() -> Iterator[Stage]:
    """The gateway of all faults."""
    with Sink() as sink, PrivatePostfix(outside=sink.port) as postfix, attached(postfix, sink) as stage:
        # The 30 s that attach lets Postfix wait for an answer would be the length of some tests.
        postfix.set(smtpd_milters=postfix.get("smtpd_milters").replace("command_timeout=30s", "command_timeout=5s"))
        yield stage


@pytest.fixture
def stage(attached_stage: Stage) -> Stage:
    """The gateway, with a milter that was started just now."""
    fresh(attached_stage)
    return attached_stage


@pytest.fixture(scope="module")
def relay(attached_stage: Stage) -> Iterator[Relay]:
    """A relay between Postfix and the milter."""
    postfix = attached_stage.postfix
    directory = postfix.queue_dir / "undisclosed"
    before = {name: postfix.get(name) for name in ("smtpd_milters", "non_smtpd_milters")}
    with Relay(directory / "relay.sock", directory / "milter.sock") as relay:
        postfix.set(**{name: value.replace("milter.sock", "relay.sock") for name, value in before.items()})
        yield relay
        postfix.set(**before)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The clock of the processes that this test starts with it."""
    with Clock() as clock:
        yield clock


@pytest.fixture(scope="session")
def beside() -> Iterator[Beside]:
    """The steward beside the milter."""
    beside = Beside()
    yield beside
    beside.stop()


@pytest.fixture
def held(stage: Stage, beside: Beside, record_property: Callable[[str, object], None]) -> Iterator[Held]:
    """One fault about held mail, and its observations."""
    beside.stop()
    empty_journal(stage)
    with Held(stage, record_property) as held:
        yield held
    stage.postfix.empty()


@pytest.fixture
def trial(stage: Stage, beside: Beside, record_property: Callable[[str, object], None]) -> Iterator[Trial]:
    """One fault and its observations."""
    close_all(journal_file(stage))
    yield Trial(stage, beside.start(stage.gateway), record_property)
    beside.pause(journal_file(stage))
