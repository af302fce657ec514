"""Load scenarios of any size; a test checks their results, and a report prints them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.waiting import until
from wire import packets
from wire.crowd import Crowd, Letter, Pause, Script, begin, final_answer, letter
from wire.loads import Held, Sender, fields, held, letters
from wire.running import Running

PROMPT = 180.0
"""Seconds to wait for a whole load to be answered: a deadline for a busy machine, ten times what it takes."""

POOL = 2
"""Threads that libmilter keeps in each worker when it has nothing to do (worker.c, MIN_WORKERS). A worker says that it
is ready just before it starts them, so that a first count may be without them."""

JOURNAL = 4
"""Descriptors that each worker may open for the journal when it first writes: database, log, index, folder."""


def play(crowd: Crowd, while_: Callable[[], bool], *, within: float = PROMPT) -> None:
    """Play as long as something is so. Raises TimeoutError if it stays so."""
    deadline = time.monotonic() + within
    while while_():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {within:g} s: {len(crowd)} sessions, failures: {crowd.failures[:3]}")
        crowd.step(time.monotonic() + 0.1)


# -- many sessions, few of which send


@dataclass(frozen=True)
class Many:
    """The results of many sessions at once."""

    before: Held
    opened: Held
    sent: int
    seconds: float
    open_at_the_end: int
    failures: list[str]
    wrong: list[str]
    deferred: int
    after: Held


def idle(opened: list[None]) -> Script:
    """A session that sends nothing after its connection, for as long as the crowd runs."""
    yield from begin()
    opened.append(None)
    yield Pause(b"", float("inf"))


ORDINARY: list[tuple[Letter, int]] = [(letter(fields(2), "accept"), 1)]


def many(
    running: Running,
    *,
    sessions: int,
    sending: int,
    messages: int,
    warm: int = 0,
    mixture: list[tuple[Letter, int]] | None = None,
) -> Many:
    """So many sessions at once, some of which send until so many messages have their final answer."""
    sender, opened = Sender(mixture or letters()), list[None]()
    with Crowd(running.address) as crowd:
        sender.keep(crowd, 20, warm)  # memory that a worker keeps for good does not count
        before = held(running.milter)
        for _ in range(sessions - sending):
            crowd.add(idle(opened))
        play(crowd, lambda: len(opened) + len(crowd.failures) < sessions - sending)
        quiet = held(running.milter)
        sender.clear()
        for _ in range(sending):
            crowd.add(sender.session())
        began = time.monotonic()
        play(crowd, lambda: sender.count < messages and not crowd.failures)
        took, still_open = time.monotonic() - began, len(crowd)
        sender.stopped = True
        play(crowd, lambda: len(crowd) > sessions - sending)
        failures = crowd.failures
    after = wait_for_quiet(running, before)
    return Many(before, quiet, sender.count, took, still_open, failures, sender.wrong, sender.deferred, after)


# -- slow clients


@dataclass(frozen=True)
class Slow:
    """The results of fast clients beside slow ones."""

    alone: list[float]
    beside: list[float]
    """Seconds that each of the fast ones' messages took, before the slow ones came and beside them."""
    messages: int
    final_answers: list[str]
    """The slow ones'."""
    failures: list[str]
    wrong: list[str]
    deferred: int


def slow_client(
    header: list[tuple[str, str]], pause: float, final_answers: list[str], done: Callable[[], bool]
) -> Script:
    """A client that sends a header field from time to time, and ends when it may."""
    yield from begin()
    yield packets.mail("clerk@council.test") + packets.rcpt("parent@family.test") + packets.data("4dX1slow")
    for field in header:
        yield Pause(packets.header([field]), pause)
    while not done():
        yield Pause(b"", pause)
    final_answers.append(final_answer([(yield packets.END_OF_HEADER)]))


def slow(running: Running, *, clients: int, pause: float, lines: int, fast: int, messages: int) -> Slow:
    """Fast sessions alone for so many messages, then beside slow clients for at least as many."""
    header = fields(30, *[(f"X-Line-{number}", "x") for number in range(lines - 3)])
    sender, final_answers = Sender(ORDINARY), list[str]()
    with Crowd(running.address) as crowd:
        for _ in range(fast):
            crowd.add(sender.session())
        play(crowd, lambda: sender.count < messages)
        alone = sender.clear()
        began = time.monotonic()
        for _ in range(clients):
            crowd.add(slow_client(header, pause, final_answers, lambda: sender.count >= messages))
        play(crowd, lambda: len(final_answers) + len(crowd.failures) < clients, within=PROMPT + pause * lines)
        assert time.monotonic() - began >= pause * lines
        beside, count = sender.took, sender.count
        return Slow(alone, beside, count, final_answers, crowd.failures, sender.wrong, sender.deferred)


# -- sessions that die

STAGES = ("connect", "negotiate", "mail", "rcpt", "data", "header", "eoh", "body", "eom")
"""After what a session dies: in `header` in the middle of a packet, at `eom` before it hears the answer."""


def dying(stage: str) -> Script:
    """A session whose client dies after this stage of a message that would be held."""
    if stage == "connect":
        return
    yield packets.NEGOTIATE
    if stage == "negotiate":
        return
    yield packets.connect()
    envelope = packets.mail("hold@council.test")
    if stage != "mail":
        envelope += packets.rcpt("parent@family.test")
    if stage in ("mail", "rcpt"):
        yield Pause(envelope, 0)
        return
    yield envelope + packets.data("4dX1c23kLmz9Q")
    if stage == "data":
        return
    header = packets.header(fields(30))
    if stage == "header":
        yield Pause(header[:-200], 0)
        return
    yield header + packets.END_OF_HEADER
    if stage == "eoh":
        return
    yield packets.body(b"Dear all\r\n")
    if stage == "eom":
        yield Pause(packets.END_OF_MESSAGE, 0)


@dataclass(frozen=True)
class Deaths:
    """The resources held before and after sessions that died."""

    before: Held
    after: Held
    failures: list[str]
    wrong: list[str]
    deferred: int
    beside: int
    """Messages that other sessions sent meanwhile."""


def one_more_message(crowd: Crowd, sender: Sender) -> None:
    """Play until one more of the sender's messages has its final answer."""
    count = sender.count
    play(crowd, lambda: sender.count == count)


def deaths(running: Running, *, each: int, sending: int, warm: int = 0) -> Deaths:
    """So many sessions die at each stage, at once, while others send."""
    sender = Sender(letters())
    with Crowd(running.address) as crowd:
        sender.keep(crowd, 20, warm)
    with Crowd(running.address) as crowd:
        before = held(running.milter)
        sender.clear()
        for _ in range(sending):
            crowd.add(sender.session())
        for stage in STAGES:
            for _ in range(each):
                crowd.add(dying(stage))
            play(crowd, lambda: len(crowd) > sending)
            one_more_message(crowd, sender)
        sender.stopped = True
        play(crowd, lambda: len(crowd) > 0)
        failures = crowd.failures
    return Deaths(before, wait_for_quiet(running, before), failures, sender.wrong, sender.deferred, sender.count)


# -- a long time


@dataclass(frozen=True)
class Long:
    """The resources that the workers held after each tenth of the messages."""

    tenths: list[Held]
    final_answers: dict[str, int]
    seconds: float
    failures: list[str]
    wrong: list[str]
    deferred: int


def long(
    running: Running,
    *,
    messages: int,
    sessions: int,
    per_session: int = 20,
    told: Callable[[str], None] = lambda _: None,
) -> Long:
    """A mixture of mail in sessions that come and go."""
    sender, tenths = Sender(letters()), list[Held]()
    began = time.monotonic()
    with Crowd(running.address) as crowd:
        idle_ = held(running.milter)
        for _ in range(10):
            sender.keep(crowd, sessions, messages // 10, per_session)
            sender.took.clear()
            tenths.append(wait_for_quiet(running, tenths[0] if tenths else idle_, files=bool(tenths)))
            told(f"{sender.count:,} messages, {tenths[-1].kilobytes:,} kB")
        failures = crowd.failures
    return Long(tenths, dict(sender.final_answers), time.monotonic() - began, failures, sender.wrong, sender.deferred)


def wait_for_quiet(running: Running, before: Held, *, files: bool = False, within: float = PROMPT) -> Held:
    """Wait until the workers hold no more sockets and threads than before, nor files. Raises TimeoutError.

    The threads of libmilter's pool and the journal's descriptors may have been started or opened since.
    """
    seen: list[Held] = []
    workers = len(running.milter.workers())

    def quiet() -> bool:
        seen.append(held(running.milter))
        now = seen[-1]
        return (
            now.sockets <= before.sockets
            and now.threads <= before.threads + POOL * workers
            and (not files or now.descriptors <= before.descriptors + JOURNAL * workers)
        )

    try:
        until(quiet, within=within, what="sockets and threads to be given back")
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {seen[-1]}, before {before}") from None
    return seen[-1]
