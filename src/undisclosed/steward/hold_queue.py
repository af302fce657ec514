"""The hold queue of Postfix, as the unprivileged half sees it: sends list, read, delete and inject to the root half.

The protocol is described in `privileged.py`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Self

from undisclosed.addresses.masking import without_addresses
from undisclosed.decision import queue_file
from undisclosed.decision.queue_file import QueuedMessage
from undisclosed.postfix.master_cf import LISTENER
from undisclosed.service.signals import blocked_for_children
from undisclosed.steward.privileged import ANOTHER, CONNECT_TIMEOUT, MAX_REASON, TOOL_TIMEOUT
from undisclosed.steward.text_file import TextFile

ENDED: Final = "the root half of the steward has ended"


class HoldQueueError(Exception):
    """The root half refused a request, or one of Postfix's tools failed. The text has the reason without addresses."""

    def __init__(self, text: str) -> None:
        super().__init__(without_addresses(text))  # it is recorded and logged


class RootHalfGoneError(HoldQueueError):
    """The root half has ended or does not answer: the steward must be restarted."""


class AnotherStewardError(HoldQueueError):
    """Another steward has locked the hold queue. The text names its process."""


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One held message, as postqueue(1) lists it."""

    queue_id: str
    arrived: datetime
    """UTC, to the second."""
    size: int
    sender: str
    """Empty for the null sender."""
    recipients: int


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row of the listing that cannot be read: nothing is known about its message."""

    queue_id: str | None
    """None if not even this can be read."""
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The messages on hold by their queue ids, and the queue ids in all other queues."""

    held: Mapping[str, QueueEntry]
    elsewhere: frozenset[str]
    unreadable: tuple[UnreadableRow, ...] = ()

    def may_have(self, queue_id: str) -> bool:
        """Whether an unreadable row may be about this message: then it is neither held nor gone."""
        return any(row.queue_id in (None, queue_id) for row in self.unreadable)


class HoldQueue:
    """The hold queue of one Postfix instance. A context manager that owns the root half."""

    def __init__(self, config_dir: Path) -> None:
        """Start the root half. To be called before root's rights are dropped."""
        self._connection, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(TOOL_TIMEOUT + CONNECT_TIMEOUT)
        with other_end, blocked_for_children():
            fd = other_end.fileno()
            self._root_half = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-I", "-m", "undisclosed.steward.privileged", str(fd), str(config_dir), LISTENER],
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                cwd="/",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._root_half.wait()

    def list(self) -> Listing:
        """All queued messages; one that is being moved may be missing or listed twice. Raises HoldQueueError."""
        with self._ask("list") as printed:
            return read_listing(printed)

    def read(self, queue_ids: Sequence[str]) -> dict[str, QueuedMessage]:
        """The messages by their queue ids; their texts are in temporary files.

        Raises HoldQueueError, also if a message is gone, and QueueFileError.
        """
        with self._ask("read", *queue_ids) as printed:
            return self._parse(printed)

    def read_beginnings(self, queue_ids: Sequence[str], size: int) -> dict[str, QueuedMessage]:
        """The same with the first `size` bytes of each text, and the rest of that line; one without a rest is whole."""
        with self._ask("read", *queue_ids) as printed:
            return self._parse(without_rest(printed, size))

    @staticmethod
    def _parse(printed: Iterable[bytes]) -> dict[str, QueuedMessage]:
        try:
            return queue_file.parse(printed, TextFile)
        except OSError as error:
            raise HoldQueueError(f"a temporary file cannot be written: {error}") from error

    def delete(self, queue_ids: Sequence[str]) -> frozenset[str]:
        """Delete messages from the hold queue only; return the ids that were there. Raises HoldQueueError."""
        with self._ask("delete", *queue_ids) as output:
            removed = re.findall(r"^postsuper: (\w+): removed$", output.read().decode("ascii", "replace"), re.MULTILINE)
            return frozenset(removed)

    def inject(self) -> socket.socket:
        """A new connection to the private listener, which speaks SMTP. Raises HoldQueueError."""
        return socket.socket(fileno=self._request("inject"))

    def lock(self) -> None:
        """Lock the hold queue until the root half ends. Raises AnotherStewardError, and HoldQueueError."""
        try:
            os.close(self._request("lock"))
        except HoldQueueError as error:
            if str(error).startswith(ANOTHER):
                raise AnotherStewardError(str(error)) from error
            raise

    def mark(self, token: str) -> None:
        """Write a mark of `MailLog` into Postfix's log. Raises HoldQueueError."""
        os.close(self._request("mark", token))

    def _ask(self, verb: str, *queue_ids: str) -> BinaryIO:
        answer = os.fdopen(self._request(verb, *queue_ids), "rb")
        answer.seek(0)
        return answer

    def _request(self, verb: str, *queue_ids: str) -> int:
        try:
            self._connection.send(" ".join((verb, *queue_ids)).encode("ascii"))
            answer, fds, _, _ = socket.recv_fds(self._connection, MAX_REASON + 100, 1)
        except OSError as error:
            # A late answer would be taken for the answer to the next request.
            self._connection.close()
            ended = isinstance(error, BrokenPipeError | ConnectionResetError)
            raise RootHalfGoneError(ENDED if ended else f"the root half does not answer ({error})") from error
        if not answer:
            raise RootHalfGoneError(ENDED)
        if answer != b"ok":
            raise HoldQueueError(answer.decode("ascii", "replace").removeprefix("no "))
        return fds[0]


def without_rest(printed: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The lines of `postcat -v` without those of a text that follow its first `size` bytes."""
    taken = 0
    for line in printed:
        if line.startswith((b"regular_text: ", b"unterminated_text: ")):  # no line of a text can look like a mark
            if taken >= size:
                continue
            taken += len(line) - (14 if line.startswith(b"regular") else 20)
        elif line.startswith(b"*** "):
            taken = 0
        yield line


_ROW_BEGINS: Final = re.compile(rb'\{"queue_name": "\w+", "queue_id": "(\w+)"')


def read_listing(printed: Iterable[bytes]) -> Listing:
    """The lines of `postqueue -j` as a listing. Each row is read by itself, so that one cannot hide the others."""
    held: dict[str, QueueEntry] = {}
    elsewhere: set[str] = set()
    unreadable: list[UnreadableRow] = []
    for line in printed:
        try:
            queue_name, entry = _row(line)
        except (ValueError, LookupError, TypeError, ArithmeticError, OSError, RecursionError) as error:
            begins = _ROW_BEGINS.match(line)  # Postfix prints its own words before those of other servers
            queue_id = begins[1].decode("ascii") if begins else None
            unreadable.append(UnreadableRow(queue_id, f"{type(error).__name__}: {error}"))
            continue
        if queue_name == "hold":
            held[entry.queue_id] = entry
        else:
            elsewhere.add(entry.queue_id)
    return Listing(held, frozenset(elsewhere), tuple(unreadable))


def _row(line: bytes) -> tuple[str, QueueEntry]:
    """The queue's name and the entry of one row. Raises various errors for a row that is not as postqueue prints it."""
    # Another server's reply is passed on as it came, in `delay_reason`: it may have bytes that are no UTF-8.
    listed = json.loads(line.decode("utf-8", "replace"), strict=False)
    queue_name, queue_id, sender = listed["queue_name"], listed["queue_id"], listed["sender"]
    if not (isinstance(queue_name, str) and isinstance(queue_id, str) and isinstance(sender, str)):
        raise TypeError("a queue name, queue id or sender that is no text")
    return queue_name, QueueEntry(
        queue_id=queue_id,
        arrived=datetime.fromtimestamp(listed["arrival_time"], UTC),
        size=int(listed["message_size"]),
        sender="" if sender == "MAILER-DAEMON" else sender,
        recipients=len(listed["recipients"]),
    )
