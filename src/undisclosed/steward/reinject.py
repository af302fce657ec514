"""Hands a message to Postfix's private listener, over SMTP on a connection that somebody else has opened.

Commands go out together (RFC 2920), which a whole release costs half the time without. What is not answered 250 has not
been handed over.
"""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Callable, Sequence
from typing import Final, Self

from undisclosed.decision import queue_file
from undisclosed.decision.queue_file import Held, Recipient

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

    def take(self, held: Held, recipients: Sequence[Recipient], content: bytes) -> str:
        """Hand over one message for these recipients, and return Postfix's answer. All of them are taken, or none.

        Raises HandoverError, and UnknownHandoverError where nobody can tell.
        """
        commands = [queue_file.mail(held), *map(queue_file.rcpt, recipients)]
        sent = False
        try:
            smtp = self._smtp = self._smtp or self._greeted()
            for start in range(0, len(commands), PER_GROUP):
                self._all_positive(smtp, commands[start : start + PER_GROUP])
            _positive(smtp.docmd("DATA"), 354)
            sent = True
            for piece in queue_file.data(content):
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
