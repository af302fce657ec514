"""The explanation of a saved message: the decision of the milter, with its reasons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.factories import policy, rule, strangers
from undisclosed.decision import obstacles
from undisclosed.decision.reference import identity, reference
from undisclosed.decision.rules import decide
from undisclosed.explain.explanation import Explanation, as_json, explain
from undisclosed.explain.message_file import Envelope, read
from undisclosed.policy import Policy

KEY = b"k" * 32
FROM = b"From: Clerk <clerk@council.test>\n"
ID = b"Message-ID: <1@council.test>\n"


def explained(raw: bytes, policy: Policy, key: bytes | None = KEY, **envelope: Any) -> Explanation:
    """The explanation of a message with these bytes."""
    return explain(policy, key, read("m.eml", raw, Envelope(**envelope)))


def to(count: int) -> bytes:
    """A To field with this number of outside addresses."""
    return f"To: {', '.join(strangers(count))}\n".encode()


def acting(action: str, **over: object) -> Policy:
    """A policy with one rule, above 10 addresses."""
    return policy(rules=[rule(action=action)], **over)


def test_a_refused_message() -> None:
    """The explanation has the rule, the figures, each address and the words on the wire, with the log's reference."""
    message = read("m.eml", FROM + ID + to(11) + b"Cc: boss@council.test\n\nhello\n").message
    explanation = explained(FROM + ID + to(11) + b"Cc: boss@council.test\n\nhello\n", policy())
    name = reference(identity(KEY, message, decide(policy(), message).exposure))
    assert explanation == Explanation(
        file="m.eml",
        action="reject",
        mode="enforce",
        would_be_stopped=True,
        scope="outgoing",
        rule="too many in sight",
        reason="11 external addresses, the limit is 10",
        obstacle=None,
        reference=name,
        count=11,
        organisations=11,
        per_field={"to": 11},
        partner=0,
        internal=1,
        visible_external=strangers(11),
        sender="clerk@council.test",
        recipients=12,
        reply=(
            "550-5.7.0 Not sent. Please put your own address in To, all others in Bcc, and send it again.\n"
            "550-5.7.0 A mail merge is safer still. For a few people, send one message each.\n"
            "550-5.7.0 For help, ask your mail administrator (Exampleshire County Council).\n"
            f"550 5.7.0 Everyone would have seen 11 outside addresses: use Bcc. Reference: {name}"
        ),
        before=[],
        after=[],
        remarks=[],
    )


def test_a_message_below_the_limit() -> None:
    """A message that no rule matches is accepted, and has its figures, too."""
    explanation = explained(FROM + ID + to(10) + b"\n", policy())
    assert (
        explanation.action,
        explanation.rule,
        explanation.would_be_stopped,
        explanation.reply,
        explanation.reference,
    ) == ("accept", None, False, None, None)
    assert (explanation.count, explanation.reason) == (10, "no rule matches")


@pytest.mark.parametrize(("action", "stopped"), [("warn", False), ("rewrite", False), ("quarantine", True)])
def test_actions_without_a_reply(action: str, stopped: bool) -> None:
    """Only a rejected message has a reply; of the others only a quarantined one is stopped."""
    explanation = explained(FROM + ID + to(11) + b"\n", acting(action))
    assert (explanation.action, explanation.would_be_stopped, explanation.reply) == (action, stopped, None)
    assert explanation.reference is not None


def test_a_rewrite_shows_the_header_before_and_after() -> None:
    """The edited fields, as they are and as they would leave."""
    raw = FROM + ID + to(11) + b"Subject: hello\nCc: boss@council.test, x@family.test\n\nhello\n"
    explanation = explained(raw, acting("rewrite"))
    assert explanation.before == [f"To: {', '.join(strangers(11))}", "Cc: boss@council.test, x@family.test"]
    assert explanation.after == ["To: Clerk <clerk@council.test>", "Cc: boss@council.test"]


def test_what_must_not_be_rewritten() -> None:
    """A signature over To changes the action to rewrite.when_unsafe, and the obstacle is named."""
    raw = FROM + ID + b"DKIM-Signature: v=1; h=from:to; b=x\n" + to(11) + b"\n"
    held = explained(raw, acting("rewrite"))
    assert (held.action, held.before) == ("quarantine", [])
    assert (held.obstacle or "").startswith("signed by DKIM over To")
    refused = explained(raw, acting("rewrite", rewrite={"when_unsafe": "reject"}))
    assert refused.action == "reject"
    assert "It is digitally signed or encrypted" in (refused.reply or "")


def test_an_obstacle_in_the_body() -> None:
    """An invitation inside a multipart is found in the body, as in the milter."""
    body = b"--b\nContent-Type: text/calendar\n\nBEGIN:VCALENDAR\n--b--\n"
    raw = FROM + ID + b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n' + to(11) + b"\n" + body
    explanation = explained(raw, acting("rewrite"))
    assert (explanation.action, explanation.obstacle, explanation.after) == (
        "quarantine",
        obstacles.INVITATION.text,
        [],
    )


def test_mail_through_sendmail_gets_one_line() -> None:
    """A bounce of sendmail(1) repeats a reply for each recipient (users-walk, 23)."""
    records = (
        b"*** ENVELOPE RECORDS q/A ***\nsender: clerk@council.test\nrecipient: b@x.test\n*** MESSAGE CONTENTS q/A ***\n"
    )
    explanation = explained(records + FROM + ID + to(11) + b"\n", policy())
    assert explanation.reply is not None
    assert "\n" not in explanation.reply
    assert explanation.reply.startswith("550 5.7.0 Everyone would have seen 11 outside addresses: use Bcc. Reference: ")


@pytest.mark.parametrize(
    ("raw", "key", "remark"),
    [
        (FROM + to(11) + b"\n", KEY, "no reference: it depends on a Message-ID, and there is none yet"),
        (FROM + ID + to(11) + b"\n", None, "no reference: the key (journal.key_file) cannot be read"),
    ],
)
def test_a_reference_that_cannot_be_told(raw: bytes, key: bytes | None, remark: str) -> None:
    """A wrong reference leads to no line in the log: it is left out, with the reason."""
    explanation = explained(raw, policy(), key)
    assert explanation.reference is None
    assert "Reference" not in (explanation.reply or "")
    assert explanation.remarks == [remark]


def test_monitor_mode_is_told() -> None:
    """In monitor mode the decision is recorded only, and a remark says so."""
    explanation = explained(FROM + ID + to(11) + b"\n", policy(mode="monitor"))
    assert (explanation.action, explanation.mode, explanation.would_be_stopped) == ("reject", "monitor", True)
    assert explanation.remarks == ['mode is "monitor": it is delivered unchanged, and this is only logged']
    assert explained(FROM + ID + to(1) + b"\n", policy(mode="monitor")).remarks == []


def test_the_envelope_decides_on_scope() -> None:
    """Mail from outside, and mail to internal recipients only, is out of scope."""
    raw = b"From: x@family.test\n" + ID + to(11) + b"\n"
    assert explained(raw, policy(), client="192.0.2.7").scope == "not_outgoing"
    assert explained(raw, policy(), client="192.0.2.7", login="anna").scope == "outgoing"
    assert explained(FROM + to(11) + b"\n", policy(), recipients=("boss@council.test",)).scope == "internal_only"


def test_json_is_one_line_of_ascii() -> None:
    """A program can read it line by line, with any bytes in a message: no raw byte, lone surrogate or line end."""
    raw = FROM + b"Subject: x\nTo: \xe9 <a\xe9@x.test>,\n\tb@x.test, Ll\xc5\xb7n <c@x.test>\n\n"
    line = as_json(explained(raw, policy(rules=[rule(more_than_addresses=0, action="rewrite")])))
    assert line.isascii()
    assert "\n" not in line
    assert "\\udc" not in line
    found = json.loads(line)
    assert list(found) == list(Explanation.__dataclass_fields__)
    assert {"file", "action", "rule", "count", "organisations", "visible_external", "reply"} <= set(found)
    assert found["count"] == 3
    assert found["visible_external"][1:] == ["b@x.test", "c@x.test"]
