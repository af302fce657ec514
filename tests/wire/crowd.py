"""Many milter sessions at once in one thread: each follows a script, and one loop moves them all.

A script is a generator: it yields what to send, and goes on with the answer; with a `Pause` it goes on after a time,
independent of the others. It may end at any point: its connection is closed then, as that of a client that dies.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from miltertest import constants

from wire import packets

CONTINUE = constants.SMFIR_CONTINUE.encode()
ANSWER_TIMEOUT = 60.0
"""Seconds without any answer of the milter after which it counts as dead."""


class Pause(NamedTuple):
    """Send this, and go on after so many seconds; no answer is due."""

    content: bytes
    seconds: float


_NUMBERS = itertools.count(1)

Script = Generator[bytes | Pause, bytes, None]


@dataclass(frozen=True)
class Letter:
    """One message in the pieces that each get an answer, and the final answer that is due."""

    envelope: bytes
    """MAIL and RCPT: DATA follows, with a queue id of its own."""
    header: bytes
    body: bytes
    due: str
    """accept, hold or rewrite; or the code of the reply."""


def letter(
    fields: list[tuple[str, str]], due: str, *, sender: str = "clerk@council.test", body: bytes = b"Dear all\r\n"
) -> Letter:
    """A message to one stranger, ready to be sent any number of times."""
    envelope = packets.mail(sender) + packets.rcpt("parent@family.test")
    return Letter(envelope, packets.header(fields) + packets.END_OF_HEADER, packets.body(body), due)


def begin() -> Script:
    """Negotiation and the client's connection."""
    answer = yield packets.NEGOTIATE
    assert answer[:1] == constants.SMFIC_OPTNEG.encode(), answer
    answer = yield packets.connect()
    assert answer == CONTINUE, answer


def send(message: Letter) -> Generator[bytes | Pause, bytes, str]:
    """One message; returns its final answer in the words of `Letter.due`."""
    answer = yield message.envelope + packets.data(f"4dX1{next(_NUMBERS):09}")
    assert answer == CONTINUE, answer
    answer = yield message.header
    if answer != CONTINUE:
        return final_answer([answer])
    yield message.body
    answers = [(yield packets.END_OF_MESSAGE)]
    while answers[-1][:1].decode() not in packets.FINAL:
        answers.append((yield b""))
    return final_answer(answers)


def final_answer(answers: list[bytes]) -> str:
    """The answer of the milter, in the words of `Letter.due`."""
    letters = {answer[:1].decode() for answer in answers}
    last = answers[-1]
    if last[:1].decode() == constants.SMFIR_REPLYCODE:
        return last[1:4].decode()
    if constants.SMFIR_QUARANTINE in letters:
        return "hold"
    return "rewrite" if len(answers) > 1 else "accept"


@dataclass(eq=False, slots=True)
class _Session:
    script: Script
    socket: socket.socket
    unsent: bytes = b""
    received: bytearray = field(default_factory=bytearray)
    answers: deque[bytes] = field(default_factory=deque)
    waits: bool = True
    """Whether the script goes on with the next answer."""


class Crowd:
    """The sessions, and what failed. A context manager; at its end every connection is closed."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._sessions: set[_Session] = set()
        self._alarms: list[tuple[float, int, _Session]] = []
        self._numbers = itertools.count()
        self.failures: list[str] = []
        """Connections refused or lost, and answers that were not due."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for session in list(self._sessions):
            self._end(session)
        self._selector.close()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, script: Script) -> None:
        """Open one more session, and begin its script."""
        family = socket.AF_UNIX if isinstance(self._address, Path) else socket.AF_INET
        peer = socket.socket(family)
        try:
            peer.settimeout(ANSWER_TIMEOUT)
            peer.connect(str(self._address) if isinstance(self._address, Path) else self._address)
        except OSError as error:
            peer.close()
            self.failures.append(f"not connected: {error}")
            return
        if family == socket.AF_INET:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setblocking(False)
        session = _Session(script, peer)
        self._sessions.add(session)
        self._selector.register(peer, selectors.EVENT_READ, session)
        self._go_on(session, None)

    def run(self, *, until: float | None = None) -> None:
        """Play until every session has ended, or until a moment (time.monotonic())."""
        while self._sessions and (until is None or time.monotonic() < until):
            self.step(until)

    def step(self, until: float | None = None) -> None:
        """Do what can be done now, or next."""
        now = time.monotonic()
        moments = [moment for moment in (until, self._alarms[0][0] if self._alarms else None) if moment is not None]
        ready = self._selector.select(max(0.0, min(moments) - now) if moments else ANSWER_TIMEOUT)
        for key, _ in ready:
            session: _Session = key.data
            if session.unsent:
                self._write(session, b"")
            if session in self._sessions:
                self._read(session)
        now = time.monotonic()
        while self._alarms and self._alarms[0][0] <= now:
            session = heapq.heappop(self._alarms)[2]
            if session in self._sessions:
                self._go_on(session, None)
        if not ready and not moments:
            for session in [waiting for waiting in self._sessions if waiting.waits]:
                self._fail(session, f"no answer within {ANSWER_TIMEOUT:g} s")

    def _read(self, session: _Session) -> None:
        try:
            content = session.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(session, str(error))
            return
        if not content:
            self._fail(session, "the milter closed the connection")
            return
        session.received += content
        session.answers.extend(packets.answers(session.received))
        while session.answers and session.waits and session in self._sessions:
            self._go_on(session, session.answers.popleft())

    def _go_on(self, session: _Session, answer: bytes | None) -> None:
        try:
            wanted = next(session.script) if answer is None else session.script.send(answer)
        except StopIteration:
            self._end(session)
            return
        except AssertionError as error:
            self._fail(session, f"an answer that was not due: {error}")
            return
        session.waits = not isinstance(wanted, Pause)
        if isinstance(wanted, Pause):
            moment = time.monotonic() + wanted.seconds
            heapq.heappush(self._alarms, (moment, next(self._numbers), session))
            wanted = wanted.content
        if wanted:
            self._write(session, wanted)

    def _write(self, session: _Session, content: bytes) -> None:
        content = session.unsent + content
        try:
            sent = session.socket.send(content)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(session, str(error))
            return
        had, session.unsent = bool(session.unsent), content[sent:]
        if had != bool(session.unsent):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.unsent else 0)
            self._selector.modify(session.socket, events, session)

    def _fail(self, session: _Session, why: str) -> None:
        self.failures.append(why)
        self._end(session)

    def _end(self, session: _Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
            self._selector.unregister(session.socket)
            session.socket.close()
            session.script.close()
