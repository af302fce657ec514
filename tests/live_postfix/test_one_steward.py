"""One steward takes care of a hold queue, whatever its host is called (held-mail review, findings 10 B and 16)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from lab import milter, processes
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, PARENTS, Office
from undisclosed.incidents.records import State


def second_steward(office: Office) -> subprocess.CompletedProcess[str]:
    """Start a steward as a person does in a shell, and wait until it ends by itself."""
    command = [str(milter.console_script()), "steward", "--user", "root", "--config", str(office.gateway.config)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)


def test_a_second_steward_refuses_to_start(office: Office) -> None:
    """It names the process of the first one, which goes on; with status 1 its unit would try again."""
    message_id = office.send()
    with Steward(office.gateway.config, directory=office.gateway.state) as first:
        until(lambda: office.state(office.incident(message_id)) is State.HELD, what="the message to be held")
        refused = second_steward(office)
        assert refused.returncode == 1
        assert f"another steward takes care of this hold queue already (process {first.pid})" in refused.stderr
        done = office.gateway.command("held", "release", office.incident(message_id).reference, "--as", "split")
        assert done.returncode == 0
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)


def test_a_steward_starts_after_one_that_was_killed(office: Office) -> None:
    """The lock ends with the root half, which ends by itself."""
    steward = Steward(office.gateway.config, directory=office.gateway.state)
    for _ in range(2):
        steward.start()
        steward.kill()
    with steward:
        assert steward.is_running


class RenamedSteward(Steward):
    """A steward on a host that has been given another name: in a UTS namespace of its own."""

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        run = f"hostname renamed && exec {milter.console_script()} steward --user root --config {self.config}"
        return processes.start_guarded(["unshare", "-u", "sh", "-c", run], environment=self._environment(), output=log)


@contextmanager
def renamed(office: Office) -> Iterator[Steward]:
    """A steward under another host name."""
    if subprocess.run(["unshare", "-u", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this host allows no other host name")
    with RenamedSteward(office.gateway.config, directory=office.gateway.state) as steward:
        yield steward


def test_a_renamed_host_is_the_same_gateway(office: Office) -> None:
    """Its held mail is neither found a second time nor stranded; only the name that people see changes."""
    incident = office.held()
    with renamed(office):
        done = office.gateway.command("held", "release", incident.reference, "--as", "bcc")
        assert done.returncode == 0
        assert [record.name.partition(":")[0] for record in office.journal.gateways.all().values()] == ["renamed"]
    assert len(office.journal.incidents.get(incident.id).copies) == 1
    assert office.state(incident) is State.RELEASED
    assert office.received() == dict.fromkeys([*PARENTS[:3], COLLEAGUE], 1)
