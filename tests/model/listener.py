"""The private listener of the simulation: an SMTP session as an object that the steward uses in place of a socket."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Literal

Answer = Literal["250", "451", "550", "no answer", "no answer, not taken", "451 to RCPT"]
"""The end of one transaction: the reply after the data, or a connection that breaks before its reply."""

Take = Callable[[str, tuple[str, ...], bytes, bool], str]
"""Takes a message (envelope sender, recipients, content, whether the answer will arrive); returns its queue id."""

GREETING = b"220 mx.council.test ESMTP Postfix\r\n"
REPLIES = {
    b"EHLO": b"250-mx.council.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


class SimulatedSession:
    """One connection. It has the methods of a socket that smtplib and the steward call."""

    def __init__(self, take: Take, next_answer: Callable[[], Answer], step: Callable[[str], None]) -> None:
        """`step` is called before and after Postfix takes a message; it may end the steward."""
        self._take = take
        self._next_answer = next_answer
        self._step = step
        self._answers = _Answers(GREETING)
        self._lines = b""
        self._content: bytes | None = None
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._answer: Answer = "250"

    def settimeout(self, _seconds: float | None) -> None:
        """Answers come at once."""

    def makefile(self, _mode: str) -> _Answers:
        """The side of the connection with Postfix's replies."""
        return self._answers

    def close(self) -> None:
        """The steward ends the session; a message without its final dot is dropped."""
        self._answers.ended = True

    def sendall(self, data: bytes) -> None:
        """Postfix reads commands, or the text of a message."""
        if self._answers.ended:
            raise BrokenPipeError("the connection is closed")
        self._lines += data
        while not self._answers.ended and b"\r\n" in self._lines:
            line, _, self._lines = self._lines.partition(b"\r\n")
            if self._content is None:
                self._answers.add(self._command(line))
            elif line == b".":
                self._end_of_data(self._content)
            else:
                self._content += line.removeprefix(b".") + b"\n"

    def _command(self, line: bytes) -> bytes:
        verb = line.split(b" ")[0].split(b":")[0].upper()
        match verb:
            case b"MAIL":
                return self._mail(_path(line))
            case b"RCPT":
                return self._rcpt(_path(line))
            case b"DATA":
                return self._data()
            case b"RSET":
                self._reset()
        return REPLIES.get(verb, b"500 5.5.2 Error: command not recognized\r\n")

    def _mail(self, sender: str) -> bytes:
        if self._sender is not None:
            return b"503 5.5.1 Error: nested MAIL command\r\n"
        self._sender, self._answer = sender, self._next_answer()
        return b"250 2.1.0 Ok\r\n"

    def _rcpt(self, recipient: str) -> bytes:
        if not recipient:
            return b"501 5.1.3 Bad recipient address syntax\r\n"
        if self._answer == "451 to RCPT":
            return b"451 4.3.0 Error: queue file write error\r\n"
        self._recipients.append(recipient)
        return b"250 2.1.5 Ok\r\n"

    def _data(self) -> bytes:
        if self._sender is None:
            return b"503 5.5.1 Error: need RCPT command\r\n"
        if not self._recipients:
            return b"554 5.5.1 Error: no valid recipients\r\n"
        self._content = b""
        return b"354 End data with <CR><LF>.<CR><LF>\r\n"

    def _end_of_data(self, content: bytes) -> None:
        sender, recipients, answer = str(self._sender), tuple(self._recipients), self._answer
        self._reset()
        self._step("before the listener's answer")
        if answer in ("250", "no answer"):
            queue_id = self._take(sender, recipients, content, answer == "250")
            self._answers.add(f"250 2.0.0 Ok: queued as {queue_id}\r\n".encode())
        elif answer in ("451", "550"):
            self._answers.add(f"{answer} {answer[0]}.7.1 Command rejected\r\n".encode())
        if answer.startswith("no answer"):
            self._answers.lose()
        self._step("after the listener's answer")

    def _reset(self) -> None:
        self._content, self._sender, self._recipients = None, None, []


class _Answers(io.RawIOBase):
    """The replies that the steward has not read yet."""

    def __init__(self, greeting: bytes) -> None:
        self._unread = greeting
        self.ended = False

    def add(self, reply: bytes) -> None:
        """Postfix writes a reply."""
        self._unread += reply

    def lose(self) -> None:
        """The connection breaks before the unread replies arrive."""
        self._unread, self.ended = b"", True

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line; empty after the end of the connection."""
        line, end, self._unread = self._unread.partition(b"\r\n")
        return line + end


def _path(line: bytes) -> str:
    found = re.search(rb"<(.*?)>", line)
    return found[1].decode("utf-8", "surrogateescape") if found else ""
