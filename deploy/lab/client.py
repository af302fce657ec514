"""An SMTP client that sends exactly the bytes it is given, and returns the server's replies as they are."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

TIMEOUT = 60.0
"""Seconds to wait for an answer: more than Postfix itself waits for a milter that has just died."""


class Reply(NamedTuple):
    """One SMTP reply: its code and the text of each of its lines, without code and line end."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines, joined by line feeds."""
        return "\n".join(self.lines)

    @property
    def positive(self) -> bool:
        """Whether the code is 2xx or 3xx."""
        return self.code < 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """The replies to one message: to MAIL, to each RCPT, to DATA (354) and to the final dot (`end`).

    A stage that was not reached is None. `final` is the decisive reply.
    """

    mail: Reply
    recipients: tuple[Reply, ...] = ()
    data: Reply | None = None
    end: Reply | None = None

    @property
    def final(self) -> Reply:
        """The last reply; if all recipients were refused, the first refusal."""
        return self.end or self.data or next((r for r in self.recipients if not r.positive), self.mail)

    @property
    def accepted(self) -> bool:
        """Whether the server accepted the message."""
        return self.end is not None and self.end.positive


class Client:
    """One SMTP session with 127.0.0.1. A context manager: QUIT at the end.

    With `address` and `login` it sends XCLIENT first: Postfix then treats it as a client at that address, logged in
    under that name. Messages are bytes, so that anything can be sent; addresses are text, sent as UTF-8.
    """

    def __init__(
        self, port: int, *, address: str | None = None, login: str | None = None, helo: str = "client.council.test"
    ) -> None:
        self._smtp = smtplib.SMTP("127.0.0.1", port, local_hostname=helo, timeout=TIMEOUT)
        # Otherwise each message waits 40 ms for the server's delayed ACK, which a bench would attribute to the milter.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._smtp.command_encoding = "utf-8"
        self.command("EHLO", helo)
        attributes = [f"{name}={value}" for name, value in (("ADDR", address), ("LOGIN", login)) if value]
        if attributes:
            reply = self.command("XCLIENT", *attributes)
            if reply.code != 220:
                raise RuntimeError(f"XCLIENT was refused: {reply}")
            self.command("EHLO", helo)  # XCLIENT resets the session: the server expects EHLO again

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def socket(self) -> socket.socket:
        """The connection itself, for a test that breaks it."""
        if self._smtp.sock is None:
            raise RuntimeError("the session is over")
        return self._smtp.sock

    def close(self) -> None:
        """Send QUIT, if the connection is still open, and close it."""
        try:
            self._smtp.docmd("QUIT")
        except (smtplib.SMTPException, OSError):
            pass  # the server has closed the connection already
        finally:
            self._smtp.close()

    def command(self, *words: str) -> Reply:
        """Send one command, and return the reply."""
        return _reply(self._smtp.docmd(" ".join(words)))

    def mail(self, sender: str, *options: str) -> Reply:
        """MAIL FROM, with options such as `SMTPUTF8` or `BODY=8BITMIME`; an empty sender is the null sender."""
        return self.command(f"MAIL FROM:<{sender}>", *options)

    def rcpt(self, recipient: str) -> Reply:
        """RCPT TO."""
        return self.command(f"RCPT TO:<{recipient}>")

    def send(self, message: bytes, *, sender: str, to: Sequence[str], options: Sequence[str] = ()) -> Outcome:
        """Send one message from MAIL to the final dot; after a refusal RSET, so that the session can go on.

        CRLF line ends and stuffed dots are added to `message`; all other bytes stay as they are.
        `options` go with MAIL. Recipients that are refused are left out; with none left there is no DATA.
        """
        mail = self.mail(sender, *options)
        if not mail.positive:
            return Outcome(mail)
        recipients = tuple(self.rcpt(recipient) for recipient in to)
        if not any(reply.positive for reply in recipients):
            self.command("RSET")
            return Outcome(mail, recipients)
        data = self.command("DATA")
        if data.code != 354:
            self.command("RSET")
            return Outcome(mail, recipients, data)
        return Outcome(mail, recipients, data, self.content(message))

    def content(self, message: bytes) -> Reply:
        """Send the message itself and the final dot, after the reply 354 to DATA."""
        self._smtp.send(wire_form(message) + b".\r\n")
        return _reply(self._smtp.getreply())


def wire_form(message: bytes) -> bytes:
    """A message as SMTP carries it: CRLF line ends, the last one too, and leading dots doubled (RFC 5321, 4.5.2)."""
    lines = message.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)


def _reply(answer: tuple[int, bytes]) -> Reply:
    code, text = answer
    return Reply(code, tuple(text.decode("utf-8", "surrogateescape").split("\n")))


def send(
    port: int,
    message: bytes,
    *,
    sender: str,
    to: Sequence[str],
    options: Sequence[str] = (),
    address: str | None = None,
    login: str | None = None,
) -> Outcome:
    """Send one message in its own session; the arguments are those of `Client` and `Client.send`."""
    with Client(port, address=address, login=login) as client:
        return client.send(message, sender=sender, to=to, options=options)
