"""The host and its processes: a second steward, another host name, a milter or Postfix away, a root half killed."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import IO

import pytest

from faults.held import Held
from lab import processes
from lab.milter import console_script
from lab.steward import Steward
from lab.waiting import until
from undisclosed.steward.hold_queue import HoldQueueError


def test_two_stewards(held: Held) -> None:
    """One that is started beside the service does not become ready; each recipient gets one copy."""
    sent = held.hold()
    held.office.ask(held.incident(sent), "release", "split")
    with pytest.raises(RuntimeError, match="steward"), held.other_steward():
        pass
    held.rounds()
    held.report("A second steward started beside the first", "nothing to do: it does not start")


class RenamedSteward(Steward):
    """A steward on a host that was renamed."""

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        renamed = ["unshare", "--uts", "sh", "-c", 'hostname renamed.test && exec "$@"', "sh"]
        command = [str(console_script()), "steward", "--config", str(self.config), "--user", "root"]
        return processes.start_guarded([*renamed, *command], environment=self._environment(), output=log)


def test_a_renamed_host(held: Held) -> None:
    """Mail that was held under the old name is the same gateway's: released once, its request answered."""
    held.send("quarantine")
    sent = held.hold()
    request = held.office.ask(held.incident(sent), "release", "bcc")
    steward = held.process(RenamedSteward)
    [answer] = until(lambda: held.office.journal.held.answered([request.id]), what="the answer")
    assert answer.state == "done"
    held.process_rounds(steward)
    held.report("The host renamed, with mail on hold and a request open", "nothing to do")


def test_the_root_half_is_killed(held: Held) -> None:
    """The steward ends for its service manager to start it again, and nothing is sent twice."""
    sent = held.hold()
    held.office.ask(held.incident(sent), "release", "split")
    held.at("after record_accepted", lambda: os.kill(held.root_half, signal.SIGKILL))
    with pytest.raises(HoldQueueError):
        held.rounds()
    held.restart()
    held.rounds()
    held.report("The steward's root half killed in the middle of a release", "by itself: systemd starts it again")


def test_the_release_listener_is_missing(held: Held) -> None:
    """Postfix's master.cf restored from a backup: the release fails with its remedy; the mail stays held."""
    sent = held.hold()
    postfix = held.stage.postfix
    request = held.office.ask(held.incident(sent), "release", "bcc")
    with held.without_the_listener():
        held.rounds()
        assert held.office.answer(request)[0] == "failed"
        assert sent.number in held.queued
    again = held.office.ask(held.incident(sent), "release", "bcc")
    held.rounds()
    assert (held.office.answer(again)[0], postfix.queue("hold")) == ("done", [])
    held.report("The private listener missing in master.cf", "`undisclosed postfix attach`, then ask again")


def test_postfix_is_stopped(held: Held) -> None:
    """Its tools fail; nothing is concluded from that, and afterwards all goes on."""
    sent = held.hold()
    held.office.ask(held.incident(sent), "release", "split")
    postfix = held.stage.postfix
    postfix.stop()
    try:
        for _ in range(2):
            try:
                held.round()
            except HoldQueueError:
                continue
    finally:
        postfix.restart()
    held.rounds()
    held.report("Postfix stopped, with mail on hold and a request open", "by itself, once Postfix runs")
