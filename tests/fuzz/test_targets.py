"""The fuzzing targets without the fuzzer: the seeds pass, and violations are found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fuzz import rewrite, seeds, session, visible
from undisclosed.addresses import addresses
from undisclosed.decision.exposure import NOTHING_SHOWN
from undisclosed.decision.message import Field
from undisclosed.decision.rewrite import Plan

ENVELOPE = (b"M<clerk@council.test>", b"R<ann@family.test>")
FROM = b"LFrom:clerk@council.test"


@pytest.mark.parametrize("target", [visible, rewrite, session], ids=lambda target: target.__name__)
def test_what_a_campaign_begins_with_holds(target: Any) -> None:
    """Every case and every form, as the target reads it, breaks none of its properties."""
    made: Iterator[bytes] = getattr(seeds, target.__name__.rpartition(".")[2])()
    rows = list(made)
    for row in rows:
        target.check(row)
    assert len(rows) > 50


def test_an_address_that_is_not_seen_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that loses the last entry of a list does not pass."""
    monkeypatch.setattr(visible, "addresses", lambda value: addresses(value)[:-1])
    monkeypatch.setattr(visible, "visible", lambda value: [each.text for each in addresses(value)[:-1]])
    monkeypatch.setattr(visible, "mailboxes", lambda value: [])
    with pytest.raises(AssertionError, match=r"not seen: bob@y\.test"):
        visible.check(b"ann@x.test, bob@y.test")


def test_an_address_that_stays_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that changes nothing does not pass, even if the product's own reader finds no address either."""
    monkeypatch.setattr(rewrite, "hide", lambda *_: ())
    monkeypatch.setattr(rewrite, "plan", lambda *_: Plan((), None))
    monkeypatch.setattr(rewrite, "expose", lambda *_: NOTHING_SHOWN)
    with pytest.raises(AssertionError, match="To still shows"):
        rewrite.check(b"\0To: ann@x.test")


@pytest.mark.parametrize("policy", [b"P\5", b"P\1", b"P\2", b"P\3"])
def test_a_message_let_pass_is_noticed(policy: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that accepts a message over the limit fails the target, under each action."""
    row = b"\0".join([b"\0", policy, *ENVELOPE, FROM, b"LTo:a@x.test, b@y.test", b"Nq", b"E"])
    session.check(row)
    monkeypatch.setattr(session, "LIMIT", 1)  # as if the milter counted one less
    with pytest.raises(AssertionError, match="2 addresses were let pass"):
        session.check(row)


def test_edits_that_leave_an_address_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite is checked by the header that it makes."""
    row = b"\0".join([b"\0", b"P\1", *ENVELOPE, FROM, b"LTo:a@x.test, b@y.test, c@z.test", b"Nq", b"E"])
    session.check(row)
    monkeypatch.setattr(session, "apply", lambda *_: (Field("To", "c@z.test"),))
    with pytest.raises(AssertionError, match="shows addresses still"):
        session.check(row)
