"""The steward's side of the conversation with the root half (`privileged.py`): list, read, delete and inject."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

from undisclosed.postfix.master_cf import LISTENER
from undisclosed.steward.privileged import CONNECT_SECONDS, MAX_REASON, TOOL_SECONDS


class HoldQueueError(Exception):
    """The root half refused, or one of Postfix's tools failed. The text says which, and what it said."""


class RootHalfGoneError(HoldQueueError):
    """There is no root half any more: nothing can be done until the steward is started again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One held message, as postqueue(1) lists it."""

    queue_id: str
    arrived: datetime
    """UTC, to the second."""
    size: int
    sender: str
    """Empty for the null sender."""
    recipients: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What is queued: the messages on hold by their ids, and the ids of all others."""

    held: Mapping[str, Entry]
    elsewhere: frozenset[str]


class HoldQueue:
    """The hold queue of one Postfix instance, by way of the root half. A context manager."""

    def __init__(self, config_dir: Path) -> None:
        """Start the root half: call this before giving rights up."""
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(TOOL_SECONDS + CONNECT_SECONDS)
        with theirs:
            fd = theirs.fileno()
            self._root_half = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-I", "-m", "undisclosed.steward.privileged", str(fd), str(config_dir), LISTENER],
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                cwd="/",
            )

    @property
    def root_pid(self) -> int:
        """The process id of the root half."""
        return self._root_half.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._root_half.wait()

    def list(self) -> Listing:
        """What is queued now; a message that moves meanwhile may be missing, or there twice. Raises HoldQueueError."""
        with self._ask("list") as printed:
            entries = [json.loads(line) for line in printed]
        return Listing(
            {entry["queue_id"]: _entry(entry) for entry in entries if entry["queue_name"] == "hold"},
            frozenset(entry["queue_id"] for entry in entries if entry["queue_name"] != "hold"),
        )

    def read(self, queue_ids: Sequence[str]) -> bytes:
        """What `postcat -v` prints of these messages, for queuefile.parse. Raises HoldQueueError if one is missing."""
        with self._ask("read", *queue_ids) as printed:
            return printed.read()

    def delete(self, queue_ids: Sequence[str]) -> frozenset[str]:
        """Delete messages from the hold queue, and no other; returns those that were there. Raises HoldQueueError."""
        with self._ask("delete", *queue_ids) as said:
            removed = re.findall(r"^postsuper: (\w+): removed$", said.read().decode("ascii", "replace"), re.MULTILINE)
            return frozenset(removed)

    def inject(self) -> socket.socket:
        """A connection to the private listener, over which SMTP is spoken. Raises HoldQueueError."""
        return socket.socket(fileno=self._request("inject"))

    def _ask(self, verb: str, *queue_ids: str) -> BinaryIO:
        answer = os.fdopen(self._request(verb, *queue_ids), "rb")
        answer.seek(0)
        return answer

    def _request(self, verb: str, *queue_ids: str) -> int:
        try:
            self._connection.send(" ".join((verb, *queue_ids)).encode("ascii"))
            answer, fds, _, _ = socket.recv_fds(self._connection, MAX_REASON + 100, 1)
        except OSError as error:
            # An answer that comes late would be taken for the next one's.
            self._connection.close()
            raise RootHalfGoneError(f"the root half does not answer ({error})") from error
        if not answer:
            raise RootHalfGoneError("the root half has gone")
        if answer != b"ok":
            raise HoldQueueError(answer.decode("ascii", "replace").removeprefix("no "))
        return fds[0]


def _entry(listed: dict[str, Any]) -> Entry:
    sender = listed["sender"]
    return Entry(
        queue_id=listed["queue_id"],
        arrived=datetime.fromtimestamp(listed["arrival_time"], UTC),
        size=listed["message_size"],
        sender="" if sender == "MAILER-DAEMON" else sender,
        recipients=len(listed["recipients"]),
    )
