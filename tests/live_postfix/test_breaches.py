"""Both breaches that this project exists for, sent again under each action, through a real Postfix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from lab import client
from lab.client import Client, Outcome
from lab.postfix import PrivatePostfix
from lab.sink import Delivery, Sink
from live_postfix.bounces import failures, readable
from live_postfix.compare import body, same, subject
from live_postfix.stage import Stage, attached
from play import breaches
from play.breaches import Breach, Letter
from support.casefile import header_lines
from support.delivered_header import leaks

BREACHES = (breaches.schools(), breaches.families())


@pytest.fixture(scope="module")
def attached_stage(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """The gateway of this file's tests."""
    with attached(installed_postfix, outside) as stage:
        yield stage


@pytest.fixture(params=BREACHES, ids=("schools", "families"))
def breach(request: pytest.FixtureRequest) -> Breach:
    """One of the two breaches."""
    found: Breach = request.param
    return found


@pytest.fixture
def stage(attached_stage: Stage) -> Stage:
    """The gateway; each test chooses its action for more than ten outside addresses."""
    return attached_stage


def send(stage: Stage, letters: Sequence[Letter]) -> list[Outcome]:
    """All letters in one session, and wait until what was taken has arrived somewhere."""
    with Client(stage.postfix.port) as session:
        outcomes = [session.send(letter.message, sender=letter.sender, to=letter.recipients) for letter in letters]
    stage.gateway.settle()
    return outcomes


def counted(stage: Stage) -> list[int]:
    """The number of outside addresses that the milter counted, for each message since its start."""
    return [line["count"] for line in stage.gateway.milter.log(event="message")]


def arrived(stage: Stage, letters: Sequence[Letter]) -> list[Delivery]:
    """Each letter as it reached the outside, once, at all of its recipients."""
    subjects = {subject(delivery.data): delivery for delivery in stage.sink.deliveries}
    assert len(stage.sink.deliveries) == len(letters)
    found = [subjects[subject(letter.message)] for letter in letters]
    assert [set(delivery.recipients) for delivery in found] == [set(letter.recipients) for letter in letters]
    return found


def test_the_breaches_are_those_that_happened() -> None:
    """866 addresses in ten messages of To, 95 in one of them; 500 in one Cc."""
    schools, families = ([len(letter.people) for letter in breach.letters] for breach in BREACHES)
    assert (len(schools), max(schools), sum(schools)) == (10, 95, 866)
    assert families == [500]


@pytest.mark.parametrize("action", ["accept", "warn"])
def test_what_is_let_through_arrives_as_it_was(stage: Stage, breach: Breach, action: str) -> None:
    """An accepted message and one with a warning are not changed by a byte."""
    stage.policy(action)
    assert all(outcome.accepted for outcome in send(stage, breach.letters))
    for letter, delivery in zip(breach.letters, arrived(stage, breach.letters), strict=True):
        assert same(delivery.data, letter.message)
    assert stage.held() == []


@pytest.mark.parametrize("action", ["rewrite", "quarantine", "reject"])
def test_monitor_mode_only_looks(stage: Stage, breach: Breach, action: str) -> None:
    """In monitor mode every letter arrives unchanged, and the log has the action of enforce mode."""
    stage.policy(action, mode="monitor")
    before = len(stage.gateway.milter.log(event="message", action=action, outcome="accepted"))
    assert all(outcome.accepted for outcome in send(stage, breach.letters))
    for letter, delivery in zip(breach.letters, arrived(stage, breach.letters), strict=True):
        assert same(delivery.data, letter.message)
    assert len(stage.gateway.milter.log(event="message", action=action, outcome="accepted")) == before + len(
        breach.letters
    )


def test_a_rewrite_hides_everybody(stage: Stage, breach: Breach) -> None:
    """All recipients get the letter, without an outside address: To is the author, the colleague stays."""
    stage.policy("rewrite")
    assert all(outcome.accepted for outcome in send(stage, breach.letters))
    assert sorted(counted(stage)[-len(breach.letters) :]) == sorted(len(letter.people) for letter in breach.letters)
    for letter, delivery in zip(breach.letters, arrived(stage, breach.letters), strict=True):
        assert leaks(delivery.header) == []
        assert header_lines(delivery.data, letter.message) == hidden(letter)
        assert body(delivery.data) == body(letter.message)
        assert not [person for person in letter.people if person.address.encode() in delivery.header.lower()]
    assert stage.held() == []


def hidden(letter: Letter) -> tuple[str, ...]:
    """The header lines of a letter after a rewrite: the strangers' field is gone, or shows the author as To."""
    lines: list[str] = []
    drop = False
    for line in header_lines(letter.message, letter.message):
        if not line.startswith(" "):
            drop = letter.people[0].entry in line
            if drop and line.startswith("To:"):
                lines.append(lines[0].replace("From:", "To:"))
        if not drop:
            lines.append(line)
    return tuple(lines)


def test_a_quarantine_holds_everything(stage: Stage, breach: Breach) -> None:
    """The client gets 250, no letter gets out, and the hold queue has each one unchanged."""
    stage.policy("quarantine")
    assert all(outcome.accepted for outcome in send(stage, breach.letters))
    assert stage.sink.deliveries == ()
    held = {subject(message): message for message in map(stage.queued, stage.held())}
    assert len(held) == len(breach.letters)
    assert all(same(held[subject(letter.message)], letter.message) for letter in breach.letters)


def test_a_refusal_says_how_many_would_have_been_seen(stage: Stage, breach: Breach) -> None:
    """No message gets out or is held, and the first and the last line of the reply each have the advice."""
    stage.policy("reject")
    outcomes = send(stage, breach.letters)
    assert [outcome.final.code for outcome in outcomes] == [550] * len(breach.letters)
    for letter, outcome in zip(breach.letters, outcomes, strict=True):
        first, *_, last = outcome.final.lines
        assert first == "5.7.0 Not sent. Please put your own address in To, all others in Bcc, and send it again."
        assert last.startswith(f"5.7.0 Everyone would have seen {len(letter.people)} outside addresses: use Bcc.")
    assert (stage.sink.deliveries, stage.held()) == ((), [])


def test_the_log_is_no_second_copy_of_the_list(stage: Stage, breach: Breach) -> None:
    """One line a letter, and no recipient's address in all of the milter's log."""
    stage.policy("reject")
    before = len(stage.gateway.milter.log(event="message"))
    send(stage, breach.letters)
    assert len(stage.gateway.milter.log(event="message")) == before + len(breach.letters)
    log = stage.gateway.milter.log_file.read_text().lower()
    assert not [person for letter in breach.letters for person in letter.people if person.address in log]


@pytest.mark.parametrize("action", ["reject", "rewrite", "quarantine"])
@pytest.mark.parametrize(
    ("sender", "extra"),
    [
        ("", b""),
        ("home.education@city.test", b"Auto-Submitted: auto-generated\nPrecedence: bulk\n"),
        ("bounces@mailing.example", b"List-Id: <families.city.test>\n"),
    ],
    ids=("null sender", "automatic", "list"),
)
def test_no_kind_of_mail_is_exempt(stage: Stage, sender: str, extra: bytes, action: str) -> None:
    """A null sender, automatic mail and a mailing service with our author show 500 families no more than a person."""
    [letter] = BREACHES[1].letters
    stage.policy(action)
    [outcome] = send(stage, [letter._replace(sender=sender, message=extra + letter.message)])
    assert outcome.accepted == (action != "reject")
    assert len(stage.held()) == (action == "quarantine")
    assert len(stage.sink.deliveries) == (action == "rewrite")
    assert not [found for delivery in stage.sink.deliveries for found in leaks(delivery.header)]


def test_a_login_is_in_scope_from_anywhere(stage: Stage) -> None:
    """The same letter from a person who has logged in, far away, with an outside envelope sender."""
    [letter] = BREACHES[1].letters
    stage.policy("reject")
    outcome = client.send(
        stage.postfix.port,
        letter.message,
        sender="agency@work.example",
        to=letter.recipients,
        address="203.0.113.9",
        login="agency",
    )
    assert outcome.final.code == 550


def test_what_comes_from_outside_is_let_in(stage: Stage) -> None:
    """The same letter from an outside server to an internal recipient is out of scope."""
    [letter] = BREACHES[1].letters
    stage.policy("reject")
    outcome = client.send(
        stage.postfix.port, letter.message, sender=letter.sender, to=["clerk@city.test"], address="192.0.2.7"
    )
    stage.gateway.settle()
    assert outcome.accepted
    [delivery] = stage.sink.deliveries
    assert same(delivery.data, letter.message)


def test_sendmail_takes_the_recipients_out_of_the_header(stage: Stage) -> None:
    """`sendmail -t` with 500 families in Cc: all of them get it, hidden."""
    [letter] = BREACHES[1].letters
    stage.policy("rewrite")
    stage.postfix.sendmail(["-i", "-t", "-f", letter.sender], letter.message)
    stage.gateway.settle()
    [delivery] = arrived(stage, [letter])
    assert leaks(delivery.header) == []
    assert header_lines(delivery.data, letter.message) == hidden(letter)


def test_a_refusal_reaches_the_user_of_sendmail(stage: Stage) -> None:
    """The bounce has the advice in one short sentence for each recipient (users-walk, 23); no other message leaves."""
    [letter] = BREACHES[1].letters
    stage.policy("reject")
    stage.postfix.sendmail(["-i", "-f", letter.sender, *letter.recipients[:3]], letter.message)
    stage.gateway.settle()
    [bounce] = stage.sink.deliveries
    assert (bounce.sender, bounce.recipients) == ("", (letter.sender,))
    assert [failure.recipient for failure in failures(bounce)] == list(letter.recipients[:3])
    for failure in failures(bounce):
        assert re.fullmatch(
            r"Everyone would have seen 500 outside addresses: use Bcc\. Reference: .{9}", failure.reason
        )
    assert readable(bounce).count("Everyone would have seen 500 outside addresses: use Bcc.") == 3
    assert "Please put your own address" not in readable(bounce)


def test_sendmail_can_be_held(stage: Stage) -> None:
    """Mail that a script on the host sends is held as well."""
    [letter] = BREACHES[1].letters
    stage.policy("quarantine")
    stage.postfix.sendmail(["-i", "-f", letter.sender, *letter.recipients], letter.message)
    stage.gateway.settle()
    assert stage.sink.deliveries == ()
    [held] = map(stage.queued, stage.held())
    assert same(held, letter.message)
