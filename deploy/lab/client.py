"""A mail client that says exactly what it is told, and returns exactly what it hears."""

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
        """The lines, one below the other."""
        return "\n".join(self.lines)

    @property
    def positive(self) -> bool:
        """Whether the server agreed, at once (2xx) or so far (3xx)."""
        return self.code < 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the server said to one message: `mail`, one reply per recipient, `data` (354) and `end` (after the dot).

    A stage that was not reached is None. `final` is the reply that decided.
    """

    mail: Reply
    recipients: tuple[Reply, ...] = ()
    data: Reply | None = None
    end: Reply | None = None

    @property
    def final(self) -> Reply:
        """The last thing the server said."""
        return self.end or self.data or next((r for r in self.recipients if not r.positive), self.mail)

    @property
    def accepted(self) -> bool:
        """Whether the server took the message over."""
        return self.end is not None and self.end.positive


class Client:
    """One SMTP session with 127.0.0.1. A context manager: QUIT at the end.

    With `address` and `login` it says XCLIENT first: Postfix then believes that it comes from that address, logged in
    under that name. Mail is bytes, so that anything can be sent; addresses are text, sent as UTF-8.
    """

    def __init__(
        self, port: int, *, address: str | None = None, login: str | None = None, helo: str = "client.council.test"
    ) -> None:
        self._smtp = smtplib.SMTP("127.0.0.1", port, local_hostname=helo, timeout=TIMEOUT)
        # Without it a message waits 40 ms for the server's delayed ACK, which would be measured as the milter's.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._smtp.command_encoding = "utf-8"
        self.command("EHLO", helo)
        attributes = [f"{name}={value}" for name, value in (("ADDR", address), ("LOGIN", login)) if value]
        if attributes:
            reply = self.command("XCLIENT", *attributes)
            if reply.code != 220:
                raise RuntimeError(f"XCLIENT was refused: {reply}")
            self.command("EHLO", helo)  # the server greets anew, and expects to be greeted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def socket(self) -> socket.socket:
        """The connection itself, for a test that has to tear it."""
        if self._smtp.sock is None:
            raise RuntimeError("the session is over")
        return self._smtp.sock

    def close(self) -> None:
        """QUIT, if the server still listens, and close."""
        try:
            self._smtp.docmd("QUIT")
        except (smtplib.SMTPException, OSError):
            pass  # it hung up first: there is nobody to say goodbye to
        finally:
            self._smtp.close()

    def command(self, *words: str) -> Reply:
        """Say one command, and return the answer."""
        return _reply(self._smtp.docmd(" ".join(words)))

    def mail(self, sender: str, *options: str) -> Reply:
        """MAIL FROM, with options such as `SMTPUTF8` or `BODY=8BITMIME`; an empty sender is the null sender."""
        return self.command(f"MAIL FROM:<{sender}>", *options)

    def rcpt(self, recipient: str) -> Reply:
        """RCPT TO."""
        return self.command(f"RCPT TO:<{recipient}>")

    def send(self, message: bytes, *, sender: str, to: Sequence[str], options: Sequence[str] = ()) -> Outcome:
        """One message from MAIL to the final dot; after a refusal RSET, so that the session can go on.

        `message` needs no CRLF line ends and no stuffed dots: they are put in, all other bytes stay as they are.
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
        """The message itself and the final dot, after DATA was answered with 354."""
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
    """One message in a session of its own; the arguments are those of `Client` and `Client.send`."""
    with Client(port, address=address, login=login) as client:
        return client.send(message, sender=sender, to=to, options=options)
