"""Operations on a hold queue, each with what it shows. They are played on the simulation and on a real Postfix.

Queue ids differ, so each is replaced by the letter of its message; times and sizes of fields that Postfix adds too.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final, Protocol

from undisclosed.decision.queue_file import Recipient
from undisclosed.steward.hold_queue import HoldQueue, HoldQueueError
from undisclosed.steward.reinject import ReinjectError, Reinjector

PEOPLE: Final = ("parent1@family1.example", "parent2@family2.example", "head@school.council.test")
Observation = object


class Side(Protocol):
    """A Postfix with a milter that holds everything, real or simulated."""

    queue: HoldQueue

    def hold(self, *, by_milter: bool = True, by_access: bool = False) -> str:
        """Send a message that the milter, an access table, or both hold; returns its queue id."""

    def postsuper(self, *arguments: str) -> str:
        """Run postsuper(1); returns its standard error."""

    def still(self) -> AbstractContextManager[None]:
        """Nothing is delivered in the block."""

    def settle(self) -> None:
        """Deliver everything that is not on hold; in a `still` block, take up what is in maildrop."""

    def rename(self) -> None:
        """Turn the long queue ids off, and let Postfix check its queue."""

    def log(self) -> Sequence[str]:
        """The lines of the mail log since the last call: program and text."""

    def delivered(self) -> Sequence[tuple[str, ...]]:
        """The recipients of each message that was delivered."""


def listed(side: Side, names: Mapping[str, str]) -> Observation:
    """The listing, with names in place of queue ids."""
    listing = side.queue.list()
    held = {names.get(queue_id, "new"): (entry.sender, entry.recipients) for queue_id, entry in listing.held.items()}
    return held, sorted(names.get(queue_id, "new") for queue_id in listing.elsewhere), len(listing.unreadable)


def logged(side: Side, names: Mapping[str, str]) -> Observation:
    """The lines about holding and about postsuper, with names in place of queue ids."""
    lines = []
    for line in side.log():
        if re.search(r"hold|Hold|postsuper|orig_id=", line):
            for queue_id, name in names.items():
                line = line.replace(queue_id, name)
            line = re.sub(r"\b[0-9A-F]{10,12}\b|\b4\w{10,15}\b", "NEW", line)
            lines.append(re.sub(r"(from|to|helo)=<.*?>|uid=\d+|RCPT from \S+|from \w+\[[\d.]+\]", "", line))
    return lines


def held_by_the_milter(side: Side) -> Observation:
    """A message is listed, logged and printed."""
    names = {side.hold(): "A"}
    [file] = side.queue.read(list(names)).values()
    [entry] = side.queue.list().held.values()
    text = re.sub(rb"\A(Received: .*\n([ \t].*\n)*)+|letter-\d+", b"", bytes(file.content))
    people = [recipient.address for recipient in file.recipients]
    same = (file.size, file.arrived, file.queue_id) == (entry.size, entry.arrived, entry.queue_id)
    return listed(side, names), logged(side, names), text, file.sender, people, same, file.client.address


def held_by_an_access_table(side: Side) -> Observation:
    """There is no line of the milter's, whether or not it wanted to hold the message too."""
    names = {side.hold(by_access=True): "A", side.hold(by_milter=False, by_access=True): "B"}
    return listed(side, names), logged(side, names)


def _postsuper(*arguments: str) -> Callable[[Side], Observation]:
    def operation(side: Side) -> Observation:
        """Two messages on hold, the command, the listing, and what is delivered then."""
        names = {side.hold(): "A", side.hold(): "B"}
        one = next(iter(names))
        with side.still():
            said = side.postsuper(*(one if argument == "ID" else argument for argument in arguments)).replace(one, "A")
            side.settle()
            found = listed(side, names), logged(side, names)
        side.settle()
        return said, found, listed(side, names), sorted(side.delivered())

    return operation


def put_back_on_hold(side: Side) -> Observation:
    """A message that a person released, and put on hold again before it left."""
    names = {side.hold(): "A"}
    with side.still():
        said = [side.postsuper(option, next(iter(names))) for option in ("-H", "-h")]
    side.settle()
    return len(said), listed(side, names), logged(side, names), side.delivered()


def renamed(side: Side) -> Observation:
    """Queue files get other names; all else stays."""
    names = {side.hold(): "A", side.hold(): "B"}
    before = sorted((entry.size, entry.arrived) for entry in side.queue.list().held.values())
    side.rename()
    after = sorted((entry.size, entry.arrived) for entry in side.queue.list().held.values())
    return listed(side, names), logged(side, names), before == after


def deleted_by_the_steward(side: Side) -> Observation:
    """The answer has the ids that were there."""
    names = {side.hold(): "A", side.hold(): "B"}
    one, other = names
    gone = [side.queue.delete([one]) == {one}, side.queue.delete([one, other]) == {other}, side.queue.delete([one])]
    return gone, listed(side, names), logged(side, names)


def read_when_it_is_gone(side: Side) -> Observation:
    """One missing file fails the whole request."""
    one, other = side.hold(), side.hold()
    side.queue.delete([one])
    try:
        side.queue.read([other, one])
    except HoldQueueError as error:
        return str(error).replace(one, "A").rpartition("fatal: ")[2]
    return "no error"


def not_in_the_hold_queue(side: Side) -> Observation:
    """A message that a person sent on cannot be deleted."""
    one = side.hold()
    with side.still():
        side.postsuper("-H", one)
        return side.queue.delete([one])


def released(side: Side) -> Observation:
    """The private listener takes a message for all recipients, and nothing before the final dot."""
    one = side.hold()
    [file] = side.queue.read([one]).values()
    with Reinjector(side.queue.inject) as reinjector:
        answer = reinjector.send(file, file.recipients, [bytes(file.content)])
        with suppress(ReinjectError):
            reinjector.send(file, [*file.recipients, Recipient("")], [bytes(file.content)])
    side.settle()
    return answer.startswith("250 2.0.0 Ok: queued as "), side.delivered(), len(side.queue.list().held)


COMMANDS: Final = (
    "EHLO localhost",
    "MAIL FROM:<a@council.test>",
    "RCPT TO:<>",
    "RCPT TO:<b@c.example>",
    "DATA",
    "Subject: x\r\n\r\n.",
    "MAIL FROM:<>",
    "MAIL FROM:<>",
    "DATA",
    "RCPT TO:<b@c.example>",
    "RSET",
    "DATA",
    "NONSENSE",
    "QUIT",
)


def spoken_to(side: Side) -> Observation:
    """The codes of the listener's replies."""
    connection: socket.socket = side.queue.inject()
    replies = connection.makefile("rb")
    codes = [replies.readline()[:4]]
    for command in COMMANDS:
        connection.sendall(command.encode() + b"\r\n")
        while (line := replies.readline())[3:4] == b"-":
            pass
        codes.append(line[:10] if command != "EHLO localhost" else line[:4])
    connection.close()
    side.settle()
    return codes, side.delivered()


OPERATIONS: Final[Mapping[str, Callable[[Side], Observation]]] = {
    "held by the milter": held_by_the_milter,
    "held by an access table": held_by_an_access_table,
    "postsuper -H of one": _postsuper("-H", "ID"),
    "postsuper -H ALL": _postsuper("-H", "ALL"),
    "postsuper -h of one on hold": _postsuper("-h", "ID"),
    "postsuper -h ALL": _postsuper("-h", "ALL"),
    "postsuper -r of one": _postsuper("-r", "ID"),
    "postsuper -d of one": _postsuper("-d", "ID"),
    "postsuper -d of one in the hold queue": _postsuper("-d", "ID", "hold"),
    "postsuper -d ALL": _postsuper("-d", "ALL"),
    "postsuper -d ALL hold": _postsuper("-d", "ALL", "hold"),
    "put back on hold": put_back_on_hold,
    "renamed": renamed,
    "deleted by the steward": deleted_by_the_steward,
    "read when it is gone": read_when_it_is_gone,
    "not in the hold queue": not_in_the_hold_queue,
    "released": released,
    "spoken to": spoken_to,
}
