"""The reply to a refused message, as mail programs on the machine show it."""

from __future__ import annotations

import re
import smtplib
import subprocess
from collections.abc import Iterator

import pytest

from lab.postfix import PrivatePostfix
from lab.sink import Sink
from live_postfix.bounces import failures, readable
from live_postfix.office import PARENTS, SENDER, letter
from live_postfix.stage import Stage, attached

BILINGUAL = {"languages": ["cy", "en"], "help": "y ddesg gymorth, 01234 567890"}
REFERENCE = r"[A-Z0-9]{4}-[A-Z0-9]{4}"

IN_BOTH = (
    r"Heb ei hanfon\. Rhowch eich cyfeiriad chi yn To, pawb arall yn Bcc, a'i hanfon eto\.",
    r"Not sent\. Please put your own address in To, all others in Bcc, and send it again\.",
    r"Cymorth / Help: y ddesg gymorth, 01234 567890 \(Cyngor Llyn Council\)\.",
    rf"Byddai pawb yn gweld 12 o gyfeiriadau allanol: defnyddiwch Bcc\. Cyfeirnod: {REFERENCE}",
    rf"Everyone would have seen 12 outside addresses: use Bcc\. Reference: {REFERENCE}",
)


@pytest.fixture(scope="module")
def attached_stage(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """The gateway of this file's tests."""
    with attached(installed_postfix, outside) as stage:
        yield stage


@pytest.fixture
def stage(attached_stage: Stage) -> Stage:
    """The gateway, with a refusal in Welsh and English."""
    attached_stage.policy("reject", organisation=BILINGUAL)
    return attached_stage


def test_smtplib_shows_every_line(stage: Stage) -> None:
    """Both languages arrive whole, in ASCII."""
    with smtplib.SMTP("127.0.0.1", stage.postfix.port) as client, pytest.raises(smtplib.SMTPDataError) as caught:
        client.sendmail(SENDER, PARENTS, letter(1))
    error = caught.value.smtp_error
    assert caught.value.smtp_code == 550
    text = error if isinstance(error, str) else error.decode("ascii")
    assert re.fullmatch("\n".join(rf"5\.7\.0 {line}" for line in IN_BOTH), text)


def test_swaks_shows_every_line(stage: Stage) -> None:
    """As on the wire, with the codes in front of each line."""
    done = subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{stage.postfix.port}", "--from", SENDER, "--to", PARENTS[0], "--data", "-"],
        input=letter(2),
        capture_output=True,
    )
    replies = re.findall(r"^<\*\* (550.*?)\r?$", done.stdout.decode("ascii", "replace"), re.MULTILINE)
    expected = [*(f"550-5.7.0 {line}" for line in IN_BOTH[:-1]), f"550 5.7.0 {IN_BOTH[-1]}"]
    assert len(replies) == len(expected)
    assert all(re.fullmatch(*pair) for pair in zip(expected, replies, strict=True))


def test_a_bounce_repeats_one_sentence_for_each_recipient(stage: Stage) -> None:
    """sendmail(1): a paragraph of five lines for each of 95 recipients was not readable (users-walk, 23)."""
    stage.postfix.sendmail(["-i", "-f", SENDER, *PARENTS], letter(3))
    stage.gateway.settle()
    [bounce] = stage.sink.deliveries
    sentence = rf"{IN_BOTH[3]} / {IN_BOTH[4]}"
    assert [failure.recipient for failure in failures(bounce)] == PARENTS
    assert all(re.fullmatch(sentence, failure.reason) for failure in failures(bounce))
    assert len(re.findall(sentence, readable(bounce))) == len(PARENTS)
    assert "Rhowch eich cyfeiriad" not in readable(bounce)


def test_own_words(stage: Stage) -> None:
    """A client gets the lines of reply.txt, sendmail(1) the last of them."""
    words = stage.gateway.config.parent / "words" / "en"
    words.mkdir(parents=True)
    (words / "reply.txt").write_text("Not sent: ring {help}.\n{count} people at {organisation}, 100% {reference}\n")
    stage.policy("reject", notices={"templates": "words"})
    with smtplib.SMTP("127.0.0.1", stage.postfix.port) as client, pytest.raises(smtplib.SMTPDataError) as caught:
        client.sendmail(SENDER, PARENTS, letter(4))
    last = rf"12 people at Cyngor Llyn Council, 100% {REFERENCE}"
    assert re.fullmatch(
        rf"b?'?5\.7\.0 Not sent: ring the service desk, extension 1234\.\\n5\.7\.0 {last}'?",
        str(caught.value.smtp_error),
    )
    stage.postfix.sendmail(["-i", "-f", SENDER, PARENTS[0]], letter(5))
    stage.gateway.settle()
    [bounce] = stage.sink.deliveries
    [failure] = failures(bounce)
    assert re.fullmatch(last, failure.reason)
