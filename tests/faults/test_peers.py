"""A peer on the milter's socket that is not Postfix, while mail from Postfix passes."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from faults.trial import Trial

VERSION, ACTIONS, PROTOCOL = 6, 0x1FF, 0x1FFFFF & ~0x100000
"""The features that Postfix offers: all of version 6 but for leading blanks (mfapi.h, mfdef.h)."""
QUARANTINE, CHANGE_HEADERS = 0x20, 0x10

ACCEPT = ord("a")


def packet(content: bytes) -> bytes:
    """An event, from its letter on."""
    return struct.pack("!I", len(content)) + content


def negotiate(version: int = VERSION, actions: int = ACTIONS, protocol: int = PROTOCOL) -> bytes:
    """The first packet of a session."""
    return packet(b"O" + struct.pack("!III", version, actions, protocol))


CONNECT = packet(b"Cclient\x004\x9c\x40127.0.0.1\0")
MAIL = packet(b"M<reject@council.test>\0")
RCPT = packet(b"R<parent@family.test>\0")
HEADER = packet(b"LTo\0" + b", ".join(b"p%d@family%d.test" % (one, one) for one in range(11)) + b"\0")
END_OF_HEADER, BODY, END = packet(b"N"), packet(b"BDear all"), packet(b"E")
WHOLE = negotiate() + CONNECT + MAIL + RCPT + HEADER + END_OF_HEADER + BODY + END

NONSENSE: Mapping[str, list[bytes]] = {
    "random bytes": [random.Random(seed).randbytes(400) for seed in range(8)],
    "truncated packets": [WHOLE[:length] for length in range(1, len(WHOLE), 17)],
    "wrong lengths": [
        struct.pack("!I", 0),
        struct.pack("!I", 2**31) + b"L",
        struct.pack("!I", 2**32 - 1) + b"L" * 500,
        struct.pack("!I", 40) + b"Lshort",
        negotiate() + CONNECT + struct.pack("!I", 0) + MAIL,
        negotiate() + CONNECT + struct.pack("!I", len(MAIL)) + MAIL[4:] + RCPT,
    ],
    "events out of order": [
        END_OF_HEADER,
        CONNECT + MAIL,
        negotiate() + END_OF_HEADER,
        negotiate() + HEADER + END_OF_HEADER,
        negotiate() + CONNECT + BODY + END,
        negotiate() + negotiate() + CONNECT + END,
        negotiate() + CONNECT + MAIL + MAIL + END + END,
        WHOLE + WHOLE,
        negotiate() + packet(b"~") + packet(b"\0"),
        negotiate() + CONNECT + MAIL + packet(b"LTo") + END_OF_HEADER,
        negotiate() + CONNECT + packet(b"M") + packet(b"R") + packet(b"L") + END_OF_HEADER,
    ],
    "a negotiation that lacks what is needed": [
        packet(b"O"),
        packet(b"O" + struct.pack("!II", VERSION, ACTIONS)),
        negotiate(version=1) + CONNECT + MAIL + END_OF_HEADER,
        negotiate(version=0),
        negotiate(version=2**31),
        negotiate(actions=ACTIONS & ~QUARANTINE) + CONNECT + MAIL + END_OF_HEADER,
        negotiate(actions=ACTIONS & ~CHANGE_HEADERS) + CONNECT + MAIL + END_OF_HEADER,
        negotiate(actions=0) + CONNECT + MAIL + END_OF_HEADER,
    ],
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_from_a_peer(trial: Trial, what: str) -> None:
    """The peer ends its own session, never gets an answer that lets a message pass, and disturbs no other session."""
    workers = trial.milter.workers()
    path = trial.stage.postfix.queue_dir / "undisclosed" / "milter.sock"
    with trial.load() as load:
        load.go_on(4)
        for said in NONSENSE[what]:
            heard = speak(path, said)
            assert ACCEPT not in heard, (said, heard)
        load.go_on(8)
        trial.recover()
    assert trial.milter.workers() == workers
    assert set(trial.codes()) == {250, 550}
    if "negotiation" in what:
        assert trial.logged(event="negotiation_failed")
    trial.report(f"A peer that is no Postfix, on the milter's socket: {what}", "nothing to do")


def speak(path: Path, said: bytes) -> list[int]:
    """Send this and close the connection; returns the letters of the answers."""
    heard = b""
    with socket.socket(socket.AF_UNIX) as peer, suppress(ConnectionResetError, BrokenPipeError):
        peer.settimeout(20)
        peer.connect(str(path))
        peer.sendall(said)
        peer.shutdown(socket.SHUT_WR)
        while more := peer.recv(65536):
            heard += more
    return list(letters(heard))


def letters(heard: bytes) -> Iterator[int]:
    """The letter of each packet."""
    while len(heard) > 4:
        yield heard[4]
        heard = heard[4 + int.from_bytes(heard[:4]) :]
