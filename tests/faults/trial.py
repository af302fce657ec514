"""One fault under load: the answers to the clients, the lines of the log, the time to recovery, and four sums."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy

from faults.table import Row
from lab import toml
from lab.client import Client
from lab.gateway import Gateway
from lab.milter import Milter
from lab.steward import Steward
from lab.waiting import until
from live_postfix.load import (
    KINDS,
    RECIPIENTS,
    RULES,
    Answer,
    Letter,
    Load,
    Whereabouts,
    over_the_limit,
    sender,
    taken_and_lost,
    wrongs,
)
from live_postfix.load import letter as plain_letter
from live_postfix.stage import Stage
from undisclosed.config.load import load
from undisclosed.incidents.records import State

RIGHT = {"ordinary": 250, "rewrite": 250, "quarantine": 250, "reject": 550}
"""The reply code of each kind of message while nothing fails."""

PAUSE = 0.03
"""Seconds between two messages of a client."""

ALL_IS_WELL = frozenset(
    {"message", "milter_starting", "config_warning", "running_as_root", "milter_ready", "milter_stopped"}
)
"""Events that do not concern a fault."""

POSTFIX_WARNS = re.compile(
    r"warning: (?:milter \S+: )?(connect to Milter service|can't (?:read|write) SMFIC_\w+).*?(?:: ([A-Z][a-z ]+))?$"
)
"""Postfix's warning about a milter that does not answer: the event, and the system's reason."""


WITHIN = 20.0
"""Seconds for the steward to deal with all messages of a trial."""


class Beside:
    """The steward that runs beside the milter. One process for many tests: starting one takes longer than a fault."""

    def __init__(self) -> None:
        self._steward: Steward | None = None
        self._configuration = ""
        self._is_paused = False

    def start(self, gateway: Gateway) -> Steward:
        """The running steward of this gateway; a new one if the configuration is another one now."""
        text = gateway.config.read_text()
        if self._steward is None or not self._steward.is_running or text != self._configuration:
            self.stop()
            self._steward = Steward(gateway.config, directory=gateway.state)
            self._steward.start()
            self._configuration = text
        self._go_on()
        return self._steward

    def pause(self, journal: Path) -> None:
        """Suspend it between two tests: while no milter runs, its notices would wait in maildrop."""
        if self._steward is None or not self._steward.is_running:
            return
        with closing(sqlite3.connect(journal, timeout=10)) as other:
            other.execute("BEGIN IMMEDIATE")  # it must not be suspended while it holds the lock
            os.kill(self._steward.pid, signal.SIGSTOP)
        self._is_paused = True

    def _go_on(self) -> None:
        if self._is_paused and self._steward is not None and self._steward.is_running:
            os.kill(self._steward.pid, signal.SIGCONT)
        self._is_paused = False

    def stop(self) -> None:
        """End it."""
        self._go_on()
        steward, self._steward = self._steward, None
        if steward is not None:
            steward.stop()


@dataclass
class Trial:
    """One test's fault, on a gateway whose milter was started just now. Messages are numbered across all its loads."""

    stage: Stage
    steward: Steward
    record: Callable[[str, object], None]
    letter: Letter = plain_letter
    judged: Callable[[Answer], Answer] = lambda answer: answer
    """Replaces an answer's kind by that of the rule that applied, if it is another one."""
    _answers: list[Answer] = field(default_factory=list)
    _loads: list[Load] = field(default_factory=list)
    _logged: list[dict[str, Any]] = field(default_factory=list)
    _log_before: int = 0
    _steward_before: int = 0
    _incidents_before: int = 0
    _maillog_before: int = 0
    _seconds: float = 0

    def __post_init__(self) -> None:
        self._log_before = len(self.milter.log())
        self._steward_before = len(self.steward.log())
        self._url = load(self.gateway.config).journal.url
        [(last,)] = query(self._url, "SELECT coalesce(max(id), 0) FROM incident")
        self._incidents_before = int(last)
        self._maillog_before = len(self.stage.postfix.log_lines())

    @property
    def gateway(self) -> Gateway:
        """The gateway."""
        return self.stage.gateway

    @property
    def milter(self) -> Milter:
        """Its milter."""
        return self.stage.gateway.milter

    def load(self, **over: Any) -> Load:
        """Clients that send all kinds of messages; see `Load`."""
        load = Load(
            self.stage.postfix.port, **{"pause": PAUSE, "letter": self.letter, "begun": 1000 * len(self._loads), **over}
        )
        self._loads.append(load)
        return load

    def start(self) -> None:
        """Start the milter again; its log so far is kept."""
        self._logged, self._log_before = self.logged(), 0
        self.milter.start()

    def one_of_each(self) -> list[Answer]:
        """A message of each kind, one after the other in one session."""
        first = 1_000_000 + len(self._answers)
        with Client(self.stage.postfix.port) as session:
            answers = [
                Answer(
                    number, kind, session.send(self.letter(number, kind), sender=sender(kind), to=RECIPIENTS).final.code
                )
                for number, kind in enumerate(KINDS, first)
            ]
        self._answers += answers
        return answers

    def took(self, number: int, kind: str, code: int = 250) -> None:
        """Count a message that the test sent itself."""
        self._answers.append(Answer(number, kind, code))

    def as_ever(self) -> bool:
        """Whether a message of each kind is answered as before the fault."""
        return all(answer.code == RIGHT[answer.kind] for answer in self.one_of_each())

    def recover(self) -> None:
        """Wait until messages are answered as before, from the end of the fault on. Raises TimeoutError."""
        began = time.monotonic()
        until(self.as_ever, what="every kind of message to be answered as ever")
        self._seconds = time.monotonic() - began

    @property
    def answers(self) -> list[Answer]:
        """Every answer that any client got."""
        given = [*(answer for load in self._loads for answer in load.answers), *self._answers]
        return [self.judged(answer) for answer in given]

    def codes(self) -> Counter[int]:
        """The number of answers by reply code."""
        return Counter(answer.code for answer in self.answers)

    def logged(self, **having: object) -> list[dict[str, Any]]:
        """The events that the milter has logged since the test began, over all its starts."""
        events = (*self._logged, *self.milter.log()[self._log_before :])
        return [event for event in events if having.items() <= event.items()]

    def report(self, fault: str, recovery: str, *, delivered_again: bool = False) -> None:
        """Compare answers and places of all messages, and report the row of the fault."""
        wrong = wrongs(self.stage, self.answers, self.letter, delivered_again=delivered_again)
        assert wrong == [], "\n".join(wrong)
        shown, lost = over_the_limit(self.stage), taken_and_lost(self.stage, self.answers)
        self._wait_for_the_steward()
        untold, twice = self._untold(), self._twice(delivered_again=delivered_again)
        found = {"shown": shown, "lost": lost, "untold": untold, "twice": twice}
        assert not any(found.values()), (found, self._warned())
        assert self.steward.is_running
        row = Row(
            fault=fault,
            answers=dict(sorted(self.codes().items())),
            log=dict(Counter(event["event"] for event in self.logged() if event["event"] not in ALL_IS_WELL))
            | dict(Counter(event["event"] for event in self._warned())),
            postfix=dict(self._postfix_warned()),
            recovery=recovery,
            seconds=self._seconds,
            over_the_limit=len(shown),
            lost=len(lost),
            untold=len(untold),
            twice=len(twice),
        )
        self.record("fault", row.as_json())

    def _warned(self) -> list[dict[str, Any]]:
        """The steward's warnings and errors since the test began."""
        return [event for event in self.steward.log()[self._steward_before :] if event.get("level") != "info"]

    def _wait_for_the_steward(self) -> None:
        """Wait until each taken message on which a rule acted has its notice. One that never gets it is counted."""
        with contextlib.suppress(TimeoutError):
            until(lambda: not self._untold(), within=WITHIN, what="the steward to tell of every message")

    def _untold(self) -> list[Answer]:
        """The messages that were taken, and changed or held, and about which no notice was sent or is due."""
        owed = "SELECT subject FROM incident JOIN notice ON incident_id = incident.id WHERE incident.id > :before"
        rows = query(self._url, f"{owed} AND notice.state IN ('due', 'sent')", before=self._incidents_before)
        told = {int(subject.split()[0]) for (subject,) in rows if subject}
        acted = [answer for answer in self.answers if answer.code == 250 and answer.kind in ("rewrite", "quarantine")]
        return [answer for answer in acted if answer.number not in told]

    def _twice(self, *, delivered_again: bool) -> list[int]:
        """The messages that were delivered twice, and that Postfix did not deliver twice by itself."""
        where = Whereabouts.of(self.stage)
        numbers = [answer.number for answer in self.answers]
        return [number for number in numbers if len(where.places(number, delivered_again=delivered_again)) > 1]

    def _postfix_warned(self) -> Counter[str]:
        lines = self.stage.postfix.log_lines()[self._maillog_before :]
        found = (POSTFIX_WARNS.search(line) for line in lines)
        return Counter(": ".join(filter(None, match.groups())) for match in found if match)


def query(url: str, text: str, **values: object) -> list[Any]:
    """The rows that a query to the journal returns."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(sqlalchemy.text(text), values))
    finally:
        engine.dispose()


def close_all(journal: Path) -> None:
    """Close what a test before has left open in the journal: its mail is gone, and would be reported to its senders."""
    with closing(sqlite3.connect(journal, timeout=10)) as database, database:
        database.execute(f"UPDATE queue_copy SET state = '{State.DELETED}'")
        database.execute("UPDATE notice SET state = 'suppressed' WHERE state = 'due'")


def fresh(stage: Stage, **sections: Any) -> None:
    """Have a milter under a rule for each kind of message that no fault has touched: a new one where need be."""
    document = stage.gateway.policy("reject", rules=RULES, **sections)
    milter = stage.gateway.milter
    touched = milter.log_file.exists() and (milter.log(event="worker_died") or not milter.is_running)
    if touched or stage.gateway.config.read_text() != toml.dumps(document):
        milter.stop()  # a backoff, or another policy: a reload would be noted in the log
    stage.policy("reject", rules=RULES, **sections)
