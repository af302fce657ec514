"""The parts of a release: the addresses that each recipient can read, and every other byte."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email.parser import BytesHeaderParser

import pytest

from support.factories import policy
from undisclosed.decision import rewrite
from undisclosed.decision.queue_file import QueuedMessage, Recipient
from undisclosed.incidents.records import ReleaseMode, parts_for, places_served
from undisclosed.steward.release_parts import HEADER_LIMIT, HeldMessage, ReleasePart, parts

OUTSIDE = [f"parent{number}@family{number}.test" for number in range(12)]
INSIDE = ["head@school.council.test", "clerk@council.test"]

HEADER = b"""Received: from client.council.test (unknown [127.0.0.1])
\tby mx.council.test (Postfix) with ESMTP id 4jXkbq5QPvzJ9sp;
From: The Clerk <clerk@council.test>
To: %s
CC:Head <head@school.council.test>, "Parent 0" <parent0@family0.test>
subject:  caf\xe9 \xc3\xa9   two  blanks
X-Odd :kept
Message-ID: <1@council.test>
""" % b",\n\t".join(address.encode() for address in OUTSIDE)
BODY = b"\nDear all,\n.\n\x00\xff nobody@else.test\n"


def held(content: bytes = HEADER + BODY, recipients: list[str] | None = None) -> HeldMessage:
    """A held message to OUTSIDE and INSIDE."""
    people = recipients if recipients is not None else [*OUTSIDE, *INSIDE]
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    recipients_of_file = tuple(map(Recipient, people))
    return HeldMessage.read(
        QueuedMessage("4jXkbq5QPvzJ9sp", moment, 1, "clerk@council.test", recipients_of_file, content)
    )


def content_of(part: ReleasePart) -> bytes:
    """All bytes of a part."""
    return b"".join(part.pieces())


def readable(part: ReleasePart) -> set[str]:
    """The outside addresses in recipient fields, found without our own parser."""
    fields = BytesHeaderParser().parsebytes(content_of(part))
    text = " ".join(
        str(value) for name, value in fields.items() if name.lower() in ("to", "cc", "bcc", "reply-to", "resent-to")
    )
    return {address for address in OUTSIDE if address in text}


def rest(content: bytes) -> list[bytes]:
    """All lines of a message except To and Cc."""
    lines, skipping = [], False
    for line in content.split(b"\n"):
        skipping = line.lower().startswith((b"to:", b"cc:")) or (skipping and line.startswith((b" ", b"\t")))
        if not skipping:
            lines.append(line)
    return lines


def test_unchanged_is_the_message_itself() -> None:
    """One part with every byte, for every recipient."""
    message = held()
    assert list(parts(policy(), message, "unchanged")) == [
        ReleasePart(parts_for("unchanged", range(14), 14), message.queued.recipients, b"", message.queued.content)
    ]


def test_bcc_shows_no_outside_address_and_touches_nothing_else() -> None:
    """One part for all recipients; To and Cc have internal addresses only, and all other bytes stay."""
    [part] = parts(policy(), held(), "bcc")
    assert (part.records, readable(part)) == (parts_for("bcc", range(14), 14), set())
    assert len(part.recipients) == 14
    assert rest(content_of(part)) == rest(HEADER + BODY)
    assert b"head@school.council.test" in content_of(part)


def test_split_shows_each_recipient_outside_their_own_address_only() -> None:
    """No part shows an outside address other than its one recipient's; internal recipients share a part without any."""
    found = list(parts(policy(), held(), "split"))
    assert [place for part in found for place in sorted(places_served(part.records))] == [12, 13, *range(12)]
    inside, *outside = found
    assert ([recipient.address for recipient in inside.recipients], readable(inside)) == (INSIDE, set())
    for part in outside:
        [recipient] = part.recipients
        assert readable(part) == {recipient.address}
        assert rest(content_of(part)) == rest(HEADER + BODY)


def test_split_keeps_the_name_that_the_message_gives() -> None:
    """A recipient with a name in the header has it in their own part."""
    message = held(
        recipients=["parent0@family0.test"], content=HEADER.replace(b"To: parent0@family0.test,\n\t", b"To: ")
    )
    [part] = parts(policy(), message, "split")
    assert b"\nTo: Parent 0 <parent0@family0.test>\n" in content_of(part)


def test_split_of_a_message_that_hides_its_recipients() -> None:
    """Recipients of Bcc get a part of their own, and stay unknown to the others."""
    content = b"From: clerk@council.test\nTo: clerk@council.test\nSubject: x\n" + BODY
    one, two = parts(policy(), held(content, OUTSIDE[:2]), "split")
    assert (readable(one), readable(two)) == ({OUTSIDE[0]}, {OUTSIDE[1]})


def test_redirected_mail_goes_to_one_address_in_any_mode() -> None:
    """One part for all places, as Postfix delivers it; the modes that hide still hide."""
    message = HeldMessage.read(replace(held().queued, redirect_to="catchall@council.test"))
    modes: tuple[ReleaseMode, ...] = ("bcc", "split", "unchanged")
    for mode in modes:
        [part] = parts(policy(), message, mode)
        assert part.recipients == (Recipient("catchall@council.test"),)
        assert part.records == parts_for(mode, range(14), 14)
        assert readable(part) == (set(OUTSIDE) if mode == "unchanged" else set())


def test_split_without_to() -> None:
    """Each part gets a To."""
    content = b"From: clerk@council.test\nCc: parent0@family0.test, parent1@family1.test\n" + BODY
    for part, address in zip(parts(policy(), held(content, OUTSIDE[:2]), "split"), OUTSIDE, strict=False):
        assert readable(part) == {address}


def test_an_archive_gets_the_part_without_addresses() -> None:
    """A recipient that always_bcc added gets the part without outside addresses, even outside."""
    archive = Recipient("archive@vault.test", None, 1, automatic=True)
    message = replace(held().queued, recipients=(archive,))
    [part] = parts(policy(), HeldMessage.read(message), "split")
    assert readable(part) == set()
    assert b"archive@vault.test" not in content_of(part)


def test_served_recipients_get_no_second_part_in_any_mode() -> None:
    """Accepted parts count by the places of their recipients, independent of their mode."""
    [left] = parts(policy(), held(), "bcc", accepted=parts_for("split", [0, 3, 7, 8, 12, 13], 14))
    assert left.records == parts_for("bcc", [1, 2, 4, 5, 6, 9, 10, 11], 14)
    assert list(parts(policy(), held(), "split", accepted=parts_for("bcc", range(14), 14))) == []
    [last] = parts(policy(), held(), "split", accepted=parts_for("bcc", range(1, 14), 14))
    assert last.records == parts_for("split", [0], 14)


SIGNATURE = b"DKIM-Signature: v=1; a=rsa-sha256; d=%s; s=x;\n\th=from:to:cc:subject; bh=x; b=y\n"


def test_an_own_signature_that_an_edit_breaks_is_removed() -> None:
    """The signing milter makes a new one; an unchanged message keeps it."""
    content = SIGNATURE % b"council.test" + HEADER + BODY
    modes: tuple[ReleaseMode, ...] = ("bcc", "split")
    for mode in modes:
        for part in parts(policy(), held(content), mode):
            assert b"DKIM-Signature" not in content_of(part)
    [part] = parts(policy(), held(content), "unchanged")
    assert content_of(part) == content


def test_an_own_signature_that_stays_valid_is_kept() -> None:
    """A signature that does not cover the edited fields stays."""
    content = SIGNATURE.replace(b":to:cc", b"") % b"council.test" + HEADER + BODY
    [part] = parts(policy(), held(content), "bcc")
    assert content_of(part).startswith(SIGNATURE.replace(b":to:cc", b"") % b"council.test")


@pytest.mark.parametrize(
    "content",
    [
        SIGNATURE % b"sender.test" + HEADER + BODY,
        HEADER
        + b'Content-Type: multipart/mixed; boundary="x"\n\n--x\nContent-Type: text/calendar\n\nBEGIN:VCALENDAR\n',
        HEADER + b"Content-Type: application/ms-tnef\n" + BODY,
    ],
    ids=["foreign signature", "nested invitation", "winmail.dat"],
)
@pytest.mark.parametrize("mode", ["bcc", "split"])
def test_what_must_not_be_rewritten_is_refused_with_the_reason(content: bytes, mode: ReleaseMode) -> None:
    """The error comes before the first part."""
    with pytest.raises(rewrite.Unsafe, match=r"\w"):
        parts(policy(), held(content), mode)


@pytest.mark.parametrize("end", [b"", b"X-Long: " + b"x" * 900, b"X" * 900 + b": x\n"])
@pytest.mark.parametrize("mode", ["bcc", "split"])
def test_a_header_that_is_not_read_whole_is_not_rewritten(end: bytes, mode: ReleaseMode) -> None:
    """More fields may follow the ones that were read, wherever the reading ends; unchanged it is sent as it is."""
    filler = b"X-Filler: " + b"x" * 900 + b"\n"
    beginning = HEADER + filler * (HEADER_LIMIT // len(filler))
    for length in range(HEADER_LIMIT - 2, HEADER_LIMIT + 3):
        content = beginning[: length - len(end) - 1] + b"\n" + end + b"Cc: late@family0.test\n" + BODY
        with pytest.raises(rewrite.Unsafe, match="header"):
            parts(policy(), held(content), mode)
        [part] = parts(policy(), held(content), "unchanged")
        assert content_of(part) == content


def test_message_id() -> None:
    """As the milter gets it; None if there is none."""
    assert held().message.message_id == "<1@council.test>"
    assert held(b"From: x@council.test\n\nMessage-ID: <2@x>\n").message.message_id is None
