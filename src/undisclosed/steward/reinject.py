"""Sends held messages to Postfix's private listener, over SMTP, on connections that the root half has opened.

A message counts as sent only after the final 250. Commands are pipelined (RFC 2920): without that, waiting for the
answers would take half the time of a release.
"""

from __future__ import annotations

import re
import smtplib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Self

from undisclosed.addresses.masking import without_addresses
from undisclosed.decision.queue_file import NOTIFY, QueuedMessage, Recipient

ANSWER_TIMEOUT: Final = 300.0
"""Seconds for an answer: Postfix may be waiting for the signing milter."""

MAX_LINE: Final = 8192

PIPELINED: Final = 100
"""Commands sent before their answers are read: the answers must fit into the buffer of the socket."""


class ReinjectError(Exception):
    """Postfix did not accept the message. The text has its answer without addresses, or the connection's error."""

    def __init__(self, text: str) -> None:
        super().__init__(without_addresses(text))  # it is recorded and logged, and Postfix's answers name recipients


class UnansweredError(ReinjectError):
    """The connection broke between the end of the message and its answer: Postfix may have accepted the message."""


class Reinjector:
    """An SMTP session with the private listener, for any number of messages. A context manager."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._smtp: smtplib.SMTP | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session; the next message opens a new one."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()

    def send(self, queued: QueuedMessage, recipients: Sequence[Recipient], pieces: Iterable[bytes]) -> str:
        """Send the message in these pieces with the envelope of `queued` to these recipients; return the final answer.

        Postfix accepts the message for all recipients or for none. Raises ReinjectError, or UnansweredError.
        """
        commands = [mail(queued), *map(rcpt, recipients)]
        complete = False
        try:
            smtp = self._smtp = self._smtp or self._open()
            for start in range(0, len(commands), PIPELINED):
                self._send_pipelined(smtp, commands[start : start + PIPELINED])
            _expect(smtp.docmd("DATA"), 354)
            complete = True  # from here on Postfix may have the final dot
            for piece in data(pieces):
                smtp.send(piece)
            return _expect(smtp.getreply(), 250)
        except ReinjectError:
            self.close()
            raise
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            kind = UnansweredError if complete else ReinjectError
            raise kind(f"the connection to Postfix broke ({error})") from error

    def _open(self) -> smtplib.SMTP:
        smtp = smtplib.SMTP(timeout=ANSWER_TIMEOUT)
        smtp.sock = self._connect()
        smtp.sock.settimeout(ANSWER_TIMEOUT)
        try:
            _expect(smtp.getreply(), 220)
            _expect(smtp.ehlo("localhost"), 250)
        except BaseException:
            smtp.close()
            raise
        return smtp

    @staticmethod
    def _send_pipelined(smtp: smtplib.SMTP, commands: Sequence[bytes]) -> None:
        """Send commands together, and require a 250 of one line for each."""
        smtp.send(b"".join(commands))
        assert smtp.file is not None
        answers = [smtp.file.readline(MAX_LINE) for _ in commands]
        for answer in answers:
            if not answer.startswith(b"250 "):
                raise ReinjectError(f"Postfix said {answer.decode('utf-8', 'replace').strip() or 'nothing'}")


def _expect(answer: tuple[int, bytes], expected: int) -> str:
    code, text = answer
    line = f"{code} {text.decode('utf-8', 'replace')}"
    if code != expected:
        raise ReinjectError(f"Postfix said {line}")
    return line


# -- SMTP commands and data -------------------------------------------------------------------------------------------


def mail(queued: QueuedMessage) -> bytes:
    """MAIL FROM with the parameters of the original transaction."""
    options = [
        f"RET={queued.ret}" if queued.ret else "",
        f"ENVID={_xtext(queued.envelope_id)}" if queued.envelope_id else "",
        "BODY=8BITMIME" if queued.eight_bit else "",
        "SMTPUTF8" if queued.smtputf8 else "",
    ]
    return _line(" ".join([f"MAIL FROM:<{_path(queued.sender)}>", *filter(None, options)]))


def rcpt(recipient: Recipient) -> bytes:
    """RCPT TO with the recipient's DSN parameters."""
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
    """An address in SMTP form: a local part that is not a dot-string is quoted (RFC 5321, section 4.1.2)."""
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
        raise ReinjectError("an address contains a line end")
    return text.encode("utf-8", "surrogateescape") + b"\r\n"


def data(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A message in SMTP form: CRLF line ends, leading dots doubled, and the final dot (RFC 5321, section 4.5.2)."""
    line_end = b""
    is_begun = False
    for piece in pieces:
        # A line feed is sent with the bytes that follow it: a dot may be the first of them. The last one is left out.
        text = line_end + piece
        line_end = b"\n" if text.endswith(b"\n") else b""
        text = text.removesuffix(b"\n")
        if not is_begun and text.startswith(b"."):
            yield b"."
        is_begun = is_begun or bool(text or line_end)
        yield text.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
    yield b"\r\n.\r\n"
