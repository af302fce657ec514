"""What the service manager is told: the protocol of sd_notify(3), one datagram to the socket it names."""

from __future__ import annotations

import contextlib
import os
import socket


def send(state: str) -> None:
    """Tell the service manager, if one started us and asks to be told; what cannot be told is left out."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
