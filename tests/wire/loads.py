"""Loads for a milter, and the resources that it holds meanwhile: memory, descriptors, threads, time."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.milter import Milter, upgrade_journal
from support.factories import rule, strangers
from wire import packets
from wire.crowd import Crowd, Letter, Pause, Script, begin, letter, send
from wire.running import Running

RULES = [
    rule(name="hidden", senders=["rewrite@*"], action="rewrite"),
    rule(name="held", senders=["hold@*"], action="quarantine"),
    rule(name="refused"),
]
"""The rules that the messages of `letters` are made for."""


def fields(people: int, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """A header that shows so many strangers."""
    return [("From", "Clerk <clerk@council.test>"), *addressed(strangers(people)), ("Subject", "School places"), *more]


def addressed(people: list[str], most: int = 1000) -> list[tuple[str, str]]:
    """To, and Cc for what one field cannot hold: Postfix cuts a field at 60,000 bytes."""
    parts = [people[begin : begin + most] for begin in range(0, len(people), most)]
    return [("Cc" if number else "To", ",\n ".join(part)) for number, part in enumerate(parts)]


def letters() -> list[tuple[Letter, int]]:
    """A mixture and its weights: mostly ordinary mail, some lists, every action, header and body of all sizes."""
    long = [(f"X-Trace-{number}", "x" * 900) for number in range(40)]
    multipart = ("Content-Type", "multipart/mixed; boundary=b")
    parts = b"--b\r\n\r\nDear all\r\n--b--\r\n"
    return [
        (letter(fields(1), "accept"), 600),
        (letter(fields(3), "accept", body=b"x" * 60_000), 200),
        (letter(fields(8, *long), "accept"), 80),
        (letter([*fields(1), ("Bcc", "x" * 5000)], "accept"), 20),
        (letter(fields(30), "550"), 40),
        (letter(fields(500), "550"), 10),
        (letter(fields(12), "hold", sender="hold@council.test"), 20),
        (letter(fields(40), "rewrite", sender="rewrite@council.test"), 20),
        (
            letter(
                fields(20, ("MIME-Version", "1.0"), multipart), "rewrite", sender="rewrite@council.test", body=parts
            ),
            10,
        ),
    ]


@contextmanager
def milter(workers: int = 2, **over: Any) -> Iterator[Running]:
    """A milter of its own on a unix socket, with its journal; gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="udl"))
    try:
        running = Running(directory, "unix")
        running.configure(**{"rules": RULES, "milter": {"workers": workers}, **over})
        upgrade_journal(running.config)
        with running.milter:
            yield running
    finally:
        shutil.rmtree(directory)


@dataclass(frozen=True)
class Held:
    """The resources that all workers hold at one moment."""

    kilobytes: int
    """Memory, their supervisor's included, what they share counted once (PSS)."""
    descriptors: int
    sockets: int
    """Of the descriptors: sessions are sockets, the journal's files are opened when they are first needed."""
    threads: int
    seconds: float
    """Of processor time, since they were started."""


def held(milter_: Milter) -> Held:
    """Look at the workers (proc(5))."""
    pids = milter_.workers()
    return Held(
        sum(_memory(pid) for pid in (milter_.pid, *pids)),
        len(descriptors := [fd for pid in pids for fd in _descriptors(pid)]),
        sum(fd.startswith("socket:") for fd in descriptors),
        sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids),
        sum(_seconds(pid) for pid in pids),
    )


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _descriptors(pid: int) -> Iterator[str]:
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield str(fd.readlink())


def _seconds(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


class Sender:
    """Sends letters in any number of sessions, and counts the final answers and their times."""

    def __init__(self, mixture: list[tuple[Letter, int]], *, seed: int = 1) -> None:
        self._letters = [message for message, _ in mixture]
        self._weights = list(itertools.accumulate(weight for _, weight in mixture))
        self._chance = random.Random(seed)
        self.final_answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.deferred = 0
        """The number of messages answered 451 because the journal was too slow: none passes without a record."""
        self.took: list[float] = []
        self.stopped = False

    @property
    def count(self) -> int:
        """The number of messages with a final answer."""
        return self.final_answers.total()

    def clear(self) -> list[float]:
        """Begin a new account; returns how long the messages of the old one took."""
        took, self.took, self.final_answers = self.took, [], Counter()
        return took

    def session(self, messages: int | None = None) -> Script:
        """One session of so many messages; without a number, until `stopped`."""
        yield from begin()
        for _ in itertools.count() if messages is None else range(messages):
            if self.stopped:
                break
            [message] = self._chance.choices(self._letters, cum_weights=self._weights)
            began = time.perf_counter()
            word = yield from send(message)
            self.took.append(time.perf_counter() - began)
            self.final_answers[word] += 1
            if word == "451" and message.due == "rewrite":
                self.deferred += 1
            elif word != message.due:
                self.wrong.append(f"{word} where {message.due} was due")
        yield Pause(packets.QUIT, 0)

    def keep(self, crowd: Crowd, sessions: int, total: int, per_session: int = 20) -> None:
        """Send `total` messages, `per_session` in each session, and so many sessions at once."""
        goal, given = self.count + total, 0
        while given < total or len(crowd):
            while given < total and len(crowd) < sessions:
                crowd.add(self.session(min(per_session, total - given)))
                given += min(per_session, total - given)
            crowd.step()
        assert self.count == goal or crowd.failures, f"{goal - self.count} messages are missing"
