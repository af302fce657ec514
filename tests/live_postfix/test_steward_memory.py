"""The memory of the steward, with large messages on hold."""

from __future__ import annotations

import contextlib
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import processes
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import NUMBERS, PARENTS, SENDER, Office, letter, new_gateway
from undisclosed.incidents.records import ReleaseMode

MESSAGES = 12
SIZE = 9_500_000
LARGE = 50_000_000
MAX_MEMORY = 100_000
"""kB of both halves together. Before the first message they have 59,000."""

MODES: tuple[ReleaseMode, ...] = ("bcc", "split", "unchanged")

MULTIPART = {"MIME-Version": "1.0", "Content-Type": 'multipart/mixed; boundary="b"'}

PARTS = (
    b"--b\nContent-Type: text/plain\n\nDear all\n.\n"
    b"--b\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n"
)
"""A text and an attachment: the whole body is read for obstacles before it is sent with the recipients hidden."""

LINES = b"x" * 76 + b"\n.\n..dots\n" + b"y" * 3000 + b"\n\r\n\x00\xff\n"
"""Lines that SMTP or a queue file has in another form: with dots, too long, and with control bytes."""


@pytest.fixture
def office(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Office]:
    """A gateway that holds what shows too many, and takes large messages."""
    with new_gateway(installed_postfix, outside) as gateway:
        gateway.configure(gateway.policy("quarantine"))
        gateway.milter.reload()
        installed_postfix.set(message_size_limit="0", mailbox_size_limit="0")
        outside.clear()
        office = Office(gateway)
        yield office
        office.journal.close()
        installed_postfix.wait_until_idle()
        installed_postfix.empty()
        outside.clear()


def memory(pid: int) -> int:
    """The kB of memory of a process that are no file's: RssAnon, RssShmem (proc(5)) and its open memory files."""
    kilobytes = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                kilobytes += int(line.split()[1])
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()).startswith("/memfd:"):
                    kilobytes += link.stat().st_size // 1024
    return kilobytes


def root_half(pid: int) -> list[int]:
    """The root half of a steward. Without other children: one that is sendmail(1) next shares its parent's memory."""
    found = []
    for child in processes.children(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"undisclosed.steward.privileged" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@contextmanager
def measured(office: Office) -> Iterator[tuple[Steward, list[int]]]:
    """A steward, and the memory of both of its halves at each moment."""
    figures: list[int] = []
    ends = threading.Event()
    with Steward(office.gateway.config, directory=office.gateway.state) as steward:

        def measure() -> None:
            while not ends.wait(0.002):
                figures.append(sum(map(memory, [steward.pid, *root_half(steward.pid)])))

        until(lambda: root_half(steward.pid), what="the root half")
        thread = threading.Thread(target=measure, daemon=True)
        thread.start()
        try:
            yield steward, figures
        finally:
            ends.set()
            thread.join()


def test_large_messages_without_a_record(office: Office) -> None:
    """Adopting 30 held messages of 10 MB took 1.24 GB (hostile review, 17). Their size does not matter any more."""
    gateway, line = office.gateway, b"x" * 76 + b"\n"
    with gateway.postfix.deferring():
        for _ in range(MESSAGES):
            large = letter(next(NUMBERS), To=PARENTS[0], Cc="") + line * (SIZE // len(line))
            assert gateway.send(large, sender=SENDER, to=[PARENTS[0]]).accepted
        until(lambda: len(gateway.postfix.queue("deferred")) == MESSAGES, what="all to be deferred")
        gateway.postfix.postsuper("-h", "ALL")
    with measured(office) as (steward, figures):
        until(lambda: len(steward.log(event="copy_adopted")) == MESSAGES, what="all to be recorded")
    assert max(figures) < MAX_MEMORY


@pytest.mark.parametrize("mode", MODES)
def test_the_release_of_a_large_message(office: Office, mode: ReleaseMode) -> None:
    """A message of 50 MB took 368 to 417 MB (milter-reports, 37). Its size does not matter any more, in any mode."""
    gateway = office.gateway
    gateway.postfix.set(default_transport="discard", relay_transport="discard", relayhost="")
    line = b64encode(b"x" * 57) + b"\n"
    large = letter(next(NUMBERS), **MULTIPART) + PARTS + line * (LARGE // len(line)) + b"--b--\n"
    assert gateway.send(large, sender=SENDER, to=PARENTS).accepted
    with measured(office) as (steward, figures):
        until(office.on_hold, what="the message to be on hold")
        [incident] = until(office.journal.incidents.search, what="its record")
        request = office.ask(incident, "release", mode)
        [answered] = until(lambda: office.journal.held.answered([request.id]), what="the release", within=120)
        assert answered.state == "done", answered.answer
        assert steward.log(event="request_done")
    assert max(figures) < MAX_MEMORY, f"{mode} took {max(figures)} kB"


@pytest.mark.parametrize("mode", MODES)
def test_every_byte_of_a_large_message(office: Office, mode: ReleaseMode) -> None:
    """A message that is read and sent in pieces arrives as the same message that was not held (milter-reports, 38)."""
    gateway = office.gateway
    body = LINES * 700
    for number, people in ((1, PARENTS[:1]), (2, PARENTS)):
        fields = {"To": ", ".join(people), "Subject": str(number)}
        assert gateway.send(letter(next(NUMBERS), **fields) + body, sender=SENDER, to=PARENTS[:2]).accepted
    office.round()
    [incident] = office.journal.incidents.search()
    office.ask(incident, "release", mode)
    office.round()
    gateway.settle()
    bodies = {subject: {delivery.body for delivery in gateway.sink.deliveries if subject in delivery.header}
              for subject in (b"Subject: 1\r\n", b"Subject: 2\r\n")}  # fmt: skip
    assert len(bodies[b"Subject: 1\r\n"]) == 1
    assert bodies[b"Subject: 1\r\n"] == bodies[b"Subject: 2\r\n"]
