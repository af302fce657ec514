"""Packets of the milter protocol as bytes: the events of an MTA, and the splitting of the answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from miltertest import constants
from miltertest.codec import encode_msg, encode_optneg

OFFERED_PROTOCOL: int = constants.SMFI_V6_PROT & ~constants.SMFIP_HDR_LEADSPC
"""The protocol steps that Postfix offers to leave out."""
OFFERED_ACTIONS: int = constants.SMFI_V6_ACTS
"""The actions that Postfix offers."""

END_OF_HEADER: bytes = encode_msg(constants.SMFIC_EOH)
END_OF_MESSAGE: bytes = encode_msg(constants.SMFIC_BODYEOB)
ABORT: bytes = encode_msg(constants.SMFIC_ABORT)
QUIT: bytes = encode_msg(constants.SMFIC_QUIT)
NEGOTIATE: bytes = encode_optneg(OFFERED_ACTIONS, OFFERED_PROTOCOL)

FINAL = {
    constants.SMFIR_ACCEPT,
    constants.SMFIR_CONTINUE,
    constants.SMFIR_REJECT,
    constants.SMFIR_TEMPFAIL,
    constants.SMFIR_REPLYCODE,
    constants.SMFIR_DISCARD,
}
"""The answers that end an event; edits and quarantine come before one of them."""


def packet(content: bytes) -> bytes:
    """An event made by hand, from its letter on: miltertest encodes UTF-8 only."""
    return struct.pack("!I", len(content)) + content


def event(command: str, **arguments: Any) -> bytes:
    """One event as miltertest's codec encodes it; but the body, which it would encode as text."""
    if command == constants.SMFIC_BODY:
        return packet(b"B" + arguments["buf"])
    encoded: bytes = encode_msg(command, **arguments)
    return encoded


def connect(address: str = "127.0.0.1", port: int = 40000) -> bytes:
    """The client of the session."""
    return event(constants.SMFIC_CONNECT, hostname="client", family=constants.SMFIA_INET, port=port, address=address)


def mail(sender: str, *, login: str = "") -> bytes:
    """MAIL, with the login of the client in its macro."""
    macro = _macros(constants.SMFIC_MAIL, "{auth_authen}", login) if login else b""
    return macro + event(constants.SMFIC_MAIL, args=[f"<{sender}>"])


def rcpt(recipient: str) -> bytes:
    """RCPT."""
    return event(constants.SMFIC_RCPT, args=[f"<{recipient}>"])


def data(queue_id: str) -> bytes:
    """DATA, with the queue id in its macro."""
    return _macros(constants.SMFIC_DATA, "i", queue_id) + event(constants.SMFIC_DATA)


def header(fields: Iterable[tuple[str, str]]) -> bytes:
    """The header fields, without the end of the header."""
    return b"".join(event(constants.SMFIC_HEADER, name=name, value=value) for name, value in fields)


def body(content: bytes) -> bytes:
    """A piece of the body: at most 65,535 bytes."""
    return event(constants.SMFIC_BODY, buf=content)


def answers(received: bytearray) -> Iterator[bytes]:
    """Take the complete packets from the received bytes; each without its length."""
    while len(received) >= 4:
        end = 4 + int.from_bytes(received[:4])
        if len(received) < end:
            return
        yield bytes(received[4:end])
        del received[:end]


def _macros(command: str, name: str, value: str) -> bytes:
    return event(constants.SMFIC_MACRO, cmdcode=command, nameval=[name, value])
