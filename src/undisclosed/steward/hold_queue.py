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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from undisclosed.postfix.master_cf import LISTENER
from undisclosed.steward.privileged import CONNECT_TIMEOUT, MAX_REASON, TOOL_TIMEOUT

ENDED: Final = "the root half of the steward has ended"


class HoldQueueError(Exception):
    """The root half refused a request, or one of Postfix's tools failed. The text has the reason."""


class RootHalfGoneError(HoldQueueError):
    """The root half has ended or does not answer: the steward must be restarted."""


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
class Listing:
    """The messages on hold by their queue ids, and the queue ids in all other queues."""

    held: Mapping[str, QueueEntry]
    elsewhere: frozenset[str]


class HoldQueue:
    """The hold queue of one Postfix instance. A context manager that owns the root half."""

    def __init__(self, config_dir: Path) -> None:
        """Start the root half. To be called before root's rights are dropped."""
        self._connection, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(TOOL_TIMEOUT + CONNECT_TIMEOUT)
        with other_end:
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
            entries = [json.loads(line) for line in printed]
        return Listing(
            {entry["queue_id"]: _entry(entry) for entry in entries if entry["queue_name"] == "hold"},
            frozenset(entry["queue_id"] for entry in entries if entry["queue_name"] != "hold"),
        )

    def read(self, queue_ids: Sequence[str]) -> bytes:
        """The output of `postcat -v`, for `queue_file.parse`. Raises HoldQueueError, also if a message is gone."""
        with self._ask("read", *queue_ids) as printed:
            return printed.read()

    def delete(self, queue_ids: Sequence[str]) -> frozenset[str]:
        """Delete messages from the hold queue only; return the ids that were there. Raises HoldQueueError."""
        with self._ask("delete", *queue_ids) as output:
            removed = re.findall(r"^postsuper: (\w+): removed$", output.read().decode("ascii", "replace"), re.MULTILINE)
            return frozenset(removed)

    def inject(self) -> socket.socket:
        """A new connection to the private listener, which speaks SMTP. Raises HoldQueueError."""
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
            # A late answer would be taken for the answer to the next request.
            self._connection.close()
            ended = isinstance(error, BrokenPipeError | ConnectionResetError)
            raise RootHalfGoneError(ENDED if ended else f"the root half does not answer ({error})") from error
        if not answer:
            raise RootHalfGoneError(ENDED)
        if answer != b"ok":
            raise HoldQueueError(answer.decode("ascii", "replace").removeprefix("no "))
        return fds[0]


def _entry(listed: dict[str, Any]) -> QueueEntry:
    sender = listed["sender"]
    return QueueEntry(
        queue_id=listed["queue_id"],
        arrived=datetime.fromtimestamp(listed["arrival_time"], UTC),
        size=listed["message_size"],
        sender="" if sender == "MAILER-DAEMON" else sender,
        recipients=len(listed["recipients"]),
    )
