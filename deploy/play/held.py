"""One held message, as its sender and its administrator see it: notice, list, release, and the delivered messages."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
from collections import Counter
from collections.abc import Iterator, Sequence
from email import message_from_bytes
from email import policy as email_policy
from email.message import EmailMessage
from typing import NamedTuple

from lab import milter
from lab.client import Outcome
from lab.gateway import Gateway
from lab.sink import Delivery
from lab.waiting import until
from play.breaches import Letter
from play.trial import visible_strangers

REFERENCE = re.compile(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}\b")
WITHIN = 20.0
"""Seconds within which the sender of a held message must have the notice."""


class Command(NamedTuple):
    """A command that was run: its arguments after `undisclosed`, its output, its exit status."""

    arguments: tuple[str, ...]
    output: str
    status: int


class Story(NamedTuple):
    """The results for one held message.

    `early` are the messages delivered while it was held, `notice` is the sender's notice, `late` are the messages
    delivered after the release, `left` is the number of messages still held.
    """

    letter: Letter
    outcome: Outcome
    early: tuple[Delivery, ...]
    notice: Delivery
    listing: Command
    release: Command
    late: tuple[Delivery, ...]
    left: int

    @property
    def domain(self) -> str:
        """The domain of the sender's organisation."""
        return self.letter.sender.rpartition("@")[2]

    @property
    def received(self) -> Counter[str]:
        """The number of times each recipient received the message after the release."""
        return Counter(recipient for delivery in self.late for recipient in delivery.recipients)

    @property
    def shown(self) -> int:
        """The number of external addresses in the messages delivered after the release."""
        return len(set().union(*(visible_strangers(delivery, self.domain) for delivery in self.late)))

    def broken_promises(self) -> Iterator[str]:
        """Each deviation from what held mail promises, in words."""
        words = " ".join(part.get_content() for part in parts(self.notice))
        reference = self.release.arguments[2]
        if not self.outcome.accepted:
            yield f"the sender was answered {self.outcome.final.code}"
        if self.early:
            yield f"{len(self.early)} messages got out while it was held"
        if self.notice.recipients != (self.letter.sender,):
            yield f"the notice went to {', '.join(self.notice.recipients)}"
        if told := [person.address for person in self.letter.people if person.address in words]:
            yield f"the notice shows {len(told)} addresses"
        if self.listing.status or reference not in self.listing.output:
            yield f"the list of held mail does not show {reference}"
        if self.release.status:
            yield f"the release ended with status {self.release.status}"
        if self.received != Counter(self.letter.recipients):
            copies, reached = self.received.total(), len(self.received)
            yield f"{copies} copies got out to {reached} of {len(self.letter.recipients)} people"
        if self.shown:
            yield f"{self.shown} strangers' addresses were visible after the release"
        if self.left:
            yield f"{self.left} messages are still on hold"


def parts(delivery: Delivery) -> Sequence[EmailMessage]:
    """The text parts of a delivered message: plain, then HTML."""
    message = message_from_bytes(delivery.data, policy=email_policy.default)
    return [part for part in message.walk() if isinstance(part, EmailMessage) and not part.is_multipart()]


def play(gateway: Gateway, letter: Letter, width: int) -> Story:
    """Send a message that the policy holds, wait for the sender's notice, and release the message as bcc.

    The steward must be running. `width` is the width of the commands' terminal. Raises TimeoutError if no notice
    arrives, and RuntimeError if it names no reference.
    """
    sink = gateway.sink
    sink.clear()
    outcome = gateway.send(letter.message, sender=letter.sender, to=letter.recipients, options=["BODY=8BITMIME"])
    notice = until(lambda: _notices(sink.deliveries), within=WITHIN, what="the notice about the held message")[0]
    gateway.settle()
    early = _letters(sink.deliveries)
    found = REFERENCE.search(parts(notice)[0].get_content())
    if found is None:
        raise RuntimeError("the notice names no reference:\n" + notice.data.decode(errors="replace"))
    listing = on_terminal(gateway, width, "held", "list")
    sink.clear()
    release = on_terminal(gateway, width, "held", "release", found[0], "--as", "bcc")
    gateway.settle()
    left = len(gateway.postfix.queue("hold"))
    return Story(letter, outcome, early, notice, listing, release, _letters(sink.deliveries), left)


def _notices(deliveries: Sequence[Delivery]) -> tuple[Delivery, ...]:
    return tuple(delivery for delivery in deliveries if not delivery.sender)


def _letters(deliveries: Sequence[Delivery]) -> tuple[Delivery, ...]:
    return tuple(delivery for delivery in deliveries if delivery.sender)


def on_terminal(gateway: Gateway, width: int, *arguments: str) -> Command:
    """Run an `undisclosed` command on a terminal that is `width` columns wide; its output keeps the colours."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
            command = [str(milter.console_script()), *arguments, "--config", str(gateway.config)]
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TERM": "xterm", "COLUMNS": str(width)},
            )
        finally:
            os.close(theirs)
        with child:
            output = b"".join(_read(terminal.fileno()))
    lines = [line.rstrip() for line in output.decode(errors="replace").splitlines()]
    return Command(arguments, "\n".join(lines).strip("\n"), child.returncode)


def _read(terminal: int) -> Iterator[bytes]:
    """The output on a pseudoterminal until its other end is closed: reading then fails with EIO (pty(7))."""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            return
        if not chunk:
            return
        yield chunk
