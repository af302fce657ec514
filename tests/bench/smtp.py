"""An SMTP client for measurements: it spends little of its own, and waits for nothing but the server.

`lab.client` says exactly what it is told and keeps every word of the answers; here a message is made beforehand, byte
for byte, and the answers are only looked at.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from lab.client import wire_form

TIMEOUT = 60.0
"""Seconds to wait for an answer."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message ready to be sent: the envelope's commands, and the message as SMTP carries it, final dot included."""

    envelope: tuple[bytes, ...]
    content: bytes

    @classmethod
    def of(cls, message: bytes, *, sender: str, recipients: Sequence[str]) -> Self:
        """A letter from a message with any line ends."""
        commands = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"]
        return cls(tuple(f"{command}\r\n".encode() for command in commands), wire_form(message) + b".\r\n")


class RefusedError(RuntimeError):
    """The server did not agree; the text is its answer."""


class Session:
    """One SMTP session with 127.0.0.1. A context manager: QUIT at the end.

    With `pipelined` the commands of an envelope go out together (RFC 2920), as mail servers send them; without, each
    waits for the answer to the one before it, as mail programs do.
    """

    def __init__(self, port: int, *, pipelined: bool = False) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        # Without it a message waits 40 ms for the server's delayed ACK, which would be measured as the milter's.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        self._pipelined = pipelined
        self._expect(1)
        self._say(b"EHLO client.council.test\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._say(b"QUIT\r\n")
        except (OSError, RefusedError):
            pass  # the server closed the connection first
        finally:
            self._answers.close()
            self._socket.close()

    def send(self, letter: Letter) -> None:
        """One message, from MAIL to the answer after the final dot. Raises RefusedError; the session is then over."""
        if self._pipelined:
            self._socket.sendall(b"".join(letter.envelope))
            self._expect(len(letter.envelope))
        else:
            for command in letter.envelope:
                self._say(command)
        self._say(letter.content)

    def _say(self, words: bytes) -> None:
        self._socket.sendall(words)
        self._expect(1)

    def _expect(self, count: int) -> None:
        """Wait for so many answers, each of which has to agree."""
        while count:
            line = self._answers.readline()
            if line[:1] not in (b"2", b"3"):
                raise RefusedError(line.decode("utf-8", "replace").strip() or "the server hung up")
            count -= line[3:4] != b"-"


def single_session(port: int, letters: Iterable[Letter]) -> list[float]:
    """Milliseconds of each of these messages in one SMTP session, from MAIL to the answer after the final dot."""
    took = []
    with Session(port) as session:
        for letter in letters:
            began = time.perf_counter()
            session.send(letter)
            took.append((time.perf_counter() - began) * 1e3)
    return took


def rate(port: int, letters: Sequence[Letter], *, sessions: int) -> float:
    """Messages a second over some sessions at once, which take the letters from one pile."""
    pile = iter(letters)
    lock = threading.Lock()
    failures: list[BaseException] = []
    gate = threading.Barrier(sessions + 1)

    def send() -> None:
        try:
            with Session(port, pipelined=True) as session:
                gate.wait(TIMEOUT)
                while True:
                    with lock:
                        letter = next(pile, None)
                    if letter is None:
                        break
                    session.send(letter)
                gate.wait(TIMEOUT)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that measures
            failures.append(error)
            gate.abort()

    threads = [threading.Thread(target=send, daemon=True) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    began = ended = time.perf_counter()
    try:
        gate.wait(TIMEOUT)
        began = time.perf_counter()
        gate.wait(TIMEOUT)
        ended = time.perf_counter()
    except threading.BrokenBarrierError:
        pass  # why is in `failures`
    for thread in threads:
        thread.join(TIMEOUT)
    if failures:
        raise RuntimeError("a session failed") from next(
            (failure for failure in failures if not isinstance(failure, threading.BrokenBarrierError)), failures[0]
        )
    return len(letters) / (ended - began)
