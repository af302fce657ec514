"""The root half of the steward: the only part that keeps root's rights. It imports the standard library only.

A socket pair of type SOCK_SEQPACKET connects it to the unprivileged half (`hold_queue.py`). A request is one packet of
ASCII words. An answer is one packet, "ok" with an open file (SCM_RIGHTS) or "no" with the reason. The root half does
not read messages: it checks queue ids, runs Postfix's own tools, and passes on their output, or a connection to the
private listener.

    list                 postqueue -j
    read ID…             postcat -vq ID…
    delete ID…           postsuper -d ID… hold
    inject               a connection to the private listener
    lock                 takes the lock of the hold queue, until this process ends; nothing is answered
    mark TOKEN           postlog -t NAME TOKEN, NAME with the instance's syslog_name before it; nothing is answered

Run as `python -I -m undisclosed.steward.privileged DESCRIPTOR CONFIG_DIR LISTENER`: LISTENER is the private listener's
name in master.cf. It ends when the other half ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

QUEUE_ID: Final = re.compile(
    # Short: microseconds and inode in hexadecimal. Long: seconds and microseconds in base 52, a z, the inode in base 51
    # (mail_queue.h). Neither can be an option, a path, or one of postsuper's special words (ALL, -).
    r"[0-9A-F]{6,20}|[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz]{10,20}z[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxy]{1,20}"
)
SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals that the other half acts on. Postfix's tools, which are started from here, ignore them as well."""

MARK: Final = re.compile(r"[0-9a-f]{16}")
"""The only text that can be written into Postfix's log."""

MAX_QUEUE_IDS: Final = 50
"""Queue ids in one request: starting one of Postfix's tools takes ten times as long as its work for one message."""

TEMPORARY: Final = "/var/tmp"  # noqa: S108  its files have no name
"""The directory of the tools' output. /tmp can be memory, and a large message is printed as 60 MB."""

PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
TOOL_TIMEOUT: Final = 60.0
CONNECT_TIMEOUT: Final = 10.0
ANOTHER: Final = "another steward takes care of this hold queue already"
"""How the reason begins if the lock is taken."""

LOCK_TIMEOUT: Final = 3.0
"""Seconds to wait for the lock: the root half of a steward that was killed may still be ending."""

LOCK_INTERVAL: Final = 0.1

MAX_REQUEST: Final = 4096
MAX_REASON: Final = 500


class Server:
    """Answers requests one by one until the other half closes the connection."""

    def __init__(self, connection: socket.socket, config_dir: str, listener: str) -> None:
        self._connection = connection
        self._config_dir = config_dir
        self._listener = listener
        self._lock = -1
        """The descriptor of the locked directory, kept open until this process ends."""

    def serve(self) -> None:
        """Answer requests until the connection is closed."""
        while request := self._connection.recv(MAX_REQUEST):
            try:
                fd = self._answer(*request.decode("ascii").split(" "))
            except Exception as error:  # noqa: BLE001  every error is the answer, and the next request is served
                reason = " ".join(str(error).split()) or type(error).__name__
                self._connection.send(b"no " + reason.encode("ascii", "replace")[-MAX_REASON:])
                continue
            try:
                socket.send_fds(self._connection, [b"ok"], [fd])
            finally:
                os.close(fd)

    def _answer(self, verb: str, *queue_ids: str) -> int:
        """An open file with the answer. Raises for everything that is refused or fails."""
        if verb == "mark":
            return self._mark(*queue_ids)
        if len(queue_ids) > MAX_QUEUE_IDS or not all(map(QUEUE_ID.fullmatch, queue_ids)):
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
            case "lock", False:
                self._take_lock()
                return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        raise ValueError("not one of the verbs")

    def _run(self, tool: str, *arguments: str, stderr: bool = False) -> int:
        """The output of one of Postfix's tools; with `stderr`, its standard error. Raises OSError if it fails."""
        command = shutil.which(tool, path=PATH)
        if command is None:
            raise FileNotFoundError(f"{tool} is not on this host")
        with tempfile.TemporaryFile(dir=TEMPORARY) as output, tempfile.TemporaryFile(dir=TEMPORARY) as errors:
            done = subprocess.run(  # noqa: S603  no shell, and the queue ids are checked
                [command, "-c", self._config_dir, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={"PATH": PATH, "LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                timeout=TOOL_TIMEOUT,
                check=False,
            )
            if done.returncode != 0:
                reason = os.pread(errors.fileno(), 100_000, 0).decode("ascii", "replace").strip()
                raise OSError(f"{tool}: {reason}")
            return os.dup((errors if stderr else output).fileno())

    def _mark(self, token: str) -> int:
        if not MARK.fullmatch(token):
            raise ValueError("not a mark")
        name = self._value("syslog_name")
        text = f"{token} (the steward of held mail looks whether it can read this log)"
        return self._run("postlog", "-t", f"{name}/undisclosed", "-p", "info", text)

    def _connect(self) -> int:
        """A connection to the private listener."""
        queue = self._value("queue_directory")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.settimeout(CONNECT_TIMEOUT)
            listener.connect(f"{queue}/private/{self._listener}")
            listener.settimeout(None)
            return listener.detach()

    def _take_lock(self) -> None:
        """Lock the hold queue itself: with two stewards every message would be released twice.

        The directory is locked, and not a file of ours: the lock holds whatever configuration names the queue.
        """
        if self._lock >= 0:
            return
        directory = os.open(f"{self._value('queue_directory')}/hold", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        end = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(LOCK_INTERVAL)
                    continue
                holder = _holder(os.fstat(directory).st_ino)
                os.close(directory)
                raise OSError(f"{ANOTHER} ({holder}): end it first") from None
            self._lock = directory
            return

    def _value(self, parameter: str) -> str:
        """The value of a parameter of main.cf, its variables replaced."""
        with os.fdopen(self._run("postconf", "-xh", parameter), "rb") as printed:
            return os.pread(printed.fileno(), MAX_REQUEST, 0).decode("utf-8", "surrogateescape").strip()


def _holder(inode: int) -> str:
    """The steward whose root half has locked this inode, by /proc/locks."""
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
        # `1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF`: the process and the inode
        [root_half] = (row[4] for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}"))
        stat = Path(f"/proc/{int(root_half)}/stat").read_text("ascii", "replace")
        return f"process {stat.rpartition(')')[2].split()[1]}"  # its parent: the half without rights
    except (OSError, ValueError, IndexError):
        return "its process is not visible from here"


def serve(descriptor: int, config_dir: str, listener: str) -> None:
    """Run the root half on an inherited socket."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the other half gets them too, and this one ends with it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked since before it was started
    with socket.socket(fileno=descriptor) as connection:
        Server(connection, config_dir, listener).serve()


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:4])
