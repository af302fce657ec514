"""One fault about held mail: messages, a steward whose rounds the test starts, and four sums over the ends of all.

The sums are computed from deliveries, notices and the hold queue, and not from what the steward says it did.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import structlog

from faults.table import Row
from lab.client import Client
from lab.postfix import CommandError
from lab.sink import Delivery
from lab.steward import Steward as RunningSteward
from lab.waiting import until
from live_postfix.compare import subject
from live_postfix.interruption import reported
from live_postfix.load import over_the_limit
from live_postfix.office import Office
from live_postfix.stage import Stage
from support.factories import strangers
from undisclosed import notices
from undisclosed.config.load import load
from undisclosed.incidents.records import Incident, JournalError
from undisclosed.journal.journal import Journal
from undisclosed.postfix.master_cf import LISTENER
from undisclosed.steward.hold_queue import HoldQueue
from undisclosed.steward.rounds import Steward

PEOPLE = tuple(strangers(12))

ALL_IS_WELL = frozenset(
    {"steward_ready", "copy_held", "notice_sent", "request_done", "reloaded", "config_warning", "steward_stopped"}
)
"""Events of the steward that do not concern a fault."""

KEPT_TABLES = ("journal_info", "alembic_version", "gateway")
"""Tables that say which journal it is, and whose."""


Running = TypeVar("Running", bound=RunningSteward)


class Killed(BaseException):
    """Ends a round as a kill does: no handler of the steward's own catches it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that Postfix took."""

    number: int
    action: str
    people: tuple[str, ...]
    """Its envelope recipients."""
    queue_id: str

    @property
    def message_id(self) -> str:
        """Its Message-ID."""
        return f"<held-{self.number}@council.test>"

    def is_of(self, incident: Incident) -> bool:
        """Whether an incident is about it: its Message-ID may be another one, and adopted mail has no subject."""
        return incident.subject == f"{self.number} {self.action}" or incident.message_id == self.message_id


def journal_file(stage: Stage) -> Path:
    """The journal of the gateway."""
    return stage.gateway.state / "journal.db"


def empty_journal(stage: Stage) -> None:
    """Delete all that a test before recorded: its mail is gone, and no steward here could close it."""
    with closing(sqlite3.connect(journal_file(stage), timeout=10)) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            if table not in KEPT_TABLES and not table.startswith("sqlite_"):
                database.execute(f"DELETE FROM {table}")


@dataclass
class Held:
    """One test's fault. The wall clock of the steward is `ahead` of the machine's."""

    stage: Stage
    record: Callable[[str, object], None]
    ahead: timedelta = timedelta()
    sent: list[Sent] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    """The lines of the steward's log."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _is_here: bool = False
    """Whether the steward is in this process."""
    _acts: dict[str, Callable[[], object]] = field(default_factory=dict)
    _deleted: set[int] = field(default_factory=set)
    """The numbers of the messages that a person deleted or that may have expired."""
    _shown: set[int] = field(default_factory=set)
    """The numbers of the messages that a person sent as they are."""
    _repeated: set[int] = field(default_factory=set)
    """The numbers of the messages that may come twice."""

    def __enter__(self) -> Self:
        self.office = Office(self.stage.gateway)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.office.journal.close()

    # -- the steward

    def start(self) -> None:
        """Start a steward, in this process; its root half is a process of its own."""
        self.steward = self._stack.enter_context(self._steward())
        self._is_here = True

    def restart(self) -> None:
        """End the steward, and start another one."""
        self._stack.close()
        self.start()

    @contextmanager
    def _steward(self) -> Iterator[Steward]:
        context = self.office.context
        policy, config_dir = context.policy, context.policy.postfix.config_dir
        templates = _templates(self.stage.gateway.config, self.stage.gateway.config.read_text())
        with (
            closing(Journal(policy.journal, context.key)) as journal,
            HoldQueue(config_dir) as queue,
            reported(journal, queue, self._at),
        ):
            queue.lock()
            self._queue = queue
            dispatcher = notices.Dispatcher(journal, context.gateway, partial(notices.send, config_dir=config_dir))
            log = structlog.wrap_logger(None, processors=[self._log], wrapper_class=structlog.BoundLogger)
            yield Steward(
                context, journal, queue, log, lambda now: list_all(dispatcher.dispatch(policy, templates, now))
            )

    def _log(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> NoReturn:
        self.events.append({"level": level, **event})
        raise structlog.DropEvent

    def _at(self, call: str) -> None:
        if act := self._acts.pop(call, None):
            act()

    def at(self, call: str, act: Callable[[], object]) -> None:
        """Do this once, at the next call of this name by the steward: `before send`, `after set_state released`."""
        self._acts[call] = act

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another program holds the journal's write lock, for as long as the block lasts."""
        with closing(sqlite3.connect(journal_file(self.stage), timeout=10, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    def locked_at(self, call: str, **when: timedelta) -> bool:
        """Make a round in which the journal is locked from this call on; whether it came to the call."""
        with ExitStack() as lock:
            self.at(call, lambda: lock.enter_context(self.locked()))
            with suppress(JournalError):
                self.round(**when)
        return self._acts.pop(call, None) is None

    def killed_at(self, call: str, **when: timedelta) -> bool:
        """Make a round in which the steward is killed at this call, and start another; whether it came to the call."""
        self.at(call, _kill)
        try:
            self.round(**when)
        except Killed:
            self.restart()
            return True
        self._acts.pop(call)
        return False

    def process(self, kind: type[Running], **attributes: object) -> Running:
        """End the steward in this process, and run one as a service manager does, until the end of the test."""
        self._stack.close()
        self._is_here = False
        steward = kind(self.stage.gateway.config, directory=self.stage.gateway.state)
        for name, value in attributes.items():
            setattr(steward, name, value)
        self._stack.callback(lambda: self.events.extend(steward.log()))
        self._stack.enter_context(steward)
        return steward

    def other_steward(self) -> RunningSteward:
        """A steward that somebody starts beside this one."""
        return RunningSteward(self.stage.gateway.config, directory=self.stage.gateway.state)

    @staticmethod
    def process_rounds(steward: RunningSteward, count: int = 2) -> None:
        """Wait until such a steward has made rounds; it begins one after each reload."""
        for _ in range(count + 1):
            steward.reload()

    def listing(self) -> bytes:
        """All that Postfix has, as postqueue(1) prints it for the steward."""
        with self._queue._ask("list") as printed:
            return printed.read()

    def about_to_expire(self, sent: Sent) -> None:
        """Its time is over, its sender was reminded, and stewards have seen it for a day since: a round deletes it."""
        incident = self.incident(sent)
        self.office.ends(incident, datetime.now(UTC) - timedelta(minutes=1))
        for _ in range(3):
            self.round()
        self.office.was_seen(incident, timedelta(days=1))
        self.may_end(sent)

    @property
    def root_half(self) -> int:
        """The process id of the root half of the steward in this process."""
        return self._queue._root_half.pid

    def round(self, later: timedelta = timedelta()) -> None:
        """One round, at the time of the steward's clock or later."""
        self.steward.round(datetime.now(UTC) + self.ahead + later)

    def rounds(self, count: int = 2) -> None:
        """Some rounds a second apart by the steward's clock: what is gone is closed by the second that lacks it."""
        for number in range(count):
            self.round(timedelta(seconds=number))

    # -- messages and what people do with them

    def send(
        self,
        action: str = "quarantine",
        people: Sequence[str] = PEOPLE[:2],
        *,
        mail: Sequence[str] = (),
        rcpt: str = "",
        **fields: str,
    ) -> Sent:
        """Send a message that meets the rule of this action, to these of the twelve people that it shows.

        `mail` and `rcpt`: parameters of the commands.
        """
        number = 100 + len(self.sent)
        header = {
            "From": f"{action}@council.test",
            "To": ", ".join(PEOPLE),
            "Subject": f"{number} {action}",
            "Message-ID": f"<held-{number}@council.test>",
            "Date": "Mon, 02 Feb 2026 09:00:00 +0000",
            **fields,
        }
        text = "".join(f"{name}: {value}\n" for name, value in header.items() if value) + "\nDear all,\n"
        with Client(self.stage.postfix.port) as client:
            assert client.mail(f"{action}@council.test", *mail).positive
            for person in people:
                assert client.command(f"RCPT TO:<{person}> {rcpt}".rstrip()).positive
            assert client.command("DATA").code == 354
            reply = client.content(text.encode("utf-8", "surrogateescape"))
        assert reply.positive, reply
        sent = Sent(number, action, tuple(people), reply.lines[-1].rpartition(" ")[2])
        self.sent.append(sent)
        if action == "ordinary":
            self.may_show(sent)  # no rule is for it
        return sent

    def hold(self, action: str = "quarantine", people: Sequence[str] = PEOPLE[:2], **options: Any) -> Sent:
        """The same, and a round, so that it is held and its sender told."""
        sent = self.send(action, people, **options)
        self.round()
        return sent

    def send_past_the_milter(self) -> Sent:
        """Send a message that no rule is for, although it shows twelve people."""
        return self.send("ordinary")

    @contextmanager
    def without_the_listener(self) -> Iterator[None]:
        """master.cf without the private listener, for as long as the block lasts."""
        postfix = self.stage.postfix
        master_cf = postfix.config_dir / "master.cf"
        before = master_cf.read_text()
        postfix.run("postconf", "-MX", f"{LISTENER}/unix")
        postfix.reload()
        try:
            yield
        finally:
            master_cf.write_text(before)
            postfix.reload()

    def told(self, sent: Sent) -> bool:
        """Whether a notice about a message was delivered, by its Message-ID or its reference."""
        found = [found for found in self.office.journal.incidents.search() if sent.is_of(found)]
        signs = [sent.message_id, *(incident.reference for incident in found)]
        notices_here = [delivery.data for delivery in self.stage.sink.deliveries if not delivery.sender]
        return any(sign.encode() in data for sign in signs for data in notices_here)

    def wait_until_told(self, *messages: Sent) -> None:
        """Wait for a notice about each of them."""
        for sent in messages:
            until(lambda sent=sent: self.told(sent), what=f"a notice about {sent}")  # type: ignore[misc]

    def incident(self, sent: Sent) -> Incident:
        """The incident about a message."""
        [incident] = [found for found in self.office.journal.incidents.search() if sent.is_of(found)]
        return incident

    def goes_to(self, sent: Sent, people: Sequence[str]) -> None:
        """It goes to these people and to nobody else; to nobody if it must stay on hold."""
        self.sent[self.sent.index(sent)] = replace(sent, people=tuple(people))
        self.stage.gateway.settle()
        reached = {person for letter in self._letters()[sent.number] for person in letter.recipients}
        assert reached == set(people)
        assert (sent.number in self.queued) is not bool(people)

    def may_end(self, *messages: Sent) -> None:
        """A person deletes these, or they may expire."""
        self._deleted.update(sent.number for sent in messages)

    def may_show(self, *messages: Sent) -> None:
        """A person sends these as they are."""
        self._shown.update(sent.number for sent in messages)

    def may_repeat(self, *messages: Sent) -> None:
        """These may come twice: a kill between a 250 and its record, or a person who sends it in the middle."""
        self._repeated.update(sent.number for sent in messages)

    # -- the sums

    def report(self, fault: str, recovery: str) -> None:
        """Make the last rounds, compute the four sums, and report the row of the fault. Fails if a sum is not zero."""
        if not self._is_here:
            self.restart()  # the process of its own ends here
        for _ in range(2):
            self.rounds()
            self.stage.gateway.settle()
        letters = self._letters()
        shown = [letter for letter in over_the_limit(self.stage) if _number(letter) not in self._shown]
        lost = list(self._lost(letters))
        untold = list(self._untold())
        twice = list(self._twice(letters))
        found = {"shown": shown, "lost": lost, "untold": untold, "twice": twice}
        assert not any(found.values()), found
        self.record(
            "fault",
            Row(
                fault=fault,
                answers={250: len(self.sent)},
                log=dict(Counter(event["event"] for event in self.events if event["event"] not in ALL_IS_WELL)),
                postfix={},
                recovery=recovery,
                seconds=0,
                over_the_limit=len(shown),
                lost=len(lost),
                untold=len(untold),
                twice=len(twice),
            ).as_json(),
        )

    def _letters(self) -> dict[int, list[Delivery]]:
        """The deliveries of each message."""
        letters: dict[int, list[Delivery]] = defaultdict(list)
        for delivery in self.stage.sink.deliveries:
            if delivery.sender:
                letters[_number(delivery)].append(delivery)
        return letters

    @property
    def queued(self) -> set[int]:
        """The numbers of the messages that Postfix still has."""
        ids = [str(entry["queue_id"]) for entry in self.stage.postfix.queue()]
        lines: list[str] = []
        for queue_id in ids:
            with suppress(CommandError):  # delivered meanwhile
                lines += self.stage.postfix.run("postcat", "-hq", queue_id).stdout.splitlines()
        return {int(line.split()[1]) for line in lines if re.match(r"Subject: \d", line)}

    def _lost(self, letters: dict[int, list[Delivery]]) -> Iterator[str]:
        """The recipients who did not get a message that Postfix has no more, and that nobody deleted."""
        queued = self.queued
        for sent in self.sent:
            if sent.number not in self._deleted | queued:
                served = {person for letter in letters[sent.number] for person in letter.recipients}
                yield from (f"{sent} did not reach {person}" for person in sent.people if person not in served)

    def _untold(self) -> Iterator[Sent]:
        """The messages that Postfix has no more, and of which nobody was told anything."""
        queued = self.queued
        for sent in self.sent:
            if sent.action != "ordinary" and sent.number not in queued and not self.told(sent):
                yield sent

    def _twice(self, letters: dict[int, list[Delivery]]) -> Iterator[str]:
        """The recipients who got a message more than once."""
        for sent in self.sent:
            times = Counter(person for letter in letters[sent.number] for person in letter.recipients)
            for person, count in times.items():
                if count > 1 and sent.number not in self._repeated:
                    yield f"{sent} reached {person} {count} times"


@cache
def _templates(config: Path, _text: str) -> notices.Templates:
    """The templates of a configuration. Loading them tries all of them, which takes longer than a round."""
    return notices.load(load(config), config)


def list_all(results: Any) -> None:
    """Run through an iterator."""
    list(results)


def _kill() -> NoReturn:
    raise Killed


def _number(delivery: Delivery) -> int:
    word = subject(delivery.data).split()[1]
    return int(word) if word.isdigit() else -1
