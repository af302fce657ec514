"""A journal that cannot be written: messages are still refused or held; those to be delivered changed are deferred."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from faults.trial import RIGHT, Beside, Trial, fresh
from lab.milter import upgrade_journal
from lab.postgres import Postgres
from lab.waiting import until
from live_postfix.load import RULES
from live_postfix.stage import Stage
from support import broken_journals as broken

UNRECORDED = {**RIGHT, "rewrite": 451}
"""The reply codes while nothing can be recorded."""


def goes_wrong(trial: Trial, breaking: AbstractContextManager[None], reason: str) -> None:
    """Break the journal under load, until every worker has noticed and continues without it; then repair it."""
    workers = len(trial.milter.workers())
    with trial.load(per_session=4) as load:
        load.go_on(12)
        with breaking:
            until(lambda: len(trial.logged(event="journal_failed")) == workers, what="each worker to notice")
            begun = load.begun
            until(lambda: load.codes()[451] and load.go_on(12), what="a rewritten message to come back")
            seen = {(answer.kind, answer.code) for answer in load.answers if answer.number >= begun}
            assert seen <= set(UNRECORDED.items())
        trial.recover()
    again = "journal_works_again"
    until(lambda: len(trial.logged(event=again)) == workers, what="each worker to record again")
    missed = sum(event["messages_not_recorded"] for event in trial.logged(event=again))
    assert missed == len(trial.logged(event="message", journal="failed"))
    assert [event["reason"] for event in trial.logged(event="journal_failed") if reason not in event["reason"]] == []
    assert not trial.logged(event="message_failed")
    assert [event["reason"] for event in trial.logged(event="worker_died")] == []


@pytest.mark.parametrize(
    ("breaking", "reason", "fault", "repair"),
    [
        (broken.locked, "is locked", "The journal locked by another program", "that program ends"),
        (broken.full, "disk", "The journal's disk full", "there is room"),
        (broken.moved_away, "does not exist", "The journal's file moved away", "it is put back"),
        (
            broken.not_a_database,
            "not a database",
            "The journal's file replaced by another",
            "the right one is back",
        ),
        (broken.corrupt, "malformed", "The journal's file corrupt", "a sound one is put in its place"),
        (broken.read_only, "readonly database", "The journal's file read-only", "it can be written"),
    ],
    ids=["locked", "full", "moved_away", "not_a_database", "corrupt", "read_only"],
)
def test_the_journals_file(trial: Trial, breaking: broken.Breaking, reason: str, fault: str, repair: str) -> None:
    """No message leaks or passes without a record, and each worker logs one line at the begin and one at the end."""
    goes_wrong(trial, breaking(trial.gateway.state, trial.milter), reason)
    trial.report(fault, f"by itself, once {repair}")


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    """The server does not run for a while."""
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    """The server runs and does not answer."""
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


@pytest.mark.parametrize(
    ("breaking", "reason", "fault", "repair"),
    [
        (stopped, "cannot be used", "PostgreSQL stopped", "it runs again"),
        (frozen, "did not answer in time", "PostgreSQL frozen: it takes connections and does not answer", "it answers"),
    ],
    ids=["stopped", "frozen"],
)
def test_the_journals_server(
    attached_stage: Stage,
    postgres: Postgres,
    beside: Beside,
    record_property: Callable[[str, object], None],
    breaking: Callable[[Postgres], AbstractContextManager[None]],
    reason: str,
    fault: str,
    repair: str,
) -> None:
    """The same as with a file."""
    stage = attached_stage
    stage.gateway.milter.stop()
    document = stage.gateway.policy("reject", rules=RULES, journal={"url": postgres.create("faults")})
    stage.gateway.configure(document)
    upgrade_journal(stage.gateway.config)
    try:
        fresh(stage, journal=document["journal"])
        trial = Trial(stage, beside.start(stage.gateway), record_property)
        goes_wrong(trial, breaking(postgres), reason)
        trial.report(fault, f"by itself, once {repair}")
    finally:
        beside.stop()
        stage.gateway.milter.stop()
        postgres.drop("faults")
