"""Clients that send one message after the other, and the place of each message at the end."""

from __future__ import annotations

import re
import smtplib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from lab.client import Client
from lab.gateway import LIMIT
from lab.sink import Delivery
from lab.waiting import until
from live_postfix.compare import same, subject
from live_postfix.stage import Stage
from support.delivered_header import leaks
from support.factories import rule, strangers

KINDS = ("ordinary", "rewrite", "quarantine", "reject")
"""The kinds of messages, sent in turn: a message within the limit, and three beyond it, by the rule that they meet."""

RULES = [
    rule(name=kind, senders=[f"{kind}@council.test"], action=kind) for kind in (*KINDS[1:], "split", "delay", "warn")
]
"""The rules under which each kind meets its action, and a sender for each other action."""

Letter = Callable[[int, str], bytes]
"""Makes the message of a number and a kind."""

RECIPIENTS = ("parent@family.test",)

NO_ANSWER = 0
"""The code of a message whose connection broke: it may have been delivered, held or lost."""


class Answer(NamedTuple):
    """The final reply to one message."""

    number: int
    kind: str
    code: int


def sender(kind: str) -> str:
    """The envelope sender that the rule of this kind is for."""
    return f"{kind}@council.test"


def letter(number: int, kind: str) -> bytes:
    """A message that its Subject tells from all others: eleven strangers in To, two if it is an ordinary one."""
    people = strangers(2 if kind == "ordinary" else 11)
    lines = (f"From: {sender(kind)}", "To: " + ", ".join(people), f"Subject: {number} {kind}", "", "Dear all", "")
    return "\n".join(lines).encode()


@dataclass
class Load:
    """Some clients at once, from the beginning of the `with` block to its end.

    Each sends `per_session` messages in a session; after a temporary refusal it begins a new one, as clients do when
    they try again.
    """

    port: int
    kinds: Sequence[str] = KINDS
    clients: int = 4
    per_session: int = 12
    pause: float = 0
    """Seconds between two messages of a client: what a fault that lasts for seconds lets through stays countable."""
    letter: Letter = letter
    sessions: int = 0
    """The number of sessions begun."""
    begun: int = 0
    """The number of the next message, by default counted from 0."""
    _answers: list[Answer] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    @property
    def answers(self) -> list[Answer]:
        """All answers so far, in the order in which they came."""
        with self._lock:
            return list(self._answers)

    def go_on(self, messages: int) -> list[Answer]:
        """Wait until so many more messages have had their answer, and return these answers."""
        before = len(self.answers)
        until(lambda: len(self.answers) >= before + messages, what=f"{messages} more answers")
        return self.answers[before:]

    def codes(self) -> Counter[int]:
        """The number of answers by reply code."""
        return Counter(answer.code for answer in self.answers)

    def _send(self) -> None:
        while not self._over.wait(self.pause):
            number, kind = -1, ""
            try:
                with Client(self.port) as session:
                    with self._lock:
                        self.sessions += 1
                    for _ in range(self.per_session):
                        with self._lock:
                            number, self.begun = self.begun, self.begun + 1
                        kind = self.kinds[number % len(self.kinds)]
                        outcome = session.send(self.letter(number, kind), sender=sender(kind), to=RECIPIENTS)
                        self._note(Answer(number, kind, outcome.final.code))
                        if outcome.final.code // 100 == 4 or self._over.wait(self.pause):
                            break
            except (OSError, smtplib.SMTPException):
                if kind:
                    self._note(Answer(number, kind, NO_ANSWER))

    def _note(self, answer: Answer) -> None:
        with self._lock:
            self._answers.append(answer)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The places of all messages sent, by their numbers, once the gateway has settled."""

    outside: dict[int, list[Delivery]]
    held: Counter[int]

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """Wait until nothing is under way, and look."""
        stage.gateway.settle()
        outside: dict[int, list[Delivery]] = defaultdict(list)
        for delivery in stage.sink.deliveries:
            if not delivery.sender:
                continue  # a notice
            outside[int(subject(delivery.data).split()[1])].append(delivery)
        queue_ids = stage.held()
        headers = stage.postfix.run("postcat", "-hq", *queue_ids).stdout if queue_ids else ""
        held = Counter(int(number) for number in re.findall(r"^Subject: (\d+)", headers, re.MULTILINE))
        assert held.total() == len(queue_ids)
        return cls(outside, held)

    def places(self, number: int, *, delivered_again: bool = False) -> list[str]:
        """Every place where a message is. With `delivered_again`, all deliveries of one queue file count as one."""
        deliveries = self.outside.get(number, ())
        times = len({_queue_id(delivery) for delivery in deliveries}) if delivered_again else len(deliveries)
        return ["outside"] * times + ["held"] * self.held[number]


def _queue_id(delivery: Delivery) -> bytes:
    """The queue id in the topmost Received field: the one of the Postfix that delivered it."""
    found = re.search(rb"^Received:.*?\bid (\w+)", delivery.data, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def wrongs(
    stage: Stage, answers: Sequence[Answer], letter: Letter = letter, *, delivered_again: bool = False
) -> list[str]:
    """The errors in the handling of all messages, one sentence each, once the gateway has settled.

    An accepted message is, once, at the place of its kind: outside, unchanged or rewritten, or on hold. A refused one
    is at no place. A message over the limit is never outside unchanged, independent of the answer to its client.

    With `delivered_again` Postfix may deliver one queue file twice: an smtp(8) that is ended between the answer of the
    next hop and its own record of it leaves the message in the queue (RFC 5321, section 6.1).
    """
    found, where = [], Whereabouts.of(stage)
    for answer in answers:
        places = where.places(answer.number, delivered_again=delivered_again)
        if places not in _right_places(answer):
            found.append(f"{answer}, and it is {places or 'nowhere'}")
        for copy in where.outside.get(answer.number, ()):
            as_sent = same(copy.data, letter(answer.number, answer.kind)) if answer.kind == "ordinary" else False
            if not as_sent and (answer.kind == "ordinary" or leaks(copy.header)):
                found.append(f"{answer} left as {copy.header!r}")
    strangers_here = {*where.outside, *where.held} - {answer.number for answer in answers}
    return [*found, *(f"{number} came from nowhere" for number in sorted(strangers_here))]


def over_the_limit(stage: Stage, limit: int = LIMIT) -> list[Delivery]:
    """The messages outside that show more external addresses than the policy allows, by plain expressions."""
    return [delivery for delivery in stage.sink.deliveries if len(_external(delivery.header)) > limit]


def taken_and_lost(stage: Stage, answers: Sequence[Answer]) -> list[Answer]:
    """The messages that were answered with 250 and are neither outside nor held, once the gateway has settled."""
    where = Whereabouts.of(stage)
    return [answer for answer in answers if answer.code == 250 and not where.places(answer.number)]


def _external(header: bytes) -> set[str]:
    return {words.partition(": ")[2] for words in leaks(header) if "@" in words}


def _right_places(answer: Answer) -> list[list[str]]:
    """The places where a message may be after this answer; an empty list: none."""
    taken = {"quarantine": ["held"], "reject": []}.get(answer.kind, ["outside"])
    match answer.code:
        case 250:
            return [taken] if taken else []
        case 550:
            return [[]] if answer.kind == "reject" else []
        case 0:
            return [[], taken]
        case code:
            return [[]] if code // 100 == 4 else []
