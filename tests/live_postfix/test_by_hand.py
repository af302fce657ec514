"""Acts of a person with postsuper(1), renamed queue files, and a milter behind ours that refuses: a real Postfix."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from live_postfix.office import NUMBERS, PARENTS, SENDER, Office, attached, emptied, letter, new_gateway
from live_postfix.other_milter import behind_ours
from undisclosed.incidents.records import State
from undisclosed.steward.rounds import Steward


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway that stays attached for all tests of this file."""
    with attached(new_gateway(installed_postfix, outside)) as gateway:
        yield gateway


@pytest.fixture
def office(standing: Gateway, request: pytest.FixtureRequest) -> Iterator[Office]:
    """A gateway with nothing held, under `quarantine`, or the action that the test names."""
    standing.configure(standing.policy(getattr(request, "param", "quarantine")))
    standing.milter.reload()
    with emptied(standing) as office:
        yield office


def closed(office: Office, steward: Steward, message_id: str) -> State:
    """Rounds until the message is dealt with; returns its state."""

    def state() -> State | None:
        steward.round(datetime.now(UTC))
        [copy] = office.incident(message_id).copies
        return None if copy.is_open else copy.state

    found = until(state, what="the end of the hold")
    assert found is not None
    return found


@pytest.mark.parametrize("of_all", [False, True], ids=["by id", "ALL"])
@pytest.mark.parametrize(
    ("option", "expected", "kind"),
    [
        ("-H", State.RELEASED_BY_HAND, "released_by_hand"),
        ("-r", State.RELEASED_BY_HAND, "released_by_hand"),
        ("-d", State.DELETED_BY_HAND, "deleted"),
        ("-f", State.DELETED_BY_HAND, "deleted"),
    ],
)
@pytest.mark.parametrize("is_seen", [False, True], ids=["pending", "held"])
def test_what_was_done_by_hand_is_told_apart(
    office: Office, option: str, expected: State, kind: str, of_all: bool, is_seen: bool
) -> None:
    """users-walk 5, milter-reports 29: a leak is a warning, and its sender is told."""
    with capture_logs() as events, office.steward() as steward:
        steward.round(datetime.now(UTC))
        message_id = office.send()
        if is_seen:
            steward.round(datetime.now(UTC))
        office.gateway.postfix.postsuper(option, "ALL" if of_all else office.on_hold()[0])
        assert closed(office, steward, message_id) is expected
    incident = office.incident(message_id)
    assert [notice.kind for notice in office.journal.notices.of(incident.id)] == ["held", kind]
    leak = expected is State.RELEASED_BY_HAND
    told = [(event["event"], event["log_level"]) for event in events if event["event"].startswith("copy_")]
    assert told[-1] == (("copy_left_by_hand", "warning") if leak else ("copy_closed", "info"))
    assert bool(office.received()) == leak


def test_held_mail_that_postfix_renames_is_followed(office: Office) -> None:
    """users-walk 4: turning the long queue ids off, as `postfix detach` does, renames queue files at the reload."""
    incident = office.held()
    [before] = office.on_hold()
    postfix = office.gateway.postfix
    postfix.set(enable_long_queue_ids="no")
    postfix.run("postsuper")  # as `postfix reload` does at a start
    [after] = office.on_hold()
    assert after != before
    with capture_logs() as events, office.steward() as steward:
        for _ in range(2):
            steward.round(datetime.now(UTC))
    [copy] = office.journal.incidents.get(incident.id).copies
    assert (copy.queue_id, copy.state) == (after, State.HELD)
    assert [event["former"] for event in events if event["event"] == "copy_renamed"] == [before]
    request = office.ask(incident, "release", "bcc")
    office.round()
    assert office.answer(request)[0] == "done"
    assert len(office.received()) == 4
    postfix.set(enable_long_queue_ids="yes")


def test_requeued_mail_that_is_on_hold_again_is_followed(office: Office) -> None:
    """`postsuper -r`, and -h before it left: the copy has the new queue id, and nothing is called released."""
    incident = office.held()
    postfix = office.gateway.postfix
    with postfix.deferring(), office.steward() as steward:
        steward.round(datetime.now(UTC))
        postfix.postsuper("-r", office.on_hold()[0])
        new_id = postfix.deferred()
        postfix.postsuper("-h", new_id)
        for _ in range(2):
            steward.round(datetime.now(UTC))
        [copy] = office.journal.incidents.get(incident.id).copies
        assert (copy.queue_id, copy.state) == (new_id, State.HELD)
        postfix.empty()


@pytest.mark.parametrize("office", ["rewrite", "warn"], indirect=True)
def test_a_message_that_was_delivered_at_once_is_told_when_it_is_queued(office: Office) -> None:
    """hostile-review 14: within a second by the log, although the queue never shows it."""
    number = next(NUMBERS)
    with office.steward() as steward:
        steward.round(datetime.now(UTC))
        assert office.gateway.send(letter(number), sender=SENDER, to=PARENTS[:2]).accepted
        office.gateway.settle()
        incident = office.incident(f"<letter-{number}@council.test>")

        def is_confirmed() -> bool:
            steward.round(datetime.now(UTC))
            return office.journal.incidents.get(incident.id).copies[0].confirmed

        until(is_confirmed, what="the message in the log")
    [notice] = office.journal.notices.of(incident.id)
    assert notice.due - incident.at < timedelta(seconds=10)


@pytest.mark.parametrize("answer", ["reject", "discard"])
@pytest.mark.parametrize("office", ["rewrite", "warn"], indirect=True)
def test_a_message_that_a_milter_behind_ours_refused_is_not_told(office: Office, answer: str) -> None:
    """hostile-review 14: "virus found", and its sender was told that it was sent. A discarded one is not either."""
    number = next(NUMBERS)
    with behind_ours(office.gateway.postfix, answer), office.steward() as steward:
        steward.round(datetime.now(UTC))
        outcome = office.gateway.send(letter(number), sender=SENDER, to=PARENTS[:2])
        assert outcome.accepted == (answer == "discard")
        incident = office.incident(f"<letter-{number}@council.test>")

        def is_known() -> bool:
            steward.round(datetime.now(UTC))
            return office.state(incident) is State.NEVER_QUEUED

        until(is_known, what="the refusal in the log")
    assert office.journal.notices.of(incident.id) == []
    assert office.received() == {}
