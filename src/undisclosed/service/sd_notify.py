"""Messages to the service manager by the protocol of sd_notify(3): one datagram to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

SEND_TIMEOUT: Final = 2.0
"""Seconds: a service manager that does not read its socket must not stop the service."""

MAX_STATUS: Final = 1000
"""Characters of a status: systemd ignores a datagram of more than 4,096 bytes."""


def send(state: str, status: str = "") -> None:
    """Send a state such as `READY=1` if a service manager started this process and asked for it.

    `systemctl status` shows the status, in one line, until the next one, and after the process has ended. A failure to
    send is ignored.
    """
    if status:
        line = " ".join(status.split())
        state += "\nSTATUS=" + (line if len(line) <= MAX_STATUS else line[: MAX_STATUS - 1] + "…")
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(SEND_TIMEOUT)
        manager.sendto(
            state.strip().encode("utf-8", "replace"), "\0" + address[1:] if address.startswith("@") else address
        )
