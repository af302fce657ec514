"""A systemd-journald of our own, in a mount namespace of its own: without systemd, and beside the host's."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from lab import processes
from lab.waiting import until

_SCRIPT = """
mount --make-rprivate / 2>/dev/null # not where / is no mount point: in a chroot, whose own mounts are then private
mount -t tmpfs run /run && mkdir -p /run/systemd/journal /run/log/journal
mount -t tmpfs log /var/log
echo 1 > "$1"
exec /usr/lib/systemd/systemd-journald
"""


@contextmanager
def journald(directory: Path) -> Iterator[Callable[[bytes], None]]:
    """Run it for `journalctl` of this process; yields a function that logs by its syslog socket.

    The function returns once the entry can be read.
    """
    ready = directory / "ready"
    child = processes.start_guarded(
        ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", _SCRIPT, "sh", str(ready)],
        environment={"PATH": os.environ["PATH"]},
    )
    try:
        until(ready.exists, what="a mount namespace")
        [pid] = until(lambda: processes.children(child.pid), what="journald")
        sock = Path(f"/proc/{pid}/root/run/systemd/journal/dev-log")
        until(sock.exists, what="journald to listen")
        command = directory / "journalctl"
        command.write_text(f'#!/bin/sh\nexec nsenter --mount --root --target {pid} /usr/bin/journalctl "$@"\n')
        command.chmod(0o755)
        with patch.dict(os.environ, PATH=f"{directory}:{os.environ['PATH']}"):

            def entries() -> int:
                asked = [str(command), "--system", "--output=json", "_TRANSPORT=syslog"]
                return subprocess.run(asked, capture_output=True, check=False).stdout.count(b'"__CURSOR"')

            def say(entry: bytes) -> None:
                before = entries()
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.connect(str(sock))
                    sender.send(entry)
                until(lambda: entries() > before, what="the entry in the journal")

            yield say
    finally:
        processes.end(child, within=30)
