"""The other end of the milter protocol, in the place of Postfix: the client of PyPI's `miltertest`.

It handles the cases that this client leaves to its caller: events that were negotiated to go unanswered, and a
quarantine, after which the final answer still comes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from miltertest import MilterConnection, constants

from wire import packets
from wire.packets import FINAL

NO_REPLY = {
    constants.SMFIC_CONNECT: constants.SMFIP_NR_CONN,
    constants.SMFIC_MAIL: constants.SMFIP_NR_MAIL,
    constants.SMFIC_RCPT: constants.SMFIP_NR_RCPT,
    constants.SMFIC_DATA: constants.SMFIP_NR_DATA,
    constants.SMFIC_HEADER: constants.SMFIP_NR_HDR,
    constants.SMFIC_EOH: constants.SMFIP_NR_EOH,
    constants.SMFIC_BODY: constants.SMFIP_NR_BODY,
}

WORDS = {
    constants.SMFIR_ACCEPT: "accept",
    constants.SMFIR_CONTINUE: "accept",
    constants.SMFIR_REJECT: "reject",
    constants.SMFIR_TEMPFAIL: "tempfail",
    constants.SMFIR_DISCARD: "discard",
}


@dataclass
class FinalAnswer:
    """The answer of the milter to one message."""

    word: str
    """accept, reject, tempfail or hold."""
    stage: str
    """eoh or eom: at which of them the final answer came."""
    reply: str = ""
    edits: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    body_chunks: int = 0
    """The number of body chunks sent before the milter asked for no more (SMFIR_SKIP)."""


class Mta:
    """One milter connection, as one SMTP session of Postfix makes it. A context manager."""

    def __init__(
        self,
        address: Path | tuple[str, int],
        *,
        protocol: int = packets.OFFERED_PROTOCOL,
        actions: int = packets.OFFERED_ACTIONS,
        timeout: float = 60,
    ) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(str(address) if isinstance(address, Path) else address)
            if self.socket.family == socket.AF_INET:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.milter = MilterConnection(self.socket)
            _, self.protocol = self.milter.optneg_mta(actions, protocol)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, command: str, **arguments: Any) -> tuple[str, dict[str, Any]] | None:
        """Send one event; its answer, or None where none was negotiated."""
        self.socket.sendall(packets.event(command, **arguments))
        if self.protocol & NO_REPLY.get(command, 0):
            return None
        answer: tuple[str, dict[str, Any]] = self.milter.recv()
        return answer

    def packet(self, content: bytes) -> None:
        """Send one event made by hand."""
        self.socket.sendall(packets.packet(content))

    def connect(self, address: str = "127.0.0.1", port: int = 40000) -> Self:
        """The client of the session."""
        client = {"hostname": "client", "family": constants.SMFIA_INET, "port": port, "address": address}
        try:
            self.say(constants.SMFIC_CONNECT, **client)
        except BaseException:
            self.socket.close()  # the caller has no context to leave yet
            raise
        return self

    def mail(self, sender: str, *, login: str = "") -> None:
        """MAIL, with the login of the client in its macro."""
        if login:
            self.milter.send_macro(constants.SMFIC_MAIL, **{"{auth_authen}": login})
        self.say(constants.SMFIC_MAIL, args=[f"<{sender}>"])

    def envelope(self, sender: str, recipients: Iterable[str], *, login: str = "", queue_id: str = "4dX1") -> None:
        """MAIL, RCPT and DATA."""
        self.mail(sender, login=login)
        for recipient in recipients:
            self.say(constants.SMFIC_RCPT, args=[f"<{recipient}>"])
        self.milter.send_macro(constants.SMFIC_DATA, i=queue_id)
        if not self.protocol & constants.SMFIP_NODATA:
            self.say(constants.SMFIC_DATA)

    def header(self, fields: Iterable[tuple[str, str]]) -> None:
        """The header fields."""
        for name, value in fields:
            self.say(constants.SMFIC_HEADER, name=name, value=value)

    def end_of_header(self) -> FinalAnswer | None:
        """The end of the header: a final answer, or None where the milter wants to go on."""
        answer = self.say(constants.SMFIC_EOH)
        assert answer is not None
        return None if answer[0] == constants.SMFIR_CONTINUE else _final_answer([answer], "eoh")

    def end_of_message(self, body: bytes = b"") -> FinalAnswer:
        """The body, as far as the milter wants it, and the end of the message."""
        chunks = 0
        for start in range(0, len(body), 65535):
            chunks += 1
            answer = self.say(constants.SMFIC_BODY, buf=body[start : start + 65535])
            assert answer is not None
            if answer[0] == constants.SMFIR_SKIP:
                break
        answers = [self.say(constants.SMFIC_BODYEOB)]
        while answers[-1] is not None and answers[-1][0] not in FINAL:
            answers.append(self.milter.recv())
        return _final_answer([answer for answer in answers if answer], "eom", chunks)

    def send(
        self,
        fields: Sequence[tuple[str, str]],
        *,
        sender: str = "clerk@council.test",
        recipients: Sequence[str] = ("parent@family.test",),
        body: bytes = b"Dear all\r\n",
        login: str = "",
        queue_id: str = "4dX1",
    ) -> FinalAnswer:
        """One message from MAIL to its final answer."""
        self.envelope(sender, recipients, login=login, queue_id=queue_id)
        self.header(fields)
        return self.end_of_header() or self.end_of_message(body)

    def abort(self) -> None:
        """RSET: no answer is given to it."""
        self.socket.sendall(packets.ABORT)


def _final_answer(answers: Sequence[tuple[str, dict[str, Any]]], stage: str, chunks: int = 0) -> FinalAnswer:
    edits = [(command, arguments) for command, arguments in answers if command not in FINAL]
    command, arguments = answers[-1]
    reply = ""
    if command == constants.SMFIR_REPLYCODE:
        reply = arguments["smtpcode"] + arguments["space"] + arguments["text"].replace("%%", "%")  # as an MTA does
        word = "reject" if reply.startswith("5") else "tempfail"
    else:
        word = WORDS[command]
    if word == "accept" and any(command == constants.SMFIR_QUARANTINE for command, _ in edits):
        word = "hold"
    return FinalAnswer(word, stage, reply, edits, chunks)
