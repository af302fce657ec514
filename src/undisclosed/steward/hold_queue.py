"""Postfix's hold queue. `Keeper` is all that runs as root; `HoldQueue` is the steward's side of the same conversation.

The two halves are joined by a socket pair that keeps packets apart (SOCK_SEQPACKET): a request is one packet of ASCII
words, an answer one packet of text and at most one open file. The root half touches no byte of any message: it checks
queue ids, runs Postfix's own tools, and hands over what they printed, or a connection to the private listener, as an
open file (SCM_RIGHTS).

    list                 postqueue -j
    read ID…             postcat -vq ID…
    delete ID…           postsuper -d ID… hold
    inject               a connection to private/undisclosed-release

Run as `python -I -m undisclosed.holdqueue DESCRIPTOR CONFIG_DIR`; it ends when the other half has gone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

LISTENER: Final = "undisclosed-release"
"""The private listener's name in master.cf."""

QUEUE_ID: Final = re.compile(
    # Short: microseconds and inode in hexadecimal. Long: seconds and microseconds in base 52, a z, the inode in base 51
    # (mail_queue.h). Neither can be an option, a path, or one of postsuper's magic words (ALL, -).
    r"[0-9A-F]{6,20}|[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz]{10,20}z[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxy]{1,20}"
)
MOST_AT_ONCE: Final = 50
"""Queue ids in one request: to start one of Postfix's tools costs ten times what it then does for one message."""

PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
TOOL_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 10.0
LONGEST_REQUEST: Final = 4096
LONGEST_REASON: Final = 500


# -- the half that runs as root ----------------------------------------------------------------------------------------


class Keeper:
    """Answers the verbs, one after the other, until the other half closes the connection."""

    def __init__(self, connection: socket.socket, config_dir: str) -> None:
        self._connection = connection
        self._config_dir = config_dir

    def serve(self) -> None:
        """Answer requests until the other half has gone."""
        while request := self._connection.recv(LONGEST_REQUEST):
            try:
                fd = self._answer(*request.decode("ascii").split(" "))
            except Exception as error:  # noqa: BLE001  the boundary: what goes wrong is told, and nothing was done
                reason = " ".join(str(error).split()) or type(error).__name__
                self._connection.send(b"no " + reason.encode("ascii", "replace")[-LONGEST_REASON:])
                continue
            try:
                socket.send_fds(self._connection, [b"ok"], [fd])
            finally:
                os.close(fd)

    def _answer(self, verb: str, *queue_ids: str) -> int:
        """An open file with the answer. Raises whatever stands against it."""
        if len(queue_ids) > MOST_AT_ONCE or not all(map(QUEUE_ID.fullmatch, queue_ids)):
            raise ValueError("not a queue id, or too many of them")
        match verb, bool(queue_ids):
            case "list", False:
                return self._run("postqueue", "-j")
            case "read", True:
                return self._run("postcat", "-vq", *queue_ids)
            case "delete", True:
                options = [part for queue_id in queue_ids for part in ("-d", queue_id)]
                return self._run("postsuper", *options, "hold", stderr=True)
            case "inject", False:
                return self._connect()
        raise ValueError("not one of the verbs")

    def _run(self, tool: str, *arguments: str, stderr: bool = False) -> int:
        """What one of Postfix's tools prints, or, with `stderr`, what it says of itself. Raises OSError if it fails."""
        command = shutil.which(tool, path=PATH)
        if command is None:
            raise FileNotFoundError(f"{tool} is not on this host")
        output, errors = (os.memfd_create(tool) for _ in range(2))
        try:
            done = subprocess.run(  # noqa: S603  no shell, and the queue ids are checked
                [command, "-c", self._config_dir, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={"PATH": PATH, "LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                timeout=TOOL_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise OSError(f"{tool}: {os.pread(errors, 100_000, 0).decode('ascii', 'replace').strip()}")
            return os.dup(errors if stderr else output)
        finally:
            os.close(output)
            os.close(errors)

    def _connect(self) -> int:
        """A connection to the private listener."""
        fd = self._run("postconf", "-h", "queue_directory")
        with os.fdopen(fd, "rb") as printed:
            queue = os.pread(printed.fileno(), LONGEST_REQUEST, 0).decode("utf-8", "surrogateescape").strip()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.settimeout(CONNECT_SECONDS)
            listener.connect(f"{queue}/private/{LISTENER}")
            listener.settimeout(None)
            return listener.detach()


def keep(descriptor: int, config_dir: str) -> None:
    """Be the root half, at the end of an inherited socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the other half hears them too, and this one ends with it
    with socket.socket(fileno=descriptor) as connection:
        Keeper(connection, config_dir).serve()


# -- the steward's half ------------------------------------------------------------------------------------------------


class HoldQueueError(Exception):
    """The root half refused, or one of Postfix's tools failed. The text says which, and what it said."""


class KeeperGoneError(HoldQueueError):
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
            self._keeper = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-I", "-m", "undisclosed.steward.hold_queue", str(fd), str(config_dir)],
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                cwd="/",
            )

    @property
    def keeper_pid(self) -> int:
        """The process id of the root half."""
        return self._keeper.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._keeper.wait()

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
            answer, fds, _, _ = socket.recv_fds(self._connection, LONGEST_REASON + 100, 1)
        except OSError as error:
            # An answer that comes late would be taken for the next one's.
            self._connection.close()
            raise KeeperGoneError(f"the root half does not answer ({error})") from error
        if not answer:
            raise KeeperGoneError("the root half has gone")
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


if __name__ == "__main__":
    keep(int(sys.argv[1]), sys.argv[2])
