"""The lines that a real Postfix logs about held mail, read by our reader: what each act looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import milter
from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.waiting import until
from live_postfix.office import NUMBERS, PARENTS, SENDER, letter
from live_postfix.policy_service import HELD_AT, other_holds
from undisclosed.postfix.log_events import Fate, LogEvents, What
from undisclosed.postfix.mail_log import MailLog, read_settings
from undisclosed.postfix.postconf import Postconf
from undisclosed.steward.hold_queue import HoldQueue


class Watched:
    """A gateway that holds messages with too many addresses, and its log."""

    def __init__(self, gateway: Gateway, queue: HoldQueue) -> None:
        self.gateway = gateway
        self.postfix = gateway.postfix
        self._queue = queue
        self._log = MailLog(read_settings(Postconf(gateway.postfix.config_dir)))

    def events(self) -> LogEvents:
        """All that was logged until now: a mark written now has been read."""
        self._queue.mark(self._log.new_mark())
        until(self._is_read, what="the mark in the log")
        return self._log.events

    def _is_read(self) -> bool:
        self._log.read([])
        return self._log.is_mark_seen()

    def held(self, sender: str = SENDER, body: bytes = b"", **fields: str) -> str:
        """Send a letter that the milter holds; returns its queue id."""
        before = self.on_hold()
        assert self.gateway.send(letter(next(NUMBERS), **fields) + body, sender=sender, to=PARENTS[:2]).accepted
        [queue_id] = self.on_hold() - before
        return queue_id

    def on_hold(self) -> set[str]:
        """The queue ids on hold."""
        return {str(entry["queue_id"]) for entry in self.postfix.queue("hold")}


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Watched]:
    """Postfix with everything that can put mail on hold, attached once for all tests of this file."""
    with (
        Gateway(installed_postfix, outside, user=milter.unprivileged_user()) as gateway,
        other_holds(installed_postfix),
        HoldQueue(installed_postfix.config_dir) as queue,
    ):
        gateway.configure(gateway.policy("quarantine"))
        gateway.milter.reload()
        yield Watched(gateway, queue)
        installed_postfix.wait_until_idle()
        installed_postfix.empty()


@pytest.fixture
def watched(standing: Watched) -> Iterator[Watched]:
    """The same with an empty queue."""
    standing.postfix.empty()
    yield standing
    standing.postfix.wait_until_idle()


def test_what_the_milter_alone_held_has_its_line(watched: Watched) -> None:
    """By SMTP, by sendmail(1), and with a short queue id."""
    queue_id = watched.held()
    assert watched.events().is_held_by_milter(queue_id)
    watched.postfix.empty()
    watched.postfix.sendmail(["-f", SENDER, *PARENTS[:2]], letter(next(NUMBERS)))
    [queue_id] = until(watched.on_hold, what="a held message")
    events = watched.events()
    assert (events.is_held_by_milter(queue_id), events.is_placed_since(queue_id)) == (True, False)


@pytest.mark.parametrize(
    "hold",
    [
        lambda watched: watched.held("suspect@council.test"),
        *(lambda watched, sender=sender: watched.held(sender) for sender in HELD_AT),
        lambda watched: watched.held(Subject="HOLD this"),
        lambda watched: watched.held(body=b"HOLD this\n"),
    ],
    ids=["access table", *HELD_AT.values(), "header_checks", "body_checks"],
)
def test_what_something_else_held_as_well_has_no_line(watched: Watched, hold: Callable[[Watched], str]) -> None:
    """milter-reports 5: an access table, a policy service at any stage, header_checks, body_checks."""
    queue_id = hold(watched)
    assert not watched.events().is_held_by_milter(queue_id)


@pytest.mark.parametrize("of_all", [False, True], ids=["by id", "ALL"])
def test_a_hold_by_hand_is_seen_though_the_message_is_on_hold_already(watched: Watched, of_all: bool) -> None:
    """hostile-review 5: what an administrator does about a stolen account."""
    queue_id = watched.held()
    watched.postfix.postsuper("-h", "ALL" if of_all else queue_id)
    assert watched.events().is_placed_since(queue_id)
    later = watched.held()
    events = watched.events()
    assert (events.is_held_by_milter(later), events.is_placed_since(later)) == (True, False)


@pytest.mark.parametrize("of_all", [False, True], ids=["by id", "ALL"])
@pytest.mark.parametrize(
    ("option", "expected"),
    [("-d", What.DELETED), ("-H", What.LET_GO), ("-r", What.REQUEUED), ("-f", What.EXPIRED)],
)
def test_the_fate_of_a_held_message(watched: Watched, option: str, of_all: bool, expected: What) -> None:
    """users-walk 5: released and deleted by hand are told apart at once, also by ALL, which logs no queue id."""
    queue_id = watched.held()
    watched.postfix.postsuper(option, "ALL" if of_all else queue_id)
    fate = watched.events().fate(queue_id)
    assert fate is not None
    assert fate.kind is expected
    watched.postfix.wait_until_idle()
    fate = watched.events().fate(queue_id)
    assert fate is not None
    assert (fate.kind, fate.new_id is not None) == (expected, expected is What.REQUEUED)


def test_a_requeued_message_on_hold_again_is_followed_to_its_new_id(watched: Watched) -> None:
    """`postsuper -r`, and -h before it leaves."""
    queue_id = watched.held()
    with watched.postfix.deferring():
        watched.postfix.postsuper("-r", queue_id)
        new_id = watched.postfix.deferred()
        watched.postfix.postsuper("-h", new_id)
        assert watched.events().fate(queue_id) == Fate(What.REQUEUED, new_id)
        watched.postfix.empty()


def test_a_rewritten_message_is_seen_to_be_queued(watched: Watched) -> None:
    """hostile-review 14: it is gone from the queue within a second."""
    gateway = watched.gateway
    gateway.configure(gateway.policy("rewrite"))
    gateway.milter.reload()
    outcome = gateway.send(letter(next(NUMBERS)), sender=SENDER, to=PARENTS[:2])
    assert outcome.end is not None
    queue_id = outcome.end.text.rpartition(" ")[2]
    watched.postfix.wait_until_idle()
    events = watched.events()
    assert (events.is_queued(queue_id), events.is_refused(queue_id)) == (True, False)
    gateway.configure(gateway.policy("reject"))
    gateway.milter.reload()
    assert not gateway.send(letter(next(NUMBERS)), sender=SENDER, to=PARENTS[:2]).accepted
    refused = watched.postfix.log_lines("milter-reject")[-1].split(": ")[1]
    events = watched.events()
    assert (events.is_queued(refused), events.is_refused(refused)) == (False, True)
    gateway.configure(gateway.policy("quarantine"))
    gateway.milter.reload()


def test_the_mark_is_the_only_text_that_can_be_written(watched: Watched, tmp_path: Path) -> None:
    """A compromised other half cannot write lines that permit a release."""
    queue = watched._queue
    for text in ("", "x", "0123456789ABCDEF", "0123456789abcdef x", "0123456789abcdef\n"):
        connection = queue._connection
        connection.send(f"mark {text}".encode())
        assert connection.recv(1000).startswith(b"no ")
