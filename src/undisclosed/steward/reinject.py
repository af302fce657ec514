"""Hands a message to Postfix's private listener, over SMTP on a connection that somebody else has opened.

Commands go out together (RFC 2920), which a whole release costs half the time without. What is not answered 250 has not
been handed over.
"""

from __future__ import annotations

import re
import smtplib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

from undisclosed.decision.queue_file import NOTIFY, QueuedMessage, Recipient

SECONDS: Final = 300.0
"""To wait for an answer: Postfix may itself be waiting for the signing milter."""

LONGEST_LINE: Final = 8192

PER_GROUP: Final = 100
"""Recipients whose commands go out together: their answers have to fit into the socket's buffer meanwhile."""


class HandoverError(Exception):
    """Postfix did not take the message. The text is its answer, or what became of the connection."""


class UnknownHandoverError(HandoverError):
    """The connection broke after the message was sent and before it was answered: Postfix may have it, or not."""


class Handover:
    """One SMTP session with the private listener, for any number of messages. A context manager."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._smtp: smtplib.SMTP | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session; the next message begins another."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()

    def take(self, held: QueuedMessage, recipients: Sequence[Recipient], content: bytes) -> str:
        """Hand over one message for these recipients, and return Postfix's answer. All of them are taken, or none.

        Raises HandoverError, and UnknownHandoverError where nobody can tell.
        """
        commands = [mail(held), *map(rcpt, recipients)]
        sent = False
        try:
            smtp = self._smtp = self._smtp or self._greeted()
            for start in range(0, len(commands), PER_GROUP):
                self._all_positive(smtp, commands[start : start + PER_GROUP])
            _positive(smtp.docmd("DATA"), 354)
            sent = True
            for piece in data(content):
                smtp.send(piece)
            return _positive(smtp.getreply(), 250)
        except HandoverError:
            self.close()
            raise
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            kind = UnknownHandoverError if sent else HandoverError
            raise kind(f"the connection to Postfix broke ({error})") from error

    def _greeted(self) -> smtplib.SMTP:
        smtp = smtplib.SMTP(timeout=SECONDS)
        smtp.sock = self._connect()
        smtp.sock.settimeout(SECONDS)
        try:
            _positive(smtp.getreply(), 220)
            _positive(smtp.ehlo("localhost"), 250)
        except BaseException:
            smtp.close()
            raise
        return smtp

    @staticmethod
    def _all_positive(smtp: smtplib.SMTP, commands: Sequence[bytes]) -> None:
        """Send commands together, and see that each is answered with a 250 of one line, as Postfix answers them."""
        smtp.send(b"".join(commands))
        assert smtp.file is not None
        answers = [smtp.file.readline(LONGEST_LINE) for _ in commands]
        for answer in answers:
            if not answer.startswith(b"250 "):
                raise HandoverError(f"Postfix said {answer.decode('utf-8', 'replace').strip() or 'nothing'}")


def _positive(answer: tuple[int, bytes], wanted: int) -> str:
    code, text = answer
    said = f"{code} {text.decode('utf-8', 'replace')}"
    if code != wanted:
        raise HandoverError(f"Postfix said {said}")
    return said


# -- SMTP commands and data -------------------------------------------------------------------------------------------


def mail(held: QueuedMessage) -> bytes:
    """MAIL FROM with everything that the message came with."""
    options = [
        f"RET={held.ret}" if held.ret else "",
        f"ENVID={_xtext(held.envelope_id)}" if held.envelope_id else "",
        "BODY=8BITMIME" if held.eight_bit else "",
        "SMTPUTF8" if held.smtputf8 else "",
    ]
    return _line(" ".join([f"MAIL FROM:<{_path(held.sender)}>", *filter(None, options)]))


def rcpt(recipient: Recipient) -> bytes:
    """RCPT TO with what DSN knows of the recipient."""
    options = []
    if recipient.notify:
        options.append("NOTIFY=" + ",".join(word for bit, word in NOTIFY.items() if recipient.notify & bit))
    if recipient.original:
        kind, _, address = recipient.original.partition(";")
        code = _utf8_xtext if kind.casefold() == "utf-8" else _xtext
        options.append(f"ORCPT={kind};{code(address)}")
    return _line(" ".join([f"RCPT TO:<{_path(recipient.address)}>", *options]))


_DOT_STRING: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*"
)


def _path(address: str) -> str:
    """An address as SMTP wants it: a local part that is no dot-string in quotes (RFC 5321, section 4.1.2)."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = address, ""
    if local and not _DOT_STRING.fullmatch(local):
        local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
    return f"{local}{at}{domain}"


def _xtext(text: str) -> str:
    """xtext of RFC 3461, section 4."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E and byte not in b"+=" else f"+{byte:02X}" for byte in raw)


def _utf8_xtext(text: str) -> str:
    """utf-8-addr-xtext of RFC 6533, section 3, which is ASCII."""
    return "".join(char if "!" <= char <= "~" and char not in "\\+=" else f"\\x{{{ord(char):X}}}" for char in text)


def _line(text: str) -> bytes:
    if any(char in text for char in "\r\n\0"):
        raise HandoverError("an address holds a line end")
    return text.encode("utf-8", "surrogateescape") + b"\r\n"


def data(content: bytes) -> Iterator[bytes]:
    """The content as SMTP carries it: CRLF line ends, leading dots doubled, and the final dot (RFC 5321, 4.5.2)."""
    text = content.removesuffix(b"\n").replace(b"\n", b"\r\n")
    if text.startswith(b"."):
        yield b"."
    yield text.replace(b"\r\n.", b"\r\n..")
    yield b"\r\n.\r\n"
