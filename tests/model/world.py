"""One host of the model test: a simulated Postfix, the milter's sessions, the journal, and a mortal steward."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import pytest
import structlog

from model.hold_queue import SimulatedHoldQueue
from model.letters import Letter, Taken, action_of, make_policy, transaction_number
from model.listener import Answer
from model.postfix import File, SimulatedPostfix
from support.factories import policy
from undisclosed import notices
from undisclosed.decision.edits import apply
from undisclosed.decision.header_bytes import as_field, split
from undisclosed.incidents import expiry
from undisclosed.incidents.records import JournalError, Transaction
from undisclosed.journal import rows
from undisclosed.journal.journal import Journal
from undisclosed.milter import answers, session
from undisclosed.notices import NoticeError, Templates
from undisclosed.policy import Action, Mode
from undisclosed.postfix.mail_log import LogSettings
from undisclosed.steward import alone, log_reader, privileged, release_check
from undisclosed.steward.context import Context
from undisclosed.steward.hold_queue import HoldQueueError
from undisclosed.steward.rounds import Steward

KEY: Final = b"0123456789abcdef0123456789abcdef"
START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
GATEWAY: Final = "mx1"
LONGEST_PAUSE: Final = 8 * 3600.0
"""Seconds between two rounds at most, as `work_long` makes them."""

SILENT: Final = structlog.wrap_logger(structlog.ReturnLogger(), processors=[lambda *_: ""])


class Killed(BaseException):
    """The steward's process ended at this point."""


@dataclass
class Faults:
    """The faults that are still to come."""

    dies_in: int | None = None
    """The steward is killed after so many steps."""
    journal_fails: frozenset[int] = frozenset()
    """The numbers of the writes, from now on, that fail with a lock."""
    milter_journal_fails: bool = False
    listener: list[Answer] = field(default_factory=list)
    """The answers to the next transactions of the private listener; the ones after them are 250."""
    sendmail_fails: int = 0
    """So many calls of sendmail(1) fail."""


@dataclass(frozen=True, slots=True)
class Told:
    """A notice that sendmail(1) has taken."""

    at: datetime
    running: float
    recipient: str
    text: str
    kind: str


class World:
    """Everything outside the steward, and the steward."""

    def __init__(self, directory: Path, template: Path, event: Callable[[str], None]) -> None:
        """`template` is an empty journal; `event` counts."""
        shutil.copy(template, directory / "journal.db")
        (directory / "mail.log").touch()
        self.journal_settings = {"url": f"sqlite:///{directory}/journal.db"}
        self.event = event
        self.wall = START
        self.latest = START
        """The latest time that the wall clock has shown."""
        self.running = 0.0
        """The monotonic clock, in seconds."""
        self.postfix = SimulatedPostfix(lambda: self.wall, directory / "mail.log")
        self.turn = 0
        self.policy = make_policy(0, self.journal_settings)
        self.templates = _templates()
        self.wandered = False
        """Whether notices may be 14 days late by the wall clock, or a record is missed: the administrator is told."""
        self.faults = Faults()
        self.rounds: list[tuple[float, datetime]] = []
        """The times of all rounds, by both clocks."""
        self.taken: list[Taken] = []
        self.told: list[Told] = []
        self.on_deleted: Callable[[File, bool], None] = lambda _file, _by_steward: None
        self.shortest_hold = self.policy.hold.expire_days
        """The least hold.expire_days of all policies so far."""
        self.doubtful: set[tuple[int, str]] = set()
        """Transaction and recipient of which the steward could not know whether Postfix took it."""
        self._numbers = iter(range(1, 1_000_000))
        self._stack = ExitStack()
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(expiry, "MAX_ROUND", LONGEST_PAUSE)  # a day has four rounds here, and not thousands
        patch.setattr(privileged, "LOCK_TIMEOUT", 0.0)  # nothing else runs while it waits
        # These ask postconf(1).
        logs = LogSettings(self.postfix.log, "postfix", frozenset({"postfix"}), "mail")
        patch.setattr(log_reader, "settings_of", lambda _config_dir: logs)
        patch.setattr(release_check, "listener_filter", lambda _config_dir: "")
        patch.setattr(alone, "other_holders", lambda _policy: ["an access table"])
        patch.setattr(rows, "datetime", _clock_of(self))
        patch.setattr(session, "datetime", _clock_of(self))
        self.journal = Journal(self.policy.journal, KEY)
        """The connection of milter and commands."""
        self._life: ExitStack | None = None
        self._steward: Steward | None = None
        self._writes = 0
        self._is_dead = False

    def close(self) -> None:
        """End everything."""
        self.stop()
        self.journal.close()
        self._stack.close()

    # -- time

    def tick(self, seconds: float) -> None:
        """Time passes on both clocks."""
        self.running += seconds
        self.wall += timedelta(seconds=seconds)
        self.latest = max(self.latest, self.wall)

    # -- mail

    def send(
        self,
        letter: Letter,
        recipients: Sequence[str],
        *,
        by_access: bool = False,
        by_sendmail: bool = False,
        leaves: bool = False,
        reuse: str = "",
    ) -> Taken | None:
        """A client hands a letter over; None if Postfix did not take it. `leaves`: the client goes."""
        number = next(self._numbers)
        file = self.postfix.begin(letter.content(), letter.sender, recipients, f"client{number}", reuse)
        answer = self._judged(letter, recipients, file.queue_id, 0 if by_sendmail else 40858)
        if leaves or isinstance(answer, answers.Refuse):
            self.postfix.refuse(file)
            if by_sendmail and not leaves:
                self.bounced(letter, answer)
            return None
        if isinstance(answer, answers.Rewrite):
            file.content = _edited(file.content, answer)
        if isinstance(answer, answers.Hold) or by_access:
            self.postfix.hold(file, by_milter=isinstance(answer, answers.Hold), by_access=by_access)
        else:
            self.postfix.accept(file)
        fates = {answers.Accept: "accepted", answers.Rewrite: "rewritten", answers.Hold: "held"}
        action = action_of(self.policy, letter)
        taken = Taken(
            number,
            letter,
            tuple(recipients),
            file,
            file.arrived,
            "held" if file.queue == "hold" else fates[type(answer)],  # type: ignore[arg-type]  # refusals have returned
            may_show=action in (Action.ACCEPT, Action.WARN) or self.policy.mode is Mode.MONITOR,
            stopped=by_access,
            warned=action is Action.WARN,
            recorded=isinstance(answer, answers.Hold | answers.Rewrite) and not self.faults.milter_journal_fails,
            first_id=file.queue_id,
        )
        self.taken.append(taken)
        self.event(f"mail {taken.fate}")
        return taken

    def _judged(self, letter: Letter, recipients: Sequence[str], queue_id: str, port: int) -> answers.Answer:
        runtime = session.Runtime(session.Snapshot(self.policy, KEY, GATEWAY), SILENT, _Recorder(self))
        milter = session.Session(runtime)
        try:
            milter.connect("127.0.0.1", port)
            milter.mail(letter.sender, "")
            for recipient in recipients:
                milter.rcpt(recipient)
            parts = split(letter.content())
            for raw in parts.fields:
                milter.header(*as_field(raw.name, raw.value))
            answer = milter.end_of_header(queue_id)
            if isinstance(answer, answers.Continue):
                milter.body(parts.rest.removeprefix(b"\n"))
                answer = milter.end_of_message()
            milter.answered(answer)
        except Exception as error:  # as callbacks.py does
            answer = milter.fault("model", error)
            raise AssertionError("the milter failed") from error
        return answer

    def bounced(self, letter: Letter, answer: answers.Answer) -> None:
        """sendmail(1) has taken a message that the milter refused: Postfix sends a bounce to its sender."""
        assert isinstance(answer, answers.Refuse)
        if answer.reply.code >= 500:
            assert letter.sender, f"{letter.name} was taken by sendmail(1), refused, and its bounce reaches nobody"

    # -- the steward

    @property
    def holds(self) -> bool:
        """Whether anything is on hold."""
        return any(file.queue == "hold" for file in self.postfix.files.values())

    @property
    def runs(self) -> bool:
        """Whether a steward runs."""
        return self._steward is not None

    def start(self) -> None:
        """Start the steward."""
        if self._steward is not None:
            return
        self._is_dead = False
        self._life = life = ExitStack()
        queue = life.enter_context(SimulatedHoldQueue(self.postfix, self.step, self._next_answer))
        try:
            queue.lock()
        except Killed:  # at its start; the next work starts it again
            self.event("killed")
            self.stop()
            return
        journal = Journal(self.policy.journal, KEY)
        life.callback(journal.close)
        self._watch(journal)
        dispatcher = notices.Dispatcher(journal, GATEWAY, self._sendmail)
        dispatch = partial(self._dispatch, dispatcher)
        self._steward = Steward(self._context(), journal, queue, SILENT, dispatch, lambda: self.running)
        life.callback(self._steward.close)

    def _dispatch(self, dispatcher: notices.Dispatcher, now: datetime) -> None:
        dispatcher.dispatch(self.policy, self.templates, now)

    def _context(self) -> Context:
        return Context(self.policy, KEY, GATEWAY)

    def start_another(self) -> None:
        """Another steward is started in a shell, beside the one that runs."""
        with SimulatedHoldQueue(self.postfix, lambda _: None, lambda: "250") as queue:
            try:
                queue.lock()
            except HoldQueueError:
                return
            raise AssertionError("two stewards work on one hold queue")

    def stop(self) -> None:
        """The steward's process ends; what it had in memory is gone."""
        self._steward = None
        if self._life is not None:
            self._life.close()
            self._life = None
            self._note_doubt()

    def round(self) -> float:
        """One round of the steward, if it runs; returns the seconds until the next."""
        try:
            return self._round()
        finally:
            for content, recipients, answered in self.postfix.released:
                if not answered:
                    self.doubtful.update((transaction_number(content) or 0, each) for each in recipients)

    def _round(self) -> float:
        if self._steward is None:
            return 15.0
        self._steward.context = self._context()
        self.rounds.append((self.running, self.wall))
        try:
            soon = self._steward.round(self.wall)
        except Killed:
            self.event("killed")
            self.stop()
            return 15.0
        except (JournalError, HoldQueueError) as error:
            self.event(f"round failed: {type(error).__name__}")
            return 1.0
        return min(15.0, max(0.5, (soon - self.wall).total_seconds()))

    def work(self, seconds: float) -> None:
        """Rounds as the process makes them, but about ten at most."""
        end = self.running + seconds
        while True:
            pause = self.round()
            self.postfix.deliver()
            if self.running >= end:
                return
            self.tick(min(max(pause, seconds / 10), end - self.running + 0.001))

    def work_long(self, seconds: float, pieces: int = 4) -> None:
        """Many rounds as a few: time passes in pieces, and after each the steward makes two rounds."""
        for _ in range(pieces):
            self.tick(seconds / pieces)
            for _ in range(2):
                self.round()
                self.postfix.deliver()
                self.tick(1)

    def step(self, name: str) -> None:
        """A point at which the steward can be killed."""
        if name == "after delete":
            self.note_deleted(by_steward=True)
        if self._is_dead:
            raise Killed  # a handler of the product's must not go on working
        if self.faults.dies_in is not None:
            self.faults.dies_in -= 1
            if self.faults.dies_in <= 0:
                self.faults.dies_in = None
                self._is_dead = True
                self.event(f"killed {name}")
                raise Killed

    def _watch(self, journal: Journal) -> None:
        """Let each write of this connection be a step that can fail."""
        database: Any = journal._database

        def watched(begin: Callable[..., AbstractContextManager[Any]]) -> Callable[..., AbstractContextManager[Any]]:
            @contextmanager
            def write(*args: Any, **kwargs: Any) -> Iterator[Any]:
                self.step("before a write")
                self._writes += 1
                if self._writes in self.faults.journal_fails:
                    self.event("journal locked")
                    raise JournalError("database is locked")
                with begin(*args, **kwargs) as connection:
                    yield connection
                self.step("after a write")

            return write

        database.write, database.write_fast = watched(database.write), watched(database.write_fast)

    def lock_journal(self, *writes: int) -> None:
        """Let these of the next writes fail."""
        self._writes = 0
        self.faults.journal_fails = frozenset(writes)

    def _next_answer(self) -> Answer:
        answer: Answer = self.faults.listener.pop(0) if self.faults.listener else "250"
        if answer != "250":
            self.event(f"listener: {answer}")
        return answer

    def _sendmail(self, message: EmailMessage, recipient: str) -> None:
        self.step("before sendmail")
        if self.faults.sendmail_fails:
            self.faults.sendmail_fails -= 1
            self.event("sendmail failed")
            raise NoticeError("sendmail ended with status 75")
        body = message.get_body(("plain",))
        text = f"{message['Subject']}\n{body.get_content() if body else ''}"
        kind = str(message["Message-ID"]).removeprefix("<").partition(".")[0]
        self.told.append(Told(self.wall, self.running, recipient, text, kind))
        self.event(f"notice {kind}")
        self.step("after sendmail")

    def note_deleted(self, *, by_steward: bool) -> None:
        """Report the files that postsuper has deleted."""
        removed, self.postfix.removed = self.postfix.removed, []
        for file in removed:
            self.on_deleted(file, by_steward)

    def _note_doubt(self) -> None:
        """At the end of a steward: what Postfix took and the journal has not recorded may be sent again."""
        with closing(sqlite3.connect(self.journal_settings["url"].removeprefix("sqlite:///"))) as database:
            rows = database.execute("SELECT queue_id, first, last FROM accepted_part JOIN queue_copy ON id = copy_id")
            recorded = {(queue_id, place) for queue_id, first, last in rows for place in range(first, last + 1)}
        for content, recipients, _ in self.postfix.released:
            taken = next(taken for taken in self.taken if taken.number == transaction_number(content))
            for recipient in recipients:
                place = taken.recipients.index(recipient)
                if not {(taken.first_id, place), (taken.file.queue_id, place)} & recorded:
                    self.doubtful.add((taken.number, recipient))
        self.postfix.released.clear()


@cache
def _templates() -> Templates:
    """Loading them tries all of them, which takes longer than a sequence; no policy here has others."""
    return notices.load(policy(), Path("/nowhere/config.toml"))


class _Recorder:
    """The milter's recorder without its threads: the model has one thread, so that a sequence can be repeated."""

    gateway = GATEWAY

    def __init__(self, world: World) -> None:
        self._world = world

    def record(self, transaction: Transaction) -> None:
        """See Recorder."""
        if self._world.faults.milter_journal_fails:
            raise JournalError("database is locked")
        self._world.journal.inbox.put([transaction])

    def mark_not_queued(self, transaction: Transaction, why: str) -> None:
        """See Recorder."""
        self._world.journal.inbox.mark_not_queued(transaction, why)


def _edited(content: bytes, answer: answers.Rewrite) -> bytes:
    """The message after a milter's edits. Its first field is Postfix's own, which milters do not see."""
    raw = split(content)
    fields = apply([as_field(field.name, field.value) for field in raw.fields[1:]], answer.edits)
    return raw.fields[0].line + b"".join(f"{name}: {value}\n".encode() for name, value in fields) + raw.rest


def _clock_of(world: World) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return world.wall.astimezone(tz)

    return Clock
