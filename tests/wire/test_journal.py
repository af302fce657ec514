"""The milter and its journal: records before answers, and the answers while the journal cannot be written."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import milter
from lab.postgres import Postgres
from lab.waiting import until
from support import broken_journals
from support.factories import rule, strangers
from undisclosed.config.gateway_file import read_gateway
from undisclosed.config.load import load
from undisclosed.incidents.records import Incident, State
from undisclosed.journal.journal import Journal
from undisclosed.policy.sections import JournalSection as Settings
from wire.mta import FinalAnswer, Mta
from wire.running import Running, Start

MANY = ", ".join(strangers(11))
ORDINARY = (("From", "clerk@council.test"), ("To", "parent@family.test"))

ACTIONS = ("reject", "quarantine", "rewrite", "warn")
RULES = [rule(name=action, senders=[f"{action}@*"], action=action) for action in ACTIONS]
SETTINGS: dict[str, Any] = {"rules": RULES, "milter": {"workers": 1}}

AT_ONCE = 1.0
"""Seconds in which a few answers come that wait for no journal: one that waits takes twice as long by itself. On a busy
machine they may take longer by chance; then they are asked for again."""


def send(mta: Mta, action: str, number: int = 1) -> FinalAnswer:
    """Send a message on which this action is taken."""
    sender = f"{action}@council.test"
    header = (("From", sender), ("To", MANY), ("Message-ID", f"<{action}{number}@council.test>"))
    return mta.send(header, sender=sender, queue_id=f"4dX{action}{number}")


def recorded(running: Running) -> dict[str, Incident]:
    """The newest incident of each rule in the milter's journal."""
    settings = running.journal_settings
    key = bytes.fromhex(Path(settings["key_file"]).read_text())
    with closing(Journal(Settings.model_validate(settings), key)) as journal:
        return {incident.leading.rule: incident for incident in reversed(journal.incidents.search())}


def test_a_message_is_recorded_before_it_is_answered(start: Start) -> None:
    """Each action in its state; a message that passes is not recorded."""
    running = start(**SETTINGS)
    with Mta(running.address).connect() as mta:
        mta.send(ORDINARY)
        assert recorded(running) == {}
        for number, action in enumerate(ACTIONS, 1):
            send(mta, action)
            assert len(recorded(running)) == number
    states = {name: incident.state for name, incident in recorded(running).items()}
    assert states == {
        "reject": State.REJECTED,
        "quarantine": State.PENDING,
        "rewrite": State.DELIVERED,
        "warn": State.DELIVERED,
    }
    lines = {line["rule"]: line for line in running.milter.log(event="message") if line["rule"]}
    incident = recorded(running)["reject"]
    assert incident.reference == lines["reject"]["reference"]
    assert (incident.count, incident.sender, incident.per_field) == (11, "reject@council.test", {"to": 11})
    assert incident.copies[0].queue_id == "4dXreject1"


def test_monitor_mode_records_the_action_that_was_not_taken(start: Start) -> None:
    """The incident has the action of the rule, and the state `monitored`."""
    running = start(mode="monitor", **SETTINGS)
    with Mta(running.address).connect() as mta:
        assert [send(mta, action).word for action in ACTIONS] == ["accept"] * 4
    assert {incident.state for incident in recorded(running).values()} == {State.MONITORED}
    assert {name: incident.leading.action.value for name, incident in recorded(running).items()} == dict(
        zip(ACTIONS, ACTIONS, strict=True)
    )


def test_transactions_of_one_message_are_one_incident(start: Start) -> None:
    """As from an upstream server that splits the recipients over several sessions."""
    running = start(rules=RULES)
    for number in range(3):
        with Mta(running.address).connect() as mta:
            header = (("From", "reject@council.test"), ("To", MANY), ("Message-ID", "<1@council.test>"))
            mta.send(header, sender="reject@council.test", queue_id=f"4dX{number}")
    assert len(recorded(running)["reject"].copies) == 3


# -- a journal that cannot be written


def check_all_answers(running: Running, breaking: AbstractContextManager[None], reason: str) -> None:
    """Messages are still refused or held; a rewrite or a warning becomes a temporary refusal; other mail passes."""
    with Mta(running.address).connect() as mta:
        assert send(mta, "rewrite", 0).word == "accept"

        def each_action_at_once() -> bool:
            began = time.monotonic()
            words = [send(mta, action, 2).word for action in ACTIONS]
            ordinary = mta.send(ORDINARY)
            took = time.monotonic() - began
            assert words == ["reject", "hold", "tempfail", "tempfail"]
            assert (ordinary.word, ordinary.stage) == ("accept", "eoh")
            return took < AT_ONCE

        with breaking:
            first = send(mta, "rewrite")
            assert (first.word, first.edits) == ("tempfail", [])
            assert first.reply.startswith("451-4.3.0 ")
            until(each_action_at_once, what="answers that wait for no journal")
            outcomes = [line["outcome"] for line in running.milter.log(event="message", journal="failed")]
            rounds = ["rejected", "held", "tempfailed", "tempfailed"] * (len(outcomes) // 4)
            assert outcomes == ["tempfailed", *rounds]
            assert len(running.milter.log(event="journal_failed")) == 1
        running.milter.wait_for_log(lambda event: event["event"] == "journal_works_again", what="the journal to work")
        assert send(mta, "rewrite", 3).word == "accept"
        assert recorded(running)["rewrite"].message_id == "<rewrite3@council.test>"
    [began_line] = running.milter.log(event="journal_failed")
    [ended_line] = running.milter.log(event="journal_works_again")
    assert reason in began_line["reason"]
    assert ended_line["messages_not_recorded"] == len(outcomes)
    assert running.milter.log(event="message_failed") == []


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [
        (broken_journals.locked, "is locked"),
        (partial(broken_journals.full, log=16384), "disk"),
        (broken_journals.moved_away, "does not exist"),
        (broken_journals.not_a_database, "not a database"),
        (broken_journals.read_only, "readonly database"),
    ],
    ids=["locked", "full", "moved_away", "not_a_database", "read_only"],
)
def test_answers_while_the_file_cannot_be_written(
    start: Start, breaking: broken_journals.Breaking, reason: str
) -> None:
    """No message leaks or passes without a record, and the log has one line at the begin and one at the end."""
    running = start(**SETTINGS)
    check_all_answers(running, breaking(running.directory, running.milter), reason)


@pytest.fixture
def shared(postgres: Postgres) -> Iterator[str]:
    """An empty database in PostgreSQL."""
    yield postgres.create("wire")
    postgres.drop("wire")


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    """The server is stopped for a while."""
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    """The server accepts connections and does not answer."""
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [(stopped, "cannot be used"), (frozen, "did not answer in time")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_answers_while_the_server_is_away(
    start: Start,
    postgres: Postgres,
    shared: str,
    breaking: Callable[[Postgres], AbstractContextManager[None]],
    reason: str,
) -> None:
    """The same as with a file."""
    running = start(**SETTINGS, journal={"url": shared})
    check_all_answers(running, breaking(postgres), reason)


def test_monitor_mode_delivers_without_a_record(start: Start) -> None:
    """Monitor mode delays no mail for a failure of the milter; the log says that a record is missing."""
    running = start(mode="monitor", **SETTINGS)
    with broken_journals.locked(running.directory, running.milter), Mta(running.address).connect() as mta:
        assert [send(mta, action).word for action in ACTIONS] == ["accept"] * 4
    assert len(running.milter.log(event="message", journal="failed")) == 4


def test_a_message_that_passes_never_waits_for_the_journal(start: Start, postgres: Postgres, shared: str) -> None:
    """With a server that is frozen from the beginning the milter starts, and ordinary mail passes at once."""
    running = start(**SETTINGS, journal={"url": shared})
    running.milter.stop()
    with frozen(postgres):
        running.milter.start()
        with Mta(running.address).connect() as mta:

            def twenty_at_once() -> bool:
                began = time.monotonic()
                assert [mta.send(ORDINARY).word for _ in range(20)] == ["accept"] * 20
                return time.monotonic() - began < AT_ONCE

            until(twenty_at_once, what="answers that wait for no journal")
            running.milter.wait_for_log(lambda event: event["event"] == "journal_failed")


def identity(running: Running) -> str:
    """The identity of a milter's gateway."""
    return read_gateway(load(running.config), create=False)


def test_two_gateways_record_in_one_journal(start: Start, shared: str) -> None:
    """One message that arrives through both is one incident; each copy has the identity of its gateway."""
    one = start(rules=RULES, journal={"url": shared}, postfix={"config_dir": "/srv/one"})
    key = str(one.directory / "key")
    two = start(rules=RULES, journal={"url": shared, "key_file": key}, postfix={"config_dir": "/srv/two"})
    for running in (one, two):
        with Mta(running.address).connect() as mta:
            assert send(mta, "quarantine").word == "hold"
    [incident] = recorded(one).values()
    assert [copy.gateway for copy in incident.copies] == [identity(running) for running in (one, two)]
    assert identity(one) != identity(two)


# -- starting and reloading


def refused(running: Running, service: str) -> str:
    """The error of a service that does not start because an administrator has to act."""
    command = [str(milter.console_script()), service, "--config", str(running.config)]
    if service == "steward":
        command += ["--user", pwd.getpwuid(os.geteuid()).pw_name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    return done.stderr


@pytest.mark.parametrize("service", ["run", "steward"])
def test_a_journal_that_cannot_be_used_is_refused_at_start(start: Start, service: str) -> None:
    """A missing journal, one of an unreleased version and one with another key: exit status 2."""
    running = start(**SETTINGS)
    running.milter.stop()
    path = running.directory / "journal.db"
    path.rename(running.directory / "kept")
    assert "run `undisclosed journal upgrade`" in refused(running, service)
    assert not path.exists()
    (running.directory / "kept").rename(path)
    with closing(sqlite3.connect(path)) as database, database:
        [shape] = database.execute("SELECT shape FROM journal_info").fetchone()
        database.execute("UPDATE journal_info SET shape = 'another'")
    assert "unreleased version" in refused(running, service)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE journal_info SET shape = ?", [shape])
    (running.directory / "key").write_text("ab" * 31 + "cd")
    assert "another key" in refused(running, service)


def test_a_reload_takes_another_journal_into_use(start: Start) -> None:
    """A reload refuses a journal that cannot be used, and the old one stays."""
    running = start(**SETTINGS)
    other = {"url": f"sqlite:///{running.directory}/other.db"}
    running.configure(**SETTINGS, journal=other)
    running.milter.signal(signal.SIGHUP)
    line = running.milter.wait_for_log(lambda event: event["event"] == "reload_refused")
    assert "run `undisclosed journal upgrade`" in line["reason"]
    milter.upgrade_journal(running.config)
    running.milter.reload()
    with Mta(running.address).connect() as mta:
        send(mta, "reject")
    running.journal_settings = {**running.journal_settings, **other}
    assert set(recorded(running)) == {"reject"}


def test_incidents_are_listed_and_shown(start: Start) -> None:
    """Root's commands read the journal while the milter runs; the file keeps the milter's user as owner."""
    running = start(**SETTINGS)
    with Mta(running.address).connect() as mta:
        send(mta, "quarantine")
        send(mta, "reject")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        line = [str(milter.console_script()), "incidents", *words, "--config", str(running.config)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    listed = [json.loads(line) for line in command("list", "--json").stdout.splitlines()]
    assert [incident["rule"] for incident in listed] == ["reject", "quarantine"]
    table = command("list", "--state", "pending")
    assert listed[1]["reference"] in table.stdout
    assert listed[0]["reference"] not in table.stdout
    assert "4dXreject1" in command("show", listed[0]["reference"][:6]).stdout
    assert command("show", "ZZZZ").returncode == 1
    assert command("list", "--state", "lost").returncode == 2
