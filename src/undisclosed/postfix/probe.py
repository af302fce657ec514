"""The host that a Postfix runs on: its account, and the sockets where it looks for our milter."""

from __future__ import annotations

import os
import pwd
import socket
import stat
from pathlib import Path

from undisclosed.postfix.reachability import Account, Place, Step

CONNECT_TIMEOUT = 2.0
"""Seconds."""


def find_account(name: str) -> Account | None:
    """The account with this name and its groups; None where this host has none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, frozenset(os.getgrouplist(name, entry.pw_gid)))


def probe(target: str, queue_directory: str) -> Place:
    """Look at the place where Postfix looks for our milter, and try whether something there accepts a connection."""
    if not target.startswith("/"):
        host, _, port = target.removeprefix("inet:").rpartition(":")
        return Place(
            "socket", answers=_accepts((host.strip("[]") or "localhost", int(port)) if port.isdigit() else None)
        )
    path, queue = Path(target), Path(queue_directory)
    start = queue if path.is_relative_to(queue) else Path("/")
    way = [part for part in (*reversed(path.parents), path) if part.is_relative_to(start)]
    try:
        facts = [part.stat() for part in way]
    except PermissionError:
        return Place("hidden")
    except OSError:
        return Place("missing")
    steps = tuple(
        Step(str(part), stat.S_IMODE(fact.st_mode), fact.st_uid, fact.st_gid)
        for part, fact in zip(way, facts, strict=True)
    )
    if not stat.S_ISSOCK(facts[-1].st_mode):
        return Place("other", steps)
    return Place("socket", steps, _accepts(target))


def _accepts(address: str | tuple[str, int] | None) -> bool | None:
    """Whether something accepts a connection. The milter gets a connection without events."""
    if address is None:
        return False
    try:
        if isinstance(address, tuple):
            socket.create_connection(address, CONNECT_TIMEOUT).close()
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_TIMEOUT)
            connection.connect(address)
    except PermissionError:
        return None
    except OSError:
        return False
    return True
