"""The same deaths on an inet socket, where no file is to be put in place and a port has to be free again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.test_workers import killed_again_and_again, supervisor_killed
from faults.trial import Trial
from lab import processes
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.stage import Stage, attached


@pytest.fixture(scope="module")
def attached_stage() -> Iterator[Stage]:
    """The gateway of this file."""
    socket = f"inet:{processes.reserve_port()}@127.0.0.1"
    with Sink() as sink, PrivatePostfix(outside=sink.port) as postfix, attached(postfix, sink, socket=socket) as stage:
        yield stage


def test_a_worker_is_killed_again_and_again_on_inet(trial: Trial) -> None:
    """As on a unix socket."""
    killed_again_and_again(trial)
    trial.report("One worker after another killed, on an inet socket", "by itself: the supervisor starts new ones")


def test_the_supervisor_is_killed_on_inet(trial: Trial) -> None:
    """As on a unix socket: no worker that stays keeps the port from the next supervisor."""
    supervisor_killed(trial)
    trial.report("The supervisor killed, on an inet socket", "as on a unix socket, when it is started again")
