"""The signs of automatic mail, about which nobody is answered."""

from __future__ import annotations

import pytest

from support.factories import message
from undisclosed.incidents.automatic import Automatic, automatic


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, None),
        ({"auto_submitted": "no"}, None),
        ({"auto_submitted": "No (a person)"}, None),
        ({"auto_submitted": "no; x=y"}, None),
        ({"auto_submitted": "notified"}, Automatic.AUTO_SUBMITTED),
        ({"auto_submitted": "auto-generated; owner=x"}, Automatic.AUTO_SUBMITTED),
        ({"auto_submitted": ["no", "auto-replied"]}, Automatic.AUTO_SUBMITTED),
        ({"list_id": "<parents.council.test>"}, Automatic.LIST),
        ({"precedence": "bulk"}, None),
        ({"precedence": "list"}, None),
    ],
)
def test_fields_of_automatic_mail(header: dict[str, str | list[str]], expected: Automatic | None) -> None:
    """Auto-Submitted and List-Id are signs. Precedence is not: tools by which people write to families set it
    (hostile review, 12)."""
    assert automatic(message(**header)) is expected  # type: ignore[arg-type]  # the header fields are keywords


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("", Automatic.NULL_SENDER),
        ("MAILER-DAEMON", Automatic.PROGRAM),
        ("Owner-parents", Automatic.PROGRAM),
        ("parents-request", Automatic.PROGRAM),
        ("parents-bounce", Automatic.PROGRAM),
        ("parents-bounces", Automatic.PROGRAM),
        ("parents-bounces+3f2a", Automatic.PROGRAM),
        ("news+parent=family.example", Automatic.VERP),
        ("news-77-parent=family.example", Automatic.VERP),
        ("owner", None),
        ("request", None),
        ("homeowner-support", None),
        ("bounces", None),
        ("mary-ann+schools", None),
        ("prvs=0123456789=clerk", None),
        ("prvs=0123456789=mary-ann", None),
        ("a=b", None),
    ],
)
def test_sender_addresses_of_programs(local: str, expected: Automatic | None) -> None:
    """Milter reports, 23, 24 and 26. A tagged address (BATV) is a person's."""
    sender = f"{local}@council.test" if local else ""
    assert automatic(message(sender=sender, from_="clerk@council.test")) is expected
