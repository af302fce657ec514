"""Messages to the service manager."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.waiting import DEADLINE
from undisclosed.service import sd_notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's socket, named in the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_a_status_goes_in_one_line_with_the_state(manager: socket.socket) -> None:
    """A line end in it would begin another assignment; systemd ignores a datagram that is too long."""
    sd_notify.send("READY=1", "first\n  second")
    assert manager.recv(9999).decode() == "READY=1\nSTATUS=first second"
    sd_notify.send("", "ä" * 9999)
    assert len(manager.recv(9999)) < 4096


def test_a_manager_that_does_not_read_is_not_waited_for(manager: socket.socket) -> None:
    """The kernel queues few datagrams for one socket (net.unix.max_dgram_qlen); a further one would block for ever."""
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with other, contextlib.suppress(BlockingIOError):
        while True:
            other.sendto(b"READY=1", manager.getsockname())
    sending = threading.Thread(target=sd_notify.send, args=("READY=1",), daemon=True)
    sending.start()
    sending.join(DEADLINE)
    assert not sending.is_alive()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nonexistent/notify"])
def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """By hand, or where the socket is of a kind that this program does not know."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    sd_notify.send("READY=1")
