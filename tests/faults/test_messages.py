"""The largest possible messages, among ordinary ones."""

from __future__ import annotations

import pytest

from faults.trial import Trial
from live_postfix.load import Letter, sender
from support.factories import strangers

LONGEST = 60_000
"""Bytes of a header field at which Postfix cuts it where a milter is in use (milter8.c)."""


def long_field(number: int, kind: str) -> bytes:
    """A field of 60,000 bytes: To with as many strangers as fit in, or another one where the message is to pass."""
    people = strangers(2) if kind == "ordinary" else strangers(1700)
    to = ",\n ".join(people)
    assert kind == "ordinary" or len(to) < LONGEST
    padding = (LONGEST - len("X-Padding: ")) // 500
    lines = (
        f"From: {sender(kind)}",
        f"To: {to}",
        f"Subject: {number} {kind}",
        "X-Padding:" + ("\n " + "x" * 498) * padding,
    )
    return "\n".join((*lines, "", "Dear all", "")).encode()


def many_fields(number: int, kind: str) -> bytes:
    """A thousand To fields, of a stranger each or of a colleague."""
    people = [f"{name}@council.test" for name in range(1000)] if kind == "ordinary" else strangers(1000)
    lines = (f"From: {sender(kind)}", f"Subject: {number} {kind}", *(f"To: {address}" for address in people))
    return "\n".join((*lines, "", "Dear all", "")).encode()


@pytest.mark.parametrize(
    ("letter", "fault"),
    [(long_field, "Header fields of 60,000 bytes"), (many_fields, "Messages with 1,000 To fields")],
    ids=["long_field", "many_fields"],
)
def test_headers(trial: Trial, letter: Letter, fault: str) -> None:
    """All of them are decided as small ones are."""
    trial.letter = letter
    with trial.load(per_session=4) as load:
        load.go_on(12)
    trial.recover()
    assert set(trial.codes()) == {250, 550}
    trial.report(fault, "nothing to do")
