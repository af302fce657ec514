"""`undisclosed held`: decisions say what they do, ask before they harm, and concern the copies that were shown.

No steward runs here; tests/live_postfix/test_commands.py has one.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.factories import transaction
from support.journals import KEY
from support.terminal import on_terminal
from undisclosed import cli
from undisclosed.cli.decisions import Order, decide
from undisclosed.cli.output import Output
from undisclosed.incidents.records import QueueCopy, State
from undisclosed.journal import migrate
from undisclosed.journal.journal import Journal
from undisclosed.policy import Action
from undisclosed.policy.sections import JournalSection

CONFIG = """\
[organisation]
name = "Exampleshire County Council"
internal_domains = ["council.test"]

[[rules]]
name = "too many in sight"
more_than_addresses = 10
action = "quarantine"

[journal]
url = "sqlite:///{directory}/journal.db"
key_file = "{directory}/key"
"""
GATEWAY = "mx1.council.test"


class Desk:
    """An administrator's desk: a journal in which mail is held, and the commands on it."""

    def __init__(self, directory: Path) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.config = directory / "config.toml"
        self.config.write_text(CONFIG.format(directory=directory))
        key = directory / "key"
        key.write_bytes(KEY)
        key.chmod(0o600)
        settings = JournalSection(url=f"sqlite:///{directory}/journal.db")
        migrate.upgrade(settings, KEY)
        self.journal = Journal(settings, KEY)
        self.journal.gateways.record(GATEWAY, "council", seen_at=self.now + timedelta(hours=1))  # its steward runs

    def held(self, reference: str = "K7QF-3M2D", **over: Any) -> QueueCopy:
        """Record a message that the steward has seen on hold."""
        number = len(self.journal.incidents.search())
        fields = {
            "at": self.now,
            "message_id": f"<{reference}@x>",
            "queue_id": f"4dX1c23kLmz{number:02}",
            "reference": reference,
        }
        copy = self.journal.filing.record(transaction(**{**fields, **over}))
        self.journal.held.set_state(copy.id, State.HELD, until=self.now + timedelta(days=14))
        return copy

    def run(self, *words: str) -> Result:
        """Run `undisclosed held` without a terminal."""
        return CliRunner().invoke(cli.app, ["held", *words, "--config", str(self.config)])

    def at_terminal(self, *words: str, typed: str) -> tuple[str, int]:
        """Run `undisclosed held` at a terminal where this is typed: the output and the exit status."""
        printed = on_terminal(100, "held", *words, "--config", str(self.config), typed=typed)
        return re.sub(r"\x1b\[[0-9;]*m", "", printed.out), printed.status

    def requests(self) -> list[tuple[int, str, str | None, str]]:
        """The requests without an answer: the copy, what is asked for, and why."""
        found = self.journal.held.requests(gateway=GATEWAY)
        return [(request.copy_id, request.verb, request.mode, request.reason) for request in found]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk where nothing is held."""
    desk = Desk(tmp_path)
    with closing(desk.journal):
        yield desk


# -- before anything is done


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "K7QF"),
        ("delete", "--sender", "*"),
        ("release", "--as", "unchanged", "--reason", "asked by phone", "K7QF"),
        ("release", "--as", "bcc", "--sender", "*"),
        ("release", "--as", "split", "K7QF", "J4WM"),
        ("keep", "--rule", "too many in sight"),
    ],
    ids=" ".join,
)
def test_without_a_terminal_what_would_be_asked_is_refused(desk: Desk, words: tuple[str, ...]) -> None:
    """Exit status 2, with the effect and the option; with --yes it is done (users' walk, 6)."""
    desk.held()
    desk.held("J4WM-6WQG")
    refused = desk.run(*words)
    assert refused.exit_code == 2
    assert re.search("[12] messages? will be (sent|deleted|kept)", refused.output)
    assert "add --yes" in refused.output
    assert desk.requests() == []
    done = desk.run(*words, "--yes", *([] if words[0] == "keep" else ["--no-wait"]))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("mode", ["bcc", "split"])
def test_a_hidden_release_of_one_message_is_not_asked_for(desk: Desk, mode: str) -> None:
    """It harms nobody. A message is one incident, in however many copies."""
    copies = [desk.held(queue_id=f"4dX1c23kLmy0{number}") for number in range(2)]
    done = desk.run("release", "K7QF", "--as", mode, "--no-wait", "--reason", "asked by phone")
    assert (done.exit_code, done.output) == (0, "K7QF-3M2D: the steward has been asked\n")
    assert desk.requests() == [(copy.id, "release", mode, "asked by phone") for copy in copies]


def test_unchanged_needs_a_reason(desk: Desk) -> None:
    """Before the configuration is looked at: the record must say why a list was shown."""
    refused = CliRunner().invoke(cli.app, ["held", "release", "K7QF", "--as", "unchanged", "--yes", "--config", "/no"])
    assert refused.exit_code == 2
    assert "--as unchanged needs --reason" in refused.output


@pytest.mark.parametrize(("typed", "is_done"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_the_effect_is_shown_and_asked_for(desk: Desk, typed: str, is_done: bool) -> None:
    """The messages with sender and subject, how many do not get them; only yes is yes."""
    desk.held(count=95, recipients=96)
    desk.held("J4WM-6WQG", recipients=4, subject="Trip on Friday", sender="head@council.test")
    out, status = desk.at_terminal("delete", "--sender", "*", "--no-wait", typed=typed)
    shown = " ".join(out.split())
    assert "2 messages will be deleted: 100 recipients will not get them, and nothing brings them back:" in shown
    assert re.search(r"J4WM-6WQG .* 4 head@council.test Trip on Friday", shown)
    assert "Delete 2 messages? [y/N]" in shown
    assert (status, len(desk.requests())) == ((0, 2) if is_done else (1, 0))
    assert ("nothing was done" in out) is not is_done


def test_a_dry_run_does_nothing(desk: Desk) -> None:
    """It shows the effect and the messages, as a table or one JSON object each; without a question."""
    desk.held(count=95, recipients=96)
    words = ("release", "--as", "unchanged", "--reason", "x", "K7QF", "--dry-run")
    shown = desk.run(*words)
    assert shown.exit_code == 0
    assert "1 message will be sent unchanged to 96 recipients, who can all read 95 external addresses" in shown.output
    assert json.loads(desk.run(*words, "--json").output)["answer"] == "dry run"
    assert desk.requests() == []


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "--sender", "nobody@council.test"),
        ("release", "--as", "bcc", "--rule", "x"),
        ("keep", "--since", "1m"),
    ],
)
def test_nothing_that_matches_is_said(desk: Desk, words: tuple[str, ...]) -> None:
    """Silence would be taken for success (users' walk, 26)."""
    desk.held(at=desk.now - timedelta(hours=1))
    done = desk.run(*words, "--yes")
    assert (done.exit_code, done.output) == (1, "undisclosed: nothing that is held matches\n")


def test_a_sender_that_is_no_address_gets_a_hint(desk: Desk) -> None:
    """--sender clerk matches nothing, since an address has a domain."""
    for words in (("delete", "--sender", "clerk", "--yes"), ("list", "--sender", "clerk")):
        assert "--sender takes a whole address, or a glob such as clerk@*" in desk.run(*words).output


def test_a_gateway_without_a_name_is_shown_by_its_id(desk: Desk) -> None:
    """Its steward has not run yet: the column was empty."""
    desk.held(gateway="mx7")
    desk.journal.gateways.record("mx7", "")
    assert "\tmx7\t" in desk.run("show", "K7QF-3M2D").output


def test_the_null_sender_is_named_as_tables_show_it(desk: Desk) -> None:
    """`<>`, as in rules; it is no glob."""
    desk.held()
    desk.held("J4WM-6WQG", sender="")
    rows = [line.split("\t") for line in desk.run("list", "--sender", "<>").output.splitlines()[1:]]
    assert [(row[0], row[6]) for row in rows] == [("J4WM-6WQG", "<>")]


# -- references


def test_a_half_heard_reference_finds_the_nearest_held_one(desk: Desk) -> None:
    """It is offered, with its time and sender, and nothing is done to it (users' walk, 31)."""
    desk.held("H2S9-MVJT")
    desk.held("K7QF-3M2D")
    done = desk.run("delete", "H259", "--yes")
    assert done.exit_code == 1
    assert "no incident has the reference H259" in done.output
    assert re.search(r"held, and like it: H2S9-MVJT  .*clerk@council.test  School admissions", done.output)
    assert "K7QF" not in done.output
    assert desk.requests() == []


def test_one_reference_of_two_messages_is_asked_about(desk: Desk) -> None:
    """The same message after more than an hour is another incident; both are shown with their times."""
    earlier = desk.held(at=desk.now - timedelta(hours=2))
    later = desk.held()
    refused = desk.run("release", "K7QF", "--as", "bcc")
    assert refused.exit_code == 2
    times = [f"{copy.arrived.astimezone():%Y-%m-%d %H:%M:%S}" for copy in (later, earlier)]
    assert re.search(rf"(?s)1  K7QF-3M2D  {times[0]}.*2  K7QF-3M2D  {times[1]}", refused.output)
    assert "its time after an @: K7QF-3M2D@" in refused.output

    done = desk.run("release", f"K7QF@{earlier.arrived.astimezone():%Y-%m-%dT%H:%M}", "--as", "bcc", "--no-wait")
    assert done.exit_code == 0, done.output
    assert [request[0] for request in desk.requests()] == [earlier.id]
    out, status = desk.at_terminal("release", "K7QF", "--as", "split", "--no-wait", typed="1\n")
    assert (status, "Which one (1 to 2)?" in out) == (0, True)
    assert [request[:3] for request in desk.requests()] == [
        (earlier.id, "release", "bcc"), (later.id, "release", "split")
    ]  # fmt: skip


# -- what became of it


@pytest.mark.parametrize(
    ("state", "why", "expected"),
    [
        (State.DELETED, "", "K7QF-3M2D was deleted at {time} by root"),
        (State.RELEASED, "as bcc: asked by phone", "K7QF-3M2D was released as bcc at {time} by root"),
        (State.EXPIRED, "", "K7QF-3M2D expired at {time}"),
        (State.DELETED_BY_HAND, "", "K7QF-3M2D was deleted by hand at {time}"),
        (State.RELEASED_BY_HAND, "", "K7QF-3M2D was released by hand at {time}"),
        (State.GONE, "", "K7QF-3M2D left the hold queue, nobody knows how, at {time}"),
    ],
)
def test_the_end_of_a_message_is_told(desk: Desk, state: State, why: str, expected: str) -> None:
    """When, and by whom: not "refused: nothing of it is held: deleted" (users' walk, 27)."""
    copy = desk.held()
    assert desk.journal.held.set_state(copy.id, state, actor="root", why=why)
    for words in (("delete", "K7QF"), ("release", "K7QF", "--as", "bcc"), ("keep", "K7QF"), ("withdraw", "K7QF")):
        done = desk.run(*words)
        assert done.exit_code == 1
        assert re.fullmatch(expected.format(time="[0-9]{2}:[0-9]{2}"), done.output.strip())


def test_a_steward_that_is_away_is_told_at_once(desk: Desk) -> None:
    """By its host's name and for how long, in the list and before a release (users' walk, 25)."""
    desk.held()
    desk.journal.gateways.record(GATEWAY, "council", seen_at=desk.now - timedelta(minutes=3, seconds=5))
    desk.journal.gateways.record("mx2", "annexe")
    desk.journal.gateways.record("mx3", "scrapped", seen_at=desk.now - timedelta(days=30))
    away = "undisclosed: the steward on council has not been seen for 3 minutes\n"
    listed = desk.run("list")
    assert listed.stderr == f"{away}undisclosed: the steward on annexe has never been seen\n"
    released = desk.run("release", "K7QF", "--as", "bcc", "--no-wait")
    assert (released.exit_code, released.stderr) == (0, away)


def test_a_second_request_is_refused_until_the_first_is_taken_back(desk: Desk) -> None:
    """`withdraw` names what was asked for; the message stays on hold."""
    copy = desk.held()
    assert desk.run("release", "K7QF", "--as", "bcc", "--no-wait").exit_code == 0
    second = desk.run("delete", "K7QF", "--yes", "--no-wait")
    assert second.exit_code == 1
    assert "K7QF-3M2D was not deleted: another request for it has no answer yet" in second.output
    taken_back = desk.run("withdraw", "K7QF", "--reason", "too early")
    assert (taken_back.exit_code, taken_back.output) == (
        0, "K7QF-3M2D: the request to release it is taken back, and it stays on hold\n"
    )  # fmt: skip
    assert desk.requests() == []
    [event] = [event for event in desk.journal.incidents.events(copy.incident_id) if "withdrawn" in event.what]
    assert (event.what, event.why) == ("request to release withdrawn", "too early")
    again = desk.run("withdraw", "K7QF")
    assert again.exit_code == 1
    assert "nobody has asked for anything" in again.output


def test_a_request_that_the_steward_has_taken_stays(desk: Desk) -> None:
    """It may be half done already."""
    desk.held()
    assert desk.run("release", "K7QF", "--as", "bcc", "--no-wait").exit_code == 0
    [request] = desk.journal.held.requests(gateway=GATEWAY)
    assert desk.journal.held.take([request.id], gateway=GATEWAY)
    assert desk.run("withdraw", "K7QF").exit_code == 1
    assert len(desk.requests()) == 1


def test_a_request_is_for_the_copies_that_were_shown(desk: Desk) -> None:
    """Not for one that arrived while the question stood; a copy dealt with meanwhile is told as it ended."""
    shown_one, shown_two = desk.held(), desk.held("J4WM-6WQG")
    shown = desk.journal.incidents.search()
    desk.held(queue_id="4dX1c23kLmy01")
    desk.journal.held.set_state(shown_two.id, State.DELETED, actor="alice")
    out = io.StringIO()
    order = Order("release", "bcc", "", "root", yes=True, wait=False)
    assert not decide(desk.journal, shown, order, Output(out, io.StringIO()))
    assert desk.requests() == [(shown_one.id, "release", "bcc", "")]
    assert re.search(r"J4WM-6WQG was deleted at \d\d:\d\d by alice\n", out.getvalue())


# -- delayed mail


def delayed(desk: Desk, reference: str = "K7QF-3M2D", **over: Any) -> QueueCopy:
    """A message that the steward releases in five minutes, with its own request."""
    copy = desk.held(reference, action=Action.DELAY, rule="wait", **over)
    leaves = desk.now + timedelta(minutes=5)
    desk.journal.held.set_state(copy.id, State.HELD, leaves=leaves)
    desk.journal.held.ask([copy.id], verb="release", mode="bcc", actor="steward", reason="", not_before=leaves)
    return copy


def test_a_delayed_message_shows_when_it_leaves(desk: Desk) -> None:
    """Not when it would expire (users' walk, 12)."""
    delayed(desk)
    row = desk.run("list").output.splitlines()[1].split("\t")
    assert row[2:4] == ["delayed", f"leaves {(desk.now + timedelta(minutes=5)).astimezone():%H:%M}"]
    shown = desk.run("show", "K7QF").output
    assert f"leaves\t{(desk.now + timedelta(minutes=5)).astimezone():%Y-%m-%d %H:%M:%S}" in shown
    assert "delayed" in shown


def test_kept_mail_waits_for_a_person(desk: Desk) -> None:
    """All of a stolen account at once: no request of the steward's is left, and the list says so."""
    delayed(desk)
    delayed(desk, "J4WM-6WQG")
    delayed(desk, "2345-6789", sender="head@council.test")
    quarantined = desk.held("8W2T-SM3V")
    done = desk.run("keep", "--sender", "clerk@*", "--yes", "--reason", "stolen account")
    assert done.exit_code == 0
    assert set(done.output.splitlines()) == {
        "K7QF-3M2D stays on hold until someone decides",
        "J4WM-6WQG stays on hold until someone decides",
        "8W2T-SM3V waits for a person already",
    }
    [left] = desk.journal.held.requests(gateway=GATEWAY)
    [other] = desk.journal.incidents.matching("2345")
    assert left.incident_id == other.id
    states = {row.split("\t")[0]: row.split("\t")[2] for row in desk.run("list").output.splitlines()[1:]}
    assert states == {"2345-6789": "delayed", **dict.fromkeys(("K7QF-3M2D", "J4WM-6WQG", "8W2T-SM3V"), "held")}
    assert "stolen account" in desk.run("show", "K7QF").output
    assert desk.journal.incidents.get(quarantined.incident_id).copies[0].waits is None


def test_a_release_taken_back_does_not_leave_by_itself(desk: Desk) -> None:
    """The steward's own request gave way to the person's; nothing may come in its place."""
    copy = delayed(desk)
    assert desk.run("release", "K7QF", "--as", "split", "--no-wait").exit_code == 0
    row = desk.run("list").output.splitlines()[1].split("\t")
    assert (row[2], row[3].partition(" ")[0]) == ("held", "until")
    assert desk.run("withdraw", "K7QF").exit_code == 0
    assert desk.requests() == []
    [now] = desk.journal.incidents.get(copy.incident_id).copies
    assert (now.leaves, now.waits is None) == (None, False)


def test_each_message_that_is_taken_back_has_its_own_reason(desk: Desk) -> None:
    """Also after one of which nothing could be taken back."""
    delayed(desk)
    delayed(desk, "J4WM-6WQG")
    assert desk.run("release", "K7QF", "--as", "split", "--no-wait").exit_code == 0
    desk.run("withdraw", "J4WM", "K7QF", "--yes")
    [stopped] = desk.journal.incidents.matching("K7QF")
    [waits] = {copy.waits for copy in stopped.copies}
    assert waits is not None
    assert waits.startswith("a request was taken back by ")


def test_a_request_taken_back_when_the_rules_own_release_has_begun(desk: Desk) -> None:
    """The command does not say that the message stays on hold."""
    copy = delayed(desk)
    assert desk.run("release", "K7QF", "--as", "split", "--no-wait").exit_code == 0
    desk.journal.held.set_state(copy.id, State.RELEASING)
    done = desk.run("withdraw", "K7QF")
    assert done.exit_code == 1
    assert done.output == (
        "K7QF-3M2D: the request to release it is taken back, but the release that its rule asks for has begun\n"
    )
