"""A simulation of Postfix: its queues, the tools postqueue, postcat and postsuper, its mail log, and sendmail(1).

Only the parts that a steward meets. tests/live_postfix/test_simulation.py plays the same operations on a real Postfix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final, Literal

from support.queue_files import QueueFile, attribute, recipient, size_of

HOST: Final = "mx.council.test"
CLIENT: Final = "unknown[127.0.0.1]"

Queue = Literal["maildrop", "incoming", "active", "deferred", "hold"]
Listing = Literal["whole", "lacks one", "lists one twice", "has a row that cannot be read", "fails"]
"""Ways in which `postqueue -j` can answer. It walks the queues while messages move between them."""

DIGITS: Final = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxy"


class ToolError(OSError):
    """A tool of Postfix ended with a status other than 0."""


@dataclass(eq=False, slots=True)
class File:
    """One queue file."""

    queue_id: str
    queue: Queue
    arrived: datetime
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    by_hand: bool = False
    """Whether a person sent it on with postsuper."""

    @property
    def lines(self) -> list[bytes]:
        """The lines of the content, without their ends."""
        return self.content.removesuffix(b"\n").split(b"\n")

    @property
    def size(self) -> int:
        """As Postfix counts it."""
        return size_of(self.lines)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that has left Postfix, with all its recipients."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    by_hand: bool


@dataclass
class SimulatedPostfix:
    """One instance. `clock` is the wall clock; the mail log is written into `log`."""

    clock: Callable[[], datetime]
    log: Path
    long_ids: bool = True
    files: dict[str, File] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    listing: Listing = "whole"
    """The kind of the next listing; the ones after it are whole."""
    removed: list[File] = field(default_factory=list)
    """The files that postsuper deleted."""
    released: list[tuple[bytes, tuple[str, ...], bool]] = field(default_factory=list)
    """The messages that the private listener took: content, recipients, and whether its answer arrived."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1_000_000))

    def __post_init__(self) -> None:
        (self.log.parent / "queue" / "hold").mkdir(parents=True)

    # -- mail from clients

    def begin(
        self, content: bytes, sender: str, recipients: Sequence[str], helo: str = "localhost", reuse: str = ""
    ) -> File:
        """cleanup has the whole message, and asks the milter. A short id that is free may be used again."""
        queue_id = reuse or self._new_id()
        way = f"from {helo} (unknown [127.0.0.1])\n\tby {HOST} (Postfix) with ESMTP"
        received = f"Received: {way} id {queue_id};\n\t{self._date()}\n"
        file = File(queue_id, "incoming", self.clock(), sender, tuple(recipients), received.encode() + content)
        self.files[queue_id] = file
        self.write("smtpd", f"{queue_id}: client={CLIENT}")
        message_id = next((line[12:] for line in content.split(b"\n") if line.lower().startswith(b"message-id: ")), b"")
        self.write("cleanup", f"{queue_id}: message-id={message_id.decode('ascii', 'replace')}")
        return file

    def hold(self, file: File, *, by_milter: bool, by_access: bool = False) -> None:
        """The message is taken with 250, and put on hold. cleanup logs the milter's wish if nothing else held it."""
        envelope = f"from=<{file.sender}> to=<{file.recipients[-1]}> proto=ESMTP helo=<client>"
        if by_access:
            # smtpd logs it before there is a queue id.
            self.write(
                "smtpd",
                f"NOQUEUE: hold: RCPT from {CLIENT}: <{file.sender}>: Sender address triggers HOLD action; {envelope}",
            )
        elif by_milter:
            self.write(
                "cleanup",
                f"{file.queue_id}: milter-hold: END-OF-MESSAGE from {CLIENT}: milter triggers HOLD action; {envelope}",
            )
        file.queue = "hold"

    def accept(self, file: File) -> None:
        """The message is taken with 250."""
        self._activate(file)

    def refuse(self, file: File) -> None:
        """The client got a refusal, or disconnected: there is no queue file."""
        del self.files[file.queue_id]

    def sent(self, sender: str, recipients: Sequence[str], content: bytes, answered: bool) -> str:
        """The private listener has taken a released message; returns its queue id."""
        self.released.append((content, tuple(recipients), answered))
        file = self.begin(content, sender, recipients)
        self._activate(file)
        return file.queue_id

    def _activate(self, file: File) -> None:
        file.queue = "active"
        size, people = file.size, len(file.recipients)
        self.write("qmgr", f"{file.queue_id}: from=<{file.sender}>, size={size}, nrcpt={people} (queue active)")

    def deliver(self) -> None:
        """All queues but hold are emptied."""
        self.pick_up()
        for file in [file for file in self.files.values() if file.queue in ("active", "deferred")]:
            if file.queue == "deferred":
                self._activate(file)
            self.write("qmgr", f"{file.queue_id}: removed")
            del self.files[file.queue_id]
            self.deliveries.append(Delivery(file.sender, file.recipients, file.content, file.by_hand))

    def pick_up(self) -> None:
        """Requeued files get another queue id and one more Received field; their time of arrival stays."""
        for file in [file for file in self.files.values() if file.queue == "maildrop"]:
            del self.files[file.queue_id]
            before, file.queue_id = file.queue_id, self._new_id()
            self.files[file.queue_id] = file
            received = f"Received: by {HOST} (Postfix, from userid 102)\n\tid {file.queue_id}; {self._date()}\n"
            file.content = received.encode() + file.content
            self.write("pickup", f"{file.queue_id}: uid=102 from=<{file.sender}> orig_id={before}")
            self._activate(file)

    # -- the tools

    def run(self, tool: str, *arguments: str) -> tuple[bytes, bytes]:
        """Standard output and standard error of one of Postfix's tools. Raises ToolError."""
        match tool, *arguments:
            case ["postqueue", "-j"]:
                return self._postqueue(), b""
            case ["postcat", "-vq", *queue_ids]:
                return b"".join(map(self._postcat, queue_ids)), b""
            case ["postsuper", *rest]:
                return b"", self._postsuper(rest)
            case ["postlog", "-t", name, "-p", "info", text]:
                self._write(name, text)
                return b"", b""
            case ["postconf", "-xh", parameter]:
                return f"{self._settings[parameter]}\n".encode(), b""
        raise ToolError(f"{tool} {' '.join(arguments)}: not simulated")

    def _postqueue(self) -> bytes:
        kind, self.listing = self.listing, "whole"
        if kind == "fails":
            raise ToolError("postqueue: fatal: Connect to the Postfix showq service: Connection refused")
        rows = [self._row(file) for file in self.files.values()]
        if kind == "lacks one":
            rows = rows[1:]
        elif kind == "lists one twice":
            rows += rows[:1]
        elif kind == "has a row that cannot be read" and rows:
            rows[0] = rows[0].replace(b'"message_size": ', b'"message_size": x')
        return b"".join(rows)

    def _row(self, file: File) -> bytes:
        row = {
            "queue_name": file.queue,
            "queue_id": file.queue_id,
            "arrival_time": int(file.arrived.timestamp()),
            "message_size": file.size,
            "forced_expire": False,
            "sender": file.sender or "MAILER-DAEMON",
            "recipients": [{"address": address} for address in file.recipients],
        }
        return json.dumps(row).encode() + b"\n"

    def _postcat(self, queue_id: str) -> bytes:
        file = self.files.get(queue_id)
        if file is None:
            raise ToolError(f"postcat: fatal: open queue file {queue_id}: No such file or directory")
        names = ("client_name", "unknown"), ("client_address", "127.0.0.1"), ("client_port", "40858")
        return QueueFile(
            envelope=[
                attribute("log_ident", queue_id.encode()),
                ("sender", file.sender.encode()),
                *(attribute(name, value.encode()) for name, value in names),
                *(stored for address in file.recipients for stored in recipient(address.encode())),
            ],
            text=file.lines,
            queue_id=queue_id,
            queue=file.queue,
            date=f"{file.arrived.astimezone(UTC):%a %b %e %H:%M:%S %Y}".encode(),
        ).printed()

    def _postsuper(self, arguments: Sequence[str]) -> bytes:
        """`-d`, `-h`, `-H`, `-r` with queue ids or ALL, and perhaps a queue's name at the end."""
        only = arguments[-1] if len(arguments) % 2 else ""
        verbs = {"-d": self._delete, "-h": self._put_on_hold, "-H": self._release, "-r": self._requeue}
        words = {"-d": "removed", "-h": "placed on hold", "-H": "released from hold", "-r": "requeued"}
        sums = {"-d": "Deleted", "-h": "Placed on hold", "-H": "Released from hold", "-r": "Requeued"}
        lines: list[str] = []
        counted: dict[str, int] = {}
        for option, queue_id in zip(arguments[::2], arguments[1::2], strict=False):
            counted.setdefault(option, 0)
            files = list(self.files.values()) if queue_id == "ALL" else [self.files.get(queue_id)]
            for file in files:
                if file is not None and (not only or file.queue == only) and verbs[option](file):
                    counted[option] += 1
                    if queue_id != "ALL":  # each message by its id; of ALL only the number is logged
                        lines.append(f"{queue_id}: {words[option]}")
        for option, number in counted.items():
            lines.append(f"{sums[option]}: {number} message{'' if number == 1 else 's'}")
        for line in lines:
            self.write("postsuper", line)
        return "".join(f"postsuper: {line}\n" for line in lines).encode()

    def _delete(self, file: File) -> bool:
        del self.files[file.queue_id]
        self.removed.append(file)
        return True

    def _put_on_hold(self, file: File) -> bool:
        if file.queue == "hold":
            return False
        file.queue = "hold"
        return True

    def _release(self, file: File) -> bool:
        if file.queue != "hold":
            return False
        file.queue, file.by_hand = "deferred", True
        return True

    def _requeue(self, file: File) -> bool:
        file.queue, file.by_hand = "maildrop", True
        return True

    def rename(self) -> None:
        """The check at a reload after enable_long_queue_ids was turned off or on: names follow the other form."""
        self.long_ids = not self.long_ids
        renamed = list(self.files.values())
        for file in renamed:
            file.queue_id = self._new_id()
        self.files = {file.queue_id: file for file in renamed}
        if renamed:
            self.write("postsuper", f"Renamed to match inode number: {len(renamed)} message{'s'[: len(renamed) - 1]}")
            self.write("postsuper", "warning: QUEUE FILE NAMES WERE CHANGED TO MATCH INODE NUMBERS")

    # -- names and log

    def _new_id(self) -> str:
        number = next(self._numbers)
        if not self.long_ids:
            return f"{number:011X}"
        letters = ""
        for _ in range(10):
            number, place = divmod(number, len(DIGITS))
            letters = DIGITS[place] + letters
        return f"4{letters}zWX"

    def _date(self) -> str:
        return f"{self.clock().astimezone(UTC):%a, %d %b %Y %H:%M:%S} +0000 (UTC)"

    def write(self, program: str, text: str) -> None:
        """Add a line of one of Postfix's programs to the mail log."""
        self._write(f"postfix/{program}", text)

    def _write(self, name: str, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"{self.clock().astimezone(UTC):%b %e %H:%M:%S} mx {name}[100]: {text}\n")

    @property
    def _settings(self) -> dict[str, str]:
        return {"queue_directory": str(self.log.parent / "queue"), "syslog_name": "postfix"}
