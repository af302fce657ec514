"""Sends one breach through the gateway; the results are read from the sink and the queue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lab.client import Client, Outcome, Reply
from lab.postfix import PrivatePostfix
from lab.sink import Delivery, Sink
from play.breaches import Breach

RECIPIENT_FIELDS = ("To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc", "Reply-To", "Apparently-To")
ADDRESS = re.compile(rb"[^\s<>,;:\"'()]+@[^\s<>,;:\"'()]+")
"""Any text with an @ in the middle. Independent of the milter's own address reader, on purpose."""


def visible_strangers(delivery: Delivery, domain: str) -> set[str]:
    """The addresses outside `domain` in the recipient fields of a message, in lower case."""
    found = {
        match.decode("ascii", "backslashreplace").lower()
        for name in RECIPIENT_FIELDS
        for value in delivery.values(name)
        for match in ADDRESS.findall(re.sub(rb"\r\n(?=[ \t])", b"", value))
    }
    return {address for address in found if not address.endswith(f"@{domain}")}


class Trial(NamedTuple):
    """The results of one run.

    `action` is the milter's action, None without a milter. `outcomes` are the replies to each message, `deliveries` the
    messages that reached the sink, `held` the number of messages in the hold queue.
    """

    breach: Breach
    action: str | None
    outcomes: tuple[Outcome, ...]
    deliveries: tuple[Delivery, ...]
    held: int

    @property
    def accepted(self) -> int:
        """The number of messages that were accepted."""
        return sum(outcome.accepted for outcome in self.outcomes)

    @property
    def reply(self) -> Reply:
        """The last reply to the first message."""
        return self.outcomes[0].final

    @property
    def shown(self) -> list[int]:
        """For each message at the sink, the number of external addresses in it."""
        return [len(visible_strangers(delivery, self.breach.domain)) for delivery in self.deliveries]

    @property
    def readers(self) -> list[int]:
        """For each message at the sink, the number of its external recipients."""
        return [len(_outside(delivery.recipients, self.breach.domain)) for delivery in self.deliveries]

    def broken_promises(self) -> Iterator[str]:
        """Each deviation from what the action promises, in words."""
        sent = len(self.breach.letters)
        people = {person.address for letter in self.breach.letters for person in letter.people}
        reached = _outside((to for delivery in self.deliveries for to in delivery.recipients), self.breach.domain)
        seen = set().union(*(visible_strangers(delivery, self.breach.domain) for delivery in self.deliveries))
        codes = {outcome.final.code for outcome in self.outcomes}
        delivered = self.action in (None, "warn", "rewrite")
        if delivered and reached != people:
            yield f"{len(reached)} of {len(people)} people outside were reached"
        if delivered and len(self.deliveries) != sent:
            yield f"{len(self.deliveries)} messages got out, of {sent}"
        if not delivered and self.deliveries:
            yield f"{len(self.deliveries)} messages got out, and none should have"
        if self.action not in (None, "warn") and seen:
            yield f"{len(seen)} strangers' addresses were visible outside"
        if self.action in (None, "warn") and seen != people:
            yield f"{len(seen)} of {len(people)} addresses were visible: the message did not arrive as it was sent"
        if self.held != (sent if self.action == "quarantine" else 0):
            yield f"{self.held} messages are in the hold queue"
        if codes != ({550} if self.action == "reject" else {250}):
            yield f"the sender was answered {sorted(codes)}"


def _outside(addresses: Iterable[str], domain: str) -> set[str]:
    return {address.lower() for address in addresses if not address.lower().endswith(f"@{domain}")}


def run(breach: Breach, action: str | None, postfix: PrivatePostfix, sink: Sink) -> Trial:
    """Send every message of the breach in one session, wait until Postfix is idle, and collect the results.

    The queue is empty afterwards, held messages included. `action` is only recorded: the milter is configured before.
    """
    sink.clear()
    with Client(postfix.port) as client:
        outcomes = tuple(
            client.send(letter.message, sender=letter.sender, to=letter.recipients, options=["BODY=8BITMIME"])
            for letter in breach.letters
        )
    postfix.wait_until_idle()
    held = len(postfix.queue("hold"))
    postfix.empty()
    return Trial(breach, action, outcomes, sink.deliveries, held)
