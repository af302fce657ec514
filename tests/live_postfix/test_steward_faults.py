"""The journal fails during a release by a real Postfix: no message is lost, no address leaks, the sender is told."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab import processes, toml
from lab.client import Outcome
from lab.gateway import LIMIT, Gateway
from lab.postfix import PrivatePostfix
from lab.postgres import Postgres
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, NUMBERS, PARENTS, SENDER, Office, attached, letter, new_gateway
from support import broken_journals
from support.limits import limited
from undisclosed.incidents.records import Incident, JournalError, State
from undisclosed.steward.heartbeat import INTERVAL
from undisclosed.steward.rounds import Steward as Rounds

WITHIN = 60.0
"""Seconds for the steward to notice a fault, or its end: many times what it takes on a busy machine."""

EVERYBODY = {*PARENTS[:3], COLLEAGUE}

NEWSLETTER = "news@council.test"

SQLITE_ONLY = pytest.mark.parametrize("standing", ["sqlite"], indirect=True)


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def standing(
    request: pytest.FixtureRequest, installed_postfix: PrivatePostfix, outside: Sink, postgres: Postgres
) -> Iterator[Gateway]:
    """A gateway that holds messages with too many addresses, or rewrites a newsletter; a journal of either kind."""
    gateway = new_gateway(installed_postfix, outside)
    url = postgres.create("steward_faults") if request.param == "postgresql" else gateway.journal["url"]
    rules: list[toml.Table] = [
        {"name": "newsletters", "senders": [NEWSLETTER], "more_than_addresses": LIMIT, "action": "rewrite"},
        {"name": "many strangers", "more_than_addresses": LIMIT, "action": "quarantine"},
    ]
    gateway.configure(gateway.policy(rules=rules, journal={"url": url}))
    with attached(gateway):
        yield gateway
    if request.param == "postgresql":
        postgres.drop("steward_faults")


@pytest.fixture
def office(standing: Gateway) -> Iterator[Office]:
    """A gateway with nothing held and nothing delivered, whose milter can write its journal."""
    until(lambda: not _is_cut_off(standing), within=WITHIN, what="the milter to have its journal again")
    standing.postfix.empty()
    standing.settle()
    standing.sink.clear()
    office = Office(standing)
    office.change("DELETE FROM notice")  # past twenty an hour, those of a later test would be put off
    yield office
    office.journal.close()
    standing.settle()


def _is_cut_off(gateway: Gateway) -> bool:
    """Whether a worker of the milter cannot write the journal."""
    said = Counter(event["event"] for event in gateway.milter.log())
    return said["journal_failed"] != said["journal_works_again"]


@contextmanager
def unreachable(office: Office, postgres: Postgres, how: str) -> Iterator[None]:
    """The journal cannot be written for as long as the block lasts."""
    if how == "cannot be written":
        with broken_journals.read_only(office.gateway.state, office.gateway.milter):
            yield
        return
    url = office.context.policy.journal.url
    if not url.startswith("sqlite:"):
        begin, end = (postgres.freeze, postgres.thaw) if how == "hangs" else (postgres.stop, postgres.start)
        begin()
        try:
            yield
        finally:
            end()
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def nothing_shown(office: Office) -> bool:
    """Whether no delivered message shows a parent's address."""
    letters = [delivery for delivery in office.gateway.sink.deliveries if delivery.sender]
    return not any(parent.encode() in letter.header for letter in letters for parent in PARENTS)


@pytest.mark.parametrize(
    "call",
    [
        "after begin_release",
        "after send",
        "after record_accepted",
        "after delete",
        "after set_state released",
        "after answer",
    ],
)
def test_the_journal_hangs_in_the_middle_of_a_release(office: Office, postgres: Postgres, call: str) -> None:
    """The round ends with an error that names the fault; after the fault the next round continues."""
    _released_once_although(office, postgres, "hangs", call)


@pytest.mark.parametrize("standing", ["postgresql"], indirect=True)
@pytest.mark.parametrize("call", ["after send", "after delete"])
def test_the_server_stops_in_the_middle_of_a_release(office: Office, postgres: Postgres, call: str) -> None:
    """A new server process runs afterwards; the rest is as for a server that hangs."""
    _released_once_although(office, postgres, "stops", call)


@SQLITE_ONLY
@pytest.mark.parametrize("call", ["after begin_release", "after send", "after delete"])
def test_the_file_becomes_read_only_in_the_middle_of_a_release(office: Office, postgres: Postgres, call: str) -> None:
    """The steward can still read; the rest is as for a server that hangs."""
    _released_once_although(office, postgres, "cannot be written", call)


def two_rounds(steward: Rounds) -> None:
    """After its last write a round ends well: the next one writes that the steward was seen."""
    for later in (timedelta(), 2 * INTERVAL):
        steward.round(datetime.now(UTC) + later)


def _released_once_although(office: Office, postgres: Postgres, how: str, call: str) -> None:
    incident = office.held()
    request = office.ask(incident, "release", "bcc")
    reached: list[str] = []
    with ExitStack() as fault:

        def break_at(name: str) -> None:
            if name == call and not reached:
                reached.append(name)
                fault.enter_context(unreachable(office, postgres, how))

        with office.steward(break_at) as steward:
            with pytest.raises(JournalError) as failure:
                two_rounds(steward)
            assert str(failure.value)
            office.gateway.settle()
            # After any failed write the message is still held, or all recipients have it.
            assert office.on_hold() or set(office.received()) == EVERYBODY
            fault.close()
            for _ in range(3):  # a message that is gone is looked for twice
                again(steward)
    assert reached == [call]
    assert (office.state(incident), office.on_hold()) == (State.RELEASED, [])
    assert office.answer(request)[0] == "done"
    assert "released" in due(office, incident)
    # Also the parts that Postfix accepted while they could not be recorded: the steward still runs, and remembers them.
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
    assert nothing_shown(office)


def open_unix_sockets() -> set[int]:
    """The inodes of this process's unix sockets: the private listener has one, the sink's threads have others."""
    inodes = set()
    for fd in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as opened:
            if opened.family == socket.AF_UNIX:
                inodes.add(os.fstat(fd).st_ino)
    return inodes


@SQLITE_ONLY
def test_a_failing_journal_leaves_no_smtp_session_open(office: Office) -> None:
    """It ends with the release, not with the pause that follows: an smtpd would wait for up to 30 s."""
    office.ask(office.held(), "release", "bcc")

    def fail(name: str) -> None:
        if name == "before answer":
            raise JournalError("the disk is full")

    with office.steward(fail) as steward:
        before = open_unix_sockets()
        with pytest.raises(JournalError) as caught:
            steward.round(datetime.now(UTC))
        assert open_unix_sockets() == before
        assert str(caught.value) == "the disk is full"  # its traceback still has the frames of the round


def due(office: Office, incident: Incident) -> list[str]:
    """The kinds of notices that are due about an incident."""
    notices = office.journal.notices.due(datetime.now(UTC))
    return [notice.kind for notice in notices if notice.incident_id == incident.id]


def test_the_journal_hangs_when_a_message_is_seen_to_be_held(office: Office, postgres: Postgres) -> None:
    """Its sender still gets the notice."""
    message_id = office.send()
    with ExitStack() as fault:

        def break_at(name: str) -> None:
            if name == "after set_state held":
                fault.enter_context(unreachable(office, postgres, "hangs"))

        with office.steward(break_at) as steward:
            with pytest.raises(JournalError):
                two_rounds(steward)
            fault.close()
            again(steward)
    incident = office.incident(message_id)
    assert (incident.state, due(office, incident)) == (State.HELD, ["held"])


def test_the_journal_hangs_once_a_message_has_expired(office: Office, postgres: Postgres) -> None:
    """Its sender still gets the notice."""
    incident = office.held()
    office.nearly_expired(incident)
    with ExitStack() as fault:

        def break_at(name: str) -> None:
            if name == "after delete":
                fault.enter_context(unreachable(office, postgres, "hangs"))

        with office.steward(break_at) as steward:
            with pytest.raises(JournalError):
                steward.round(datetime.now(UTC))
            fault.close()
            for _ in range(3):  # a message that is gone is looked for twice
                again(steward)
    assert (office.state(incident), office.on_hold()) == (State.EXPIRED, [])
    assert "expired" in [notice.kind for notice in office.journal.notices.due(datetime.now(UTC))]


def again(steward: Rounds) -> None:
    """Make a round; repeat it while it meets remains of the fault, such as a broken connection."""

    def works() -> bool:
        try:
            steward.round(datetime.now(UTC))
        except JournalError:
            return False
        return True

    until(works, within=WITHIN, what="the journal to work again")


UNREACHABLE = {
    "sqlite": ("is locked", "see what holds it open for writing: `fuser -v`"),
    "postgresql": ("connection", "see that the database runs"),
}
"""Parts of the error for a journal that cannot be reached: the cause and the remedy."""


def test_killed_while_the_journal_is_away(office: Office, postgres: Postgres) -> None:
    """The steward logs the failure and its reason; if it is killed then, the next one carries out the request."""
    incident = office.held()
    process = Steward(office.gateway.config, directory=office.gateway.state)
    process.start()
    try:
        office.ask(incident, "release", "bcc")
        until(lambda: office.state(incident) is State.RELEASED, within=WITHIN, what="a first release")
        second = office.send()
        with unreachable(office, postgres, "stops"):
            failing = process.wait_for_log(lambda event: event["event"] == "steward_failing", within=WITHIN)
            assert failing["level"] == "error"
            [words] = [
                words for kind, words in UNREACHABLE.items() if office.context.policy.journal.url.startswith(kind)
            ]
            assert all(word in failing["reason"] for word in words)
            process.kill()
            assert len(office.on_hold()) == 1
    finally:
        process.stop()
    with process:
        until(lambda: office.incident(second).state is State.HELD, within=WITHIN, what="the second to be seen")
        office.ask(office.incident(second), "release", "bcc")
        until(lambda: office.incident(second).state is State.RELEASED, within=WITHIN, what="the second release")
    assert office.received() == dict.fromkeys(EVERYBODY, 2)
    assert nothing_shown(office)


# -- a journal that cannot be written while a steward releases several messages

FULL = ("disk I/O error", "see whether its disk is full")
READ_ONLY = ("readonly database", "let the milter's user write the file")
"""Parts of the error in each case: the cause and the remedy."""

Breaking = Callable[[Office, Steward], AbstractContextManager[None]]

FRAME = 24 + 4096
"""Bytes of one page in SQLite's write-ahead log (sqlite.org/walformat.html)."""


def full_after(pages: int) -> Breaking:
    """The disk has room for this number of pages: simulated by a limit on the size of files (EFBIG)."""

    @contextmanager
    def full(office: Office, steward: Steward) -> Iterator[None]:
        room = (office.gateway.state / "journal.db-wal").stat().st_size + pages * FRAME
        assert room > steward.log_file.stat().st_size + 10_000  # it must be able to say so
        with limited([steward.pid], "fsize", room):
            yield

    return full


@contextmanager
def read_only(office: Office, _: Steward) -> Iterator[None]:
    """SQLite can read the file but not write it."""
    with broken_journals.read_only(office.gateway.state, office.gateway.milter):
        yield


@SQLITE_ONLY
@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        *(pytest.param(full_after(pages), FULL, id=f"full after {pages} pages") for pages in (4, 12, 20, 28)),
        pytest.param(read_only, READ_ONLY, id="read-only"),
    ],
)
def test_the_journal_cannot_be_written_while_three_are_released(
    office: Office, breaking: Breaking, words: tuple[str, str]
) -> None:
    """The log has cause and remedy; afterwards every recipient has each message once, and the sender is told.

    The pages are spread over the release: on an idle machine the disk is full while the requests are read (4), when
    some messages are handed over (12, 20), and when all are deleted and none is recorded (28).
    """
    ids = [office.send() for _ in range(3)]
    with Steward(office.gateway.config, directory=office.gateway.state) as steward, ExitStack() as fault:
        _wait_for_notices(steward, "held", 3)
        _empty_log(office)
        with _suspended_outside_a_transaction(office, steward):
            incidents = [office.incident(message_id) for message_id in ids]
            requests = [office.ask(incident, "release", "bcc") for incident in incidents]
            fault.enter_context(breaking(office, steward))
        failing = steward.wait_for_log(lambda event: event["event"] == "steward_failing", within=WITHIN)
        assert failing["level"] == "error"
        assert all(word in failing["reason"] for word in words)
        reached = office.received()
        assert set(reached.values()) <= {reached.get(COLLEAGUE)}
        assert len(office.on_hold()) + reached.get(COLLEAGUE, 0) >= 3
        with processes.suspended(steward.pid):
            fault.close()
        _wait_for_notices(steward, "released", 3)
        steward.wait_for_log(lambda event: event["event"] == "steward_works_again", within=WITHIN)
    for request, incident in zip(requests, incidents, strict=True):
        assert office.answer(request)[0] == "done"
        assert office.state(incident) is State.RELEASED
    assert office.on_hold() == []
    assert office.received() == dict.fromkeys(EVERYBODY, 3)
    assert nothing_shown(office)
    notices = [
        delivery
        for delivery in office.gateway.sink.deliveries
        if delivery.sender == "" and delivery.recipients == (SENDER,)
    ]
    assert len(notices) == 2 * 3


@contextmanager
def _suspended_outside_a_transaction(office: Office, steward: Steward) -> Iterator[None]:
    """Suspend the steward at a moment at which it does not hold SQLite's write lock: no other could write then."""

    def is_free() -> bool:
        with closing(sqlite3.connect(office.gateway.state / "journal.db", timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            other.execute("ROLLBACK")
            return True

    def suspended_while_free() -> ExitStack | None:
        with ExitStack() as stack:
            stack.enter_context(processes.suspended(steward.pid))
            return stack.pop_all() if is_free() else None

    suspended = until(suspended_while_free, within=WITHIN, what="the steward to hold no lock")
    assert suspended is not None
    with suspended:
        yield


def _empty_log(office: Office) -> None:
    """Empty SQLite's write-ahead log now: SQLite could empty it during the test, and then need no room."""
    with closing(sqlite3.connect(office.gateway.state / "journal.db", timeout=10)) as other:

        def emptied() -> bool:
            [busy, _, _] = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

        until(emptied, within=WITHIN, what="SQLite's log to be empty")


def _wait_for_notices(steward: Steward, kind: str, number: int) -> None:
    """Wait until this number of notices was sent and recorded."""

    def told() -> bool:
        return len(steward.log(event="notice_sent", kind=kind)) == number

    until(told, within=WITHIN, what=f"{number} notices {kind!r}")


# -- mail that comes meanwhile


def test_what_the_milter_holds_meanwhile_is_recorded_later(office: Office, postgres: Postgres) -> None:
    """Mail to be held is held, and listed when the journal is back; a rewrite gets a temporary failure."""
    number = next(NUMBERS)

    def newsletter() -> Outcome:
        return office.gateway.send(letter(number, From=NEWSLETTER), sender=NEWSLETTER, to=sorted(EVERYBODY))

    with unreachable(office, postgres, "stops"):
        refused = newsletter()
        message_id = office.send()
        assert (refused.accepted, refused.final.code) == (False, 451)
        assert (len(office.on_hold()), office.received()) == (1, {})
        said = [event["outcome"] for event in office.gateway.milter.log(event="message", journal="failed")]
        assert sorted(said[-2:]) == ["held", "tempfailed"]
    until(lambda: not _is_cut_off(office.gateway), within=WITHIN, what="the milter to have its journal again")
    assert newsletter().accepted
    office.round()
    listed = [json.loads(line) for line in office.gateway.command("held", "list", "--json").stdout.splitlines()]
    [row] = [row for row in listed if row["reference"] == office.incident(message_id).reference]
    assert (row["state"], row["rule"], row["count"]) == (
        "held",
        "many strangers",
        len(PARENTS),
    )
    office.ask(office.incident(message_id), "release", "bcc")
    office.round()
    assert office.received() == dict.fromkeys(EVERYBODY, 2)
    assert nothing_shown(office)
