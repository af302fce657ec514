"""The lines of Postfix's log that tell what became of a queue file, as values. Pure: `mail_log.py` reads the log.

The spellings were seen with Postfix 3.7.11 and 3.10.13; tests/live_postfix/test_mail_log.py provokes each of them. A
line is read from its beginning: what a sender can choose stands behind the program's name, so it cannot be taken for
another line.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

MAX_QUEUE_IDS: Final = 50_000
"""Queue ids that are remembered besides those asked for: the mail of minutes on a busy host, in some 20 MB."""

MARK: Final = "undisclosed"
"""The name of the program that the steward's own marks have in the log."""


class LogLine(NamedTuple):
    """A line that one of Postfix's programs wrote."""

    name: str
    """The instance's syslog_name, with that of a service behind it, such as `postfix/submission`."""
    program: str
    pid: str
    text: str


_HEAD: Final = re.compile(
    # The traditional timestamp (RFC 3164, postlogd), or that of RFC 3339 (rsyslog since Debian 12); then the host.
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S{8,25}) \S+ "
    r"(?P<tag>\S+)/(?P<program>[\w.-]+)\[(?P<pid>\d+)\]: (?P<text>.*)"
)


def parse_line(line: str) -> LogLine | None:
    """A line of a log file; None if it is not one that Postfix's programs write."""
    found = _HEAD.fullmatch(line)
    return LogLine(found["tag"], found["program"], found["pid"], found["text"]) if found else None


class What(StrEnum):
    """The fact that a line states about a queue file."""

    BEGUN = "begun"
    """A message with this queue id comes in: all that was said of the queue id before is about another one."""
    HELD_BY_MILTER = "held by a milter"
    """cleanup(8) writes this only if nothing held the message before: not an access table, nor header_checks."""
    REFUSED = "refused by a milter"
    """At the end of the message: it is not queued."""
    DISCARDED = "discarded by a milter"
    QUEUED = "queued"
    """qmgr(8) begins to deliver it. It never does with held mail."""
    SENT = "sent"
    BOUNCED = "returned to its sender"
    PLACED = "placed on hold"
    LET_GO = "released from hold"
    REQUEUED = "requeued"
    EXPIRED = "expired by hand"
    DELETED = "deleted by hand"


_BY_PROGRAM: Final[dict[str, tuple[tuple[re.Pattern[str], What], ...]]] = {
    "smtpd": ((re.compile(r"client="), What.BEGUN),),
    "qmqpd": ((re.compile(r"client="), What.BEGUN),),
    "pickup": ((re.compile(r"uid=\d+ from=<"), What.BEGUN),),
    "cleanup": (
        (re.compile(r"milter-hold: END-OF-MESSAGE from "), What.HELD_BY_MILTER),
        (re.compile(r"milter-reject: END-OF-MESSAGE from "), What.REFUSED),
        (re.compile(r"milter-discard: END-OF-MESSAGE from "), What.DISCARDED),
    ),
    "qmgr": (
        (re.compile(r"from=<.*>, status=(?:force-)?expired, returned to sender$"), What.BOUNCED),
        (re.compile(r"from=<.*, nrcpt=\d+ \(queue active\)$"), What.QUEUED),
    ),
    "postsuper": (
        (re.compile(r"placed on hold$"), What.PLACED),
        (re.compile(r"released from hold$"), What.LET_GO),
        (re.compile(r"requeued$"), What.REQUEUED),
        (re.compile(r"expired$"), What.EXPIRED),
        (re.compile(r"removed$"), What.DELETED),
    ),
}
"""The text behind the queue id, by program. Those of qmgr(8) have their end, since the sender chooses the address in
them: `"x>, status=expired, returned to sender"@…` would hide that a message was sent."""

_DELIVERY: Final = re.compile(r"to=<.*, status=sent \(")
_QUEUE_ID: Final = re.compile(r"(?P<id>[0-9A-Za-z]{6,40}): (?P<rest>.*)")
_ORIGINAL: Final = re.compile(r" orig_id=(?P<id>[0-9A-Za-z]{6,40})$")

_SUMMARY: Final = re.compile(
    r"(?P<what>Placed on hold|Released from hold|Requeued|Force-expired|Deleted): (?P<number>\d+) messages?$"
)
_SUMMARISED: Final = {
    "Placed on hold": What.PLACED,
    "Released from hold": What.LET_GO,
    "Requeued": What.REQUEUED,
    "Force-expired": What.EXPIRED,
    "Deleted": What.DELETED,
}
"""The last lines of postsuper(1). `postsuper -h ALL` and the like log nothing else: no queue id."""


@dataclass(slots=True)
class QueueFile:
    """The history of one queue file in the log: the number of the last line of each kind."""

    at: dict[What, int] = field(default_factory=dict)
    new_id: str | None = None
    """The queue id that it has got by `postsuper -r`."""

    def has(self, *kinds: What) -> bool:
        """Whether a line of one of these kinds was seen."""
        return any(what in self.at for what in kinds)


class Fate(NamedTuple):
    """The end of a message that left the hold queue, as far as the log says."""

    kind: What
    new_id: str | None = None


class LogEvents:
    """All that is remembered of the lines seen so far. It is bounded: the oldest queue ids are forgotten first."""

    def __init__(self) -> None:
        self._lines = 0
        self._files: OrderedDict[str, QueueFile] = OrderedDict()
        self._kept: dict[str, QueueFile] = {}
        self._last_placed = 0
        self._named: dict[tuple[str, What], int] = {}
        self._unnamed: dict[What, int] = {}
        """The last lines of a postsuper that acted on messages which it did not name, as with ALL."""
        self.marks: deque[str] = deque(maxlen=20)
        """The last marks seen."""

    def keep(self, queue_ids: Collection[str]) -> None:
        """Remember these queue ids for as long as they are named, however much is logged; and no others so."""
        for queue_id in self._kept.keys() - set(queue_ids):
            self._files[queue_id] = self._kept.pop(queue_id)
        for queue_id in queue_ids:
            if (known := self._files.pop(queue_id, None)) is not None:
                self._kept[queue_id] = known

    def add(self, lines: Iterable[LogLine]) -> None:
        """Take in lines, in the order of the log."""
        for line in lines:
            self._lines += 1
            self._add(line)
        while len(self._files) > MAX_QUEUE_IDS:
            self._files.popitem(last=False)

    def _add(self, line: LogLine) -> None:
        if line.program == MARK:
            self.marks.append(line.text.partition(" ")[0])
            return
        if line.program == "postsuper" and (summary := _SUMMARY.match(line.text)):
            self._summarise(line.pid, _SUMMARISED[summary["what"]], int(summary["number"]))
            return
        about = _QUEUE_ID.match(line.text)
        if about is None:
            return
        queue_id, rest = about["id"], about["rest"]
        kinds = _BY_PROGRAM.get(line.program, ())
        what = next((what for pattern, what in kinds if pattern.match(rest)), None)
        if what is None and _DELIVERY.match(rest):
            what = What.SENT
        if what is None:
            return
        if what is What.BEGUN:
            self._begin(queue_id)
            if original := _ORIGINAL.search(rest):
                self._file(original["id"]).new_id = queue_id
            return
        self._file(queue_id).at[what] = self._lines
        if line.program == "postsuper":
            self._named[line.pid, what] = self._named.get((line.pid, what), 0) + 1
            if what is What.PLACED:
                self._last_placed = self._lines

    def _begin(self, queue_id: str) -> None:
        new = QueueFile({What.BEGUN: self._lines})
        if queue_id in self._kept:
            self._kept[queue_id] = new
        else:
            self._files.pop(queue_id, None)
            self._files[queue_id] = new

    def _file(self, queue_id: str) -> QueueFile:
        if (kept := self._kept.get(queue_id)) is not None:
            return kept
        return self._files.setdefault(queue_id, QueueFile())

    def _summarise(self, pid: str, what: What, number: int) -> None:
        if what is What.PLACED:
            # "0 messages" is what `postsuper -h` logs for mail that is on hold already: somebody wants to keep it.
            self._last_placed = self._lines
        named = self._named.pop((pid, what), 0)
        if number > named:
            self._unnamed[what] = self._lines

    # -- the answers

    def of(self, queue_id: str) -> QueueFile:
        """The history of a queue file; without lines if the log has none."""
        return self._kept.get(queue_id) or self._files.get(queue_id) or QueueFile()

    def is_held_by_milter(self, queue_id: str) -> bool:
        """Whether a milter put the message on hold, and nothing else before."""
        return self.of(queue_id).has(What.HELD_BY_MILTER)

    def is_placed_since(self, queue_id: str) -> bool:
        """Whether somebody placed mail on hold by hand since the milter did so with this message."""
        return self._last_placed > self.of(queue_id).at.get(What.HELD_BY_MILTER, 0)

    def is_queued(self, queue_id: str) -> bool:
        """Whether Postfix took the message: it is or was in the queue."""
        return self.of(queue_id).has(What.QUEUED, What.SENT, What.BOUNCED, What.HELD_BY_MILTER)

    def is_refused(self, queue_id: str) -> bool:
        """Whether a milter refused or discarded the message at its end."""
        return self.of(queue_id).has(What.REFUSED, What.DISCARDED)

    def fate(self, queue_id: str, *, was_held: bool = True) -> Fate | None:
        """The end of a message that has left the hold queue; None if the log does not say.

        `was_held`: it was seen on hold. Otherwise an act without queue ids may have been on others.
        """
        found = self.of(queue_id)
        if found.new_id is not None:
            return Fate(What.REQUEUED, found.new_id)
        if found.has(What.DELETED):
            return Fate(What.DELETED)
        if found.has(What.SENT):
            return Fate(What.LET_GO)
        if found.has(What.BOUNCED) or (found.has(What.EXPIRED) and found.has(What.LET_GO, What.QUEUED)):
            return Fate(What.EXPIRED)
        if found.has(What.LET_GO, What.QUEUED):
            return Fate(What.LET_GO)
        if found.has(What.REQUEUED):
            return Fate(What.REQUEUED)
        return self._unnamed_fate(found) if was_held or found.has(What.HELD_BY_MILTER) else None

    def _unnamed_fate(self, found: QueueFile) -> Fate | None:
        """The same by lines without queue ids: if only one kind of act can have been it."""
        since = found.at.get(What.HELD_BY_MILTER, found.at.get(What.BEGUN))
        if since is None:  # of another year, for all that the log says
            return None
        acts = {what for what, line in self._unnamed.items() if line > since}
        if found.has(What.EXPIRED):
            acts.add(What.EXPIRED)
        leaving = acts & {What.DELETED, What.LET_GO, What.REQUEUED}
        if len(leaving) != 1:
            return None
        if leaving == {What.LET_GO} and What.EXPIRED in acts:  # postsuper -f ALL
            return Fate(What.EXPIRED)
        return Fate(leaving.pop())
