"""Obstacles to a rewrite: signatures, invitations, and parts that name the recipients a second time."""

from __future__ import annotations

from typing import Any

import pytest

from support.factories import message, policy, rule
from undisclosed.decision.body_scan import BodySearch
from undisclosed.decision.edits import HeaderDeletion
from undisclosed.decision.obstacles import (
    ENCODED,
    INVITATION,
    PGP,
    PROTECTED,
    SIGNED,
    SMIME,
    TNEF,
    UUENCODED,
    Obstacle,
    ObstacleKind,
)
from undisclosed.decision.rewrite import Unsafe, plan

STRICT = policy(rules=[rule(more_than_addresses=1)])
"""A text, and the trace fields, may show one hidden address."""

TO = "x@family.test, ann@council.test"


def found(*fields: tuple[str, str], **header: Any) -> str | None:
    """The obstacle to hiding To and Cc in a message with these further fields."""
    try:
        plan(STRICT, message(**{"fields": fields, "to": TO, "cc": "y@family.test", **header}))
    except Unsafe as unsafe:
        return unsafe.obstacle.text
    return None


def text(said: Obstacle | str | None) -> str | None:
    """The text of an obstacle, or the text itself."""
    return said.text if isinstance(said, Obstacle) else said


def in_body(body: bytes) -> str | None:
    """The text of the obstacle in a body with parts."""
    return text(BodySearch(hidden=frozenset(), may_show=1, has_parts=True, is_base64=False).obstacle([body]))


def test_uuencode_by_the_header() -> None:
    """Its text is not decoded here, and a name without an ending does not show it in the body."""
    assert found(("Content-Transfer-Encoding", "X-UUENCODE")) == UUENCODED.text


# -- signatures


@pytest.mark.parametrize(
    ("name", "signature", "expected"),
    [
        ("DKIM-Signature", "v=1; a=rsa-sha256; d=other.test; h=from:to:cc; bh=x; b=y", "signed by DKIM over To, Cc"),
        ("dkim-signature", "v=1;\n\th = From :\n\t  TO ; b=y", "signed by DKIM over To"),
        ("DKIM-Signature ", "v=1; h=from:\n subject:c\n c; b=y", "signed by DKIM over Cc"),
        ("DKIM-Signature", "v=1; h=From:Subject:Date; b=to:cc", None),
        ("DKIM-Signature", "v=1; h=from:x-to:tofu; b=y", None),
        ("DKIM-Signature", "v=1; b=y", "signed by DKIM over To, Cc"),
        ("DKIM-Signature", "h", "signed by DKIM over To, Cc"),
        ("ARC-Message-Signature", "i=1; h=to:from; b=y", "sealed by ARC over To"),
        ("ARC-Seal", "i=1; cv=none; b=y", None),
        ("DomainKey-Signature", "a=rsa-sha1; b=y", "signed by DomainKeys over To, Cc"),
        ("DomainKey-Signature", "a=rsa-sha1; h=From; b=y", None),
    ],
)
def test_a_signature_over_an_edited_field(name: str, signature: str, expected: Obstacle | str | None) -> None:
    """A signature is an obstacle if its h= tag, however it is folded, covers an edited field."""
    assert found((name, signature)) == text(expected)


def test_a_signature_over_fields_that_stay_as_they_are() -> None:
    """A signature over To is no obstacle if only Cc is edited."""
    signature = ("DKIM-Signature", "v=1; h=from:to; b=y")
    assert found(signature, to="ann@council.test") is None
    assert found(signature, to="ann@council.test, x@family.test") == "signed by DKIM over To"


def test_a_signature_over_a_field_that_would_be_added() -> None:
    """Signers name a missing To, so that none can be added (RFC 6376, section 5.4)."""
    assert found(("DKIM-Signature", "v=1; h=from:to; b=y"), to="") == "signed by DKIM over To"


def test_the_second_signature_counts() -> None:
    """All signatures are checked."""
    signatures = [("DKIM-Signature", "v=1; h=from; b=y"), ("DKIM-Signature", "v=1; h=from:cc; b=y")]
    assert found(*signatures) == "signed by DKIM over Cc"


OURS = "v=1; a=rsa-sha256; d=Council.test; s=mail; h=from:to:cc; bh=x; b=y"
FOREIGN = "v=1; a=rsa-sha256; d=elsewhere.test; s=mail; h=from; bh=x; b=y"


def deleted(*signatures: str, **header: Any) -> list[HeaderDeletion]:
    """The signatures that the plan deletes."""
    fields = tuple(("DKIM-Signature", signature) for signature in signatures)
    edits = plan(STRICT, message(**{"fields": fields, "to": TO, **header})).edits
    return [edit for edit in edits if edit.name == "DKIM-Signature" and isinstance(edit, HeaderDeletion)]


def test_a_signature_of_our_own_domain_is_taken_out() -> None:
    """It is no obstacle, since the milters behind ours sign anew: last first, so that the places stay valid."""
    assert deleted(OURS, FOREIGN, OURS) == [HeaderDeletion("DKIM-Signature", 3), HeaderDeletion("DKIM-Signature", 1)]


def test_a_signature_of_our_own_domain_that_stays_valid_is_kept() -> None:
    """Only one that the edits break is taken out."""
    assert deleted(OURS.replace("to:cc", "subject"), OURS) == [HeaderDeletion("DKIM-Signature", 2)]


@pytest.mark.parametrize(
    "signature",
    [
        OURS.replace("Council.test", "elsewhere.test"),
        OURS.replace("Council.test", "council.test.elsewhere.test"),
        OURS.replace("d=Council.test; ", ""),
        OURS.replace(" d=", " i=").replace("Council", "@council"),
    ],
)
def test_a_signature_of_another_domain_is_an_obstacle(signature: str) -> None:
    """Nobody here can sign for it anew."""
    assert found(("DKIM-Signature", signature)) == "signed by DKIM over To, Cc"


@pytest.mark.parametrize("name", ["ARC-Message-Signature", "DomainKey-Signature"])
def test_other_signatures_of_our_own_domain_are_obstacles(name: str) -> None:
    """Only a DKIM signature is made anew."""
    assert found((name, OURS)) is not None


def test_another_signature_over_ours_is_an_obstacle() -> None:
    """ARC seals cover DKIM-Signature, which is taken out."""
    seal = ("ARC-Message-Signature", "i=1; d=elsewhere.test; h=from:dkim-signature; b=y")
    assert found(seal) is None
    assert found(seal, ("DKIM-Signature", OURS)) == "sealed by ARC over DKIM-Signature"


def test_a_signature_that_is_taken_out_repeats_nothing() -> None:
    """Its copied fields (z=) go with it; those of a signature that stays are in sight."""
    copied = "z=To:x@family.test|Cc:y@family.test; "
    assert found(("DKIM-Signature", copied + OURS)) is None
    assert found(("DKIM-Signature", copied + FOREIGN)) == "DKIM-Signature repeats the recipients"


def test_split_edits_to_in_any_case() -> None:
    """Each recipient's message has their own address in To: a signature over To breaks even if To would stay."""
    fields = (("DKIM-Signature", "v=1; d=elsewhere.test; h=from:to; b=y"),)
    signed = message(fields=fields, to="ann@council.test", cc="x@family.test")
    assert plan(policy(), signed).edits
    with pytest.raises(Unsafe, match="signed by DKIM over To"):
        plan(policy(), signed, split=True)


def test_a_rewrite_without_edits_has_no_obstacle() -> None:
    """A message with nothing to hide may have a signature over all fields."""
    fields = [("DKIM-Signature", "v=1; h=from:to:cc; b=y"), ("Content-Type", "text/calendar")]
    assert found(*fields, to="ann@council.test", cc="bob@council.test") is None


# -- the type of the message

TYPES = [
    ("text/plain; charset=utf-8", None),
    ('TEXT/HTML;\n\tcharset="utf-8"', None),
    ("text/plain (in plain words; about text)", None),
    ('multipart/mixed; boundary="=_a/b"', None),
    ("image/png; name=calendar.png", None),
    ("text/calendar", INVITATION),
    ("Text/Calendar; method=REQUEST; charset=utf-8", INVITATION),
    (" text / calendar ;method=PUBLISH", INVITATION),
    ("text/x-vcalendar", INVITATION),
    ("application/ics; name=x", INVITATION),
    ("application/calendar+json", INVITATION),
    ("application/octet-stream; name=invite.ICS", INVITATION),
    ('application/octet-stream; name="invite.ics "', INVITATION),
    ("application/octet-stream; name=invite.ics.", INVITATION),
    ("application/octet-stream; name=minutes.ics.pdf", None),
    ("application/octet-stream; name*=utf-8''invite%2Eics", INVITATION),
    ("application/octet-stream;\n name*0=invi;\n name*1=te.ics", INVITATION),
    ('application/octet-stream; NAME*1*=%2eics; NAME*0="invite"', INVITATION),
    ('application/octet-stream; name="=?utf-8?B?aW52aXRlLmljcw==?="', INVITATION),
    ('application/octet-stream; name="=?utf-8?Q?invite=2Eics?="', INVITATION),
    ('application/ms-tnef; name="winmail.dat"', TNEF),
    ("application/vnd.ms-tnef", TNEF),
    ('application/octet-stream; name="WinMail.dat"', TNEF),
    ("application/octet-stream; name=win.dat", TNEF),
    ("application/octet-stream; name=data.dat", None),
    ("application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m", SMIME),
    ("application/x-pkcs7-mime", SMIME),
    ('multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b', SMIME),
    ('multipart/signed; protocol="application/x-pkcs7-signature"; boundary=b', SMIME),
    ("application/octet-stream; name=smime.p7m", SMIME),
    ('multipart/signed; protocol="application/pgp-signature"; boundary=b', PGP),
    ('multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b', PGP),
    ("multipart/signed; boundary=b", SIGNED),
    ('text/plain; charset=utf-8; hp="clear"', PROTECTED),
    ("multipart/mixed; boundary=b; HP=cipher", PROTECTED),
    ('multipart/mixed; boundary=b; protected-headers="v1"', PROTECTED),
    ("text/plain; hpx=1; xhp=2", None),
    ("message/partial; id=x; number=1", "a fragment of a message"),
    ("", "a Content-Type that cannot be read"),
    ("text", "a Content-Type that cannot be read"),
    ("text/", "a Content-Type that cannot be read"),
    ("text/pl\udce9in", "a Content-Type that cannot be read"),
    ("=?utf-8?q?text/calendar?=", "a Content-Type that cannot be read"),
]


@pytest.mark.parametrize(("content_type", "expected"), TYPES)
def test_the_type_of_the_message(content_type: str, expected: Obstacle | str | None) -> None:
    """Content-Type shows an invitation, TNEF, S/MIME, PGP and protected headers; an unreadable one is an obstacle."""
    assert found(("Content-Type", content_type)) == text(expected)
    assert found(("content-TYPE ", content_type)) == text(expected)


@pytest.mark.parametrize(("content_type", "expected"), [pair for pair in TYPES if "cannot" not in str(pair[1])])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("name", ["Content-Type:", "content-type: ", "CONTENT-TYPE \t:\t"])
def test_the_type_of_a_part(content_type: str, expected: Obstacle | str | None, end: str, name: str) -> None:
    """The same in the header of a part, with any line end."""
    part = f"--b\nContent-ID: <1@x>\n{name}{content_type}\nContent-Transfer-Encoding: 8bit\n\nSome words.\n--b--\n"
    assert in_body(part.replace("\n", end).encode("utf-8", "surrogateescape")) == text(expected)


def test_two_types_cannot_be_decided() -> None:
    """Some clients take the first Content-Type, some the last."""
    assert found(("Content-Type", "text/plain"), ("Content-type", "text/plain")) == "more than one Content-Type"


def test_a_multipart_that_is_encoded_as_a_whole() -> None:
    """Base64 over a whole multipart is forbidden (RFC 2045, section 6.4), but some clients decode it."""
    mixed = ("Content-Type", "multipart/mixed; boundary=b")
    assert found(mixed, ("Content-Transfer-Encoding", "BASE64")) == ENCODED.text
    assert found(mixed, ("Content-Transfer-Encoding", "8bit")) is None
    assert found(("Content-Type", "text/plain"), ("Content-Transfer-Encoding", "base64")) is None


def test_the_name_of_the_file_counts() -> None:
    """Content-Disposition alone may show a calendar."""
    disposition = ("Content-Disposition", 'attachment; filename="Meeting.ics"')
    assert found(("Content-Type", "application/octet-stream"), disposition) == INVITATION.text


# -- fields that name the recipients a second time


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("X-Original-To", "x@family.test", "X-Original-To repeats the recipients"),
        ("Delivered-To", "y@FAMILY.test", "Delivered-To repeats the recipients"),
        ("Subject", "Fwd: for y@family.test", "Subject repeats the recipients"),
        ("X-Rcpt", "rcpt=<y@family.test>; n=1", "X-Rcpt repeats the recipients"),
        ("X-Rcpt", "addr=x@family.test", "X-Rcpt repeats the recipients"),
        ("X-To", "=?utf-8?b?eEBmYW1pbHkudGVzdA==?=", "X-To repeats the recipients"),
        ("List-Unsubscribe", "<https://council.test/?who=x%40family.test>", "List-Unsubscribe repeats the recipients"),
        ("X-Envelope-To", "parent@family.test", "X-Envelope-To repeats the recipients"),
        ("Autocrypt-Gossip", "addr=bob@council.test; keydata=AAAA", "Autocrypt-Gossip names the recipients"),
        ("HP-Outer", "Subject: [...]", PROTECTED),
        ("X-Original-To", "ann@council.test", None),
        ("X-Original-To", "z@family.test", None),
        ("X-Original-To", "xx@family.test.example, x@family.tes", None),
        ("Received", "from a by b for <x@family.test>; now", None),
        ("Received", "from a by b for <x@family.test>,\n\t<y@family.test>; now", "Received repeats the recipients"),
        ("Received", "from a by b for <x@family.test>,\n\t<z@family.test>; now", None),
        ("References", "<x@family.test>", None),
        ("References", "<x@family.test> <y@family.test>", "References repeats the recipients"),
        ("In-Reply-To", "message of x@family.test to y@family.test", "In-Reply-To repeats the recipients"),
        ("Return-Path", "<x@family.test>, <y@family.test>", "Return-Path repeats the recipients"),
        (
            "ARC-Authentication-Results",
            "i=1; mx; x-rcpt=x@family.test x-rcpt=y@family.test",
            "ARC-Authentication-Results repeats the recipients",
        ),
        ("Sender", "x@family.test", None),
        ("X-Sender", "clerk@council.test", None),
        ("X-Note", "no address here", None),
    ],
)
def test_a_field_that_shows_a_hidden_address(name: str, value: str, expected: Obstacle | str | None) -> None:
    """Hiding To is useless if another field shows a recipient, or the traces and identifiers more of them than the
    rule allows: here one.

    Some servers write all recipients into Received (MailScanner/v5#245).
    """
    assert found((name, value)) == text(expected)


def test_trace_fields_count_together() -> None:
    """One server on the way may name one recipient, the next another one."""
    first, second = (("Received", f"from a by b for <{who}@family.test>; now") for who in "xy")
    assert found(first, first) is None
    assert found(first, ("Subject", "a@b.example"), second) == "Received repeats the recipients"


def test_the_author_may_be_among_the_recipients() -> None:
    """An outside author who is also in To is visible anyway: fields with the author are no obstacle."""
    header = {"from_": "me@elsewhere.test", "to": "me@elsewhere.test, x@family.test"}
    assert found(("Disposition-Notification-To", "me@elsewhere.test"), **header) is None
    assert found(("Disposition-Notification-To", "x@family.test"), **header) is not None


@pytest.mark.parametrize("name", ["From", "Sender", "Resent-From", "Resent-Sender"])
def test_a_list_of_recipients_in_an_authors_field_is_an_obstacle(name: str) -> None:
    """One recipient may be the author; a field with two of them repeats the list."""
    assert found((name, "Clerk <clerk@council.test>, x@family.test")) is None
    assert found((name, "clerk@council.test, x@family.test, y@family.test")) == f"{name} repeats the recipients"
    assert found((name, '"x@family.test, y@family.test" <clerk@council.test>')) == f"{name} repeats the recipients"
    assert found((name, "clerk@council.test, x@elsewhere.test, y@elsewhere.test")) is None


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (("Content-Type", "text/calendar"), ObstacleKind.INVITATION),
        (("Content-Type", "application/ms-tnef"), ObstacleKind.OUTLOOK),
        (("Content-Type", "multipart/signed"), ObstacleKind.SIGNED),
        (("Content-Type", "multipart/encrypted"), ObstacleKind.SIGNED),
        (("Content-Type", "application/pkcs7-mime"), ObstacleKind.SIGNED),
        (("HP-Outer", "To: x@family.test"), ObstacleKind.SIGNED),
        (("DKIM-Signature", "h=to; b=y"), ObstacleKind.SIGNED),
        (("ARC-Message-Signature", "h=to; b=y"), ObstacleKind.SIGNED),
        (("Content-Type", "message/partial"), ObstacleKind.OTHER),
        (("X-To", "x@family.test"), ObstacleKind.OTHER),
        (("signed-for", "x@family.test"), ObstacleKind.OTHER),
    ],
)
def test_an_obstacle_has_a_kind(field: tuple[str, str], kind: ObstacleKind) -> None:
    """The words for a sender depend on the kind, never on the text for administrators."""
    with pytest.raises(Unsafe) as raised:
        plan(policy(), message(fields=(field,), to=TO))
    assert raised.value.obstacle.kind is kind
