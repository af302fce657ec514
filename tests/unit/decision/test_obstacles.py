"""Obstacles to a rewrite: signatures, invitations, and parts that name the recipients a second time."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from support.factories import message, policy
from undisclosed.decision.obstacles import (
    BODY_LIMIT,
    ENCODED,
    INVITATION,
    PGP,
    PROTECTED,
    SIGNED,
    SMIME,
    TNEF,
    TOO_LARGE,
    Obstacle,
    ObstacleKind,
    body_obstacle,
    needs_body,
)
from undisclosed.decision.rewrite import Unsafe, plan

TO = "x@family.test, ann@council.test"


def found(*fields: tuple[str, str], **header: Any) -> str | None:
    """The obstacle to hiding To and Cc in a message with these further fields."""
    try:
        plan(policy(), message(**{"fields": fields, "to": TO, "cc": "y@family.test", **header}))
    except Unsafe as unsafe:
        return unsafe.obstacle.text
    return None


def text(said: Obstacle | str | None) -> str | None:
    """The text of an obstacle, or the text itself."""
    return said.text if isinstance(said, Obstacle) else said


def in_body(body: bytes, complete: bool = True) -> str | None:
    """The text of the obstacle in a body."""
    return text(body_obstacle(body, complete))


# -- signatures


@pytest.mark.parametrize(
    ("name", "signature", "expected"),
    [
        ("DKIM-Signature", "v=1; a=rsa-sha256; d=council.test; h=from:to:cc; bh=x; b=y", "signed by DKIM over To, Cc"),
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
        ("References", "<x@family.test>", None),
        ("Sender", "x@family.test", None),
        ("X-Sender", "clerk@council.test", None),
        ("X-Note", "no address here", None),
    ],
)
def test_a_field_that_shows_a_hidden_address(name: str, value: str, expected: Obstacle | str | None) -> None:
    """Hiding To is useless if another field shows a recipient; traces and identifiers are exempt."""
    assert found((name, value)) == text(expected)


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


# -- the body


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("", False),
        ("text/plain", False),
        ("text/html; charset=utf-8", False),
        ("image/png", False),
        ("application/pdf", False),
        ("multipart/mixed; boundary=b", True),
        (" Multipart/Alternative; boundary=b", True),
        ("message/rfc822", True),
        ("message/global", True),
    ],
)
def test_the_body_is_read_only_where_there_are_parts(content_type: str, expected: bool) -> None:
    """The header of a message without parts has its type."""
    assert needs_body(message(content_type=content_type)) is expected


CALENDAR = b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nATTENDEE:mailto:x@family.test\r\nEND:VCALENDAR\r\n"

BODIES = {
    "plain words": (b"Dear parents,\r\nthe dates are in text/calendar form on our pages.\r\n", None),
    "talk of header lines": (b"> Content-Type: text/calendar\r\nUse 'Content-Type: text/calendar; ...'.\r\n", None),
    "a nested alternative": (
        b"--a\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHi\r\n"
        b"--b\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\n" + CALENDAR + b"--b--\r\n--a--\r\n",
        INVITATION,
    ),
    "a folded type": (b"--b\r\nContent-Type:\r\n\ttext/\r\n calendar\r\n\r\n", INVITATION),
    "an attached file": (
        b"--b\r\nContent-Type: application/x-y\r\nContent-Disposition: attachment;\r\n filename=invite.ics\r\n",
        INVITATION,
    ),
    "a file name over several lines": (
        b"--b\nContent-Disposition: attachment;\n filename*0*=utf-8''Cyfarfod;\n filename*1=\".ics\"\n\n",
        INVITATION,
    ),
    "an indented line below a boundary": (b"--b\r\n Content-Type: text/calendar\r\n\r\n", INVITATION),
    "the first line of the body": (b"Content-Type: text/calendar\r\n\r\n", INVITATION),
    "a boundary nobody announced": (b"words\r\nContent-Type: text/calendar\r\nwords", INVITATION),
    "a calendar under another name": (b"--b\r\nContent-Type: text/plain\r\n\r\n" + CALENDAR, INVITATION),
    "a calendar under another name, encoded": (
        b"--b\r\nContent-Type: application/x-thing\r\n\r\n" + base64.encodebytes(CALENDAR),
        INVITATION,
    ),
    "a calendar after a byte order mark": (b"\r\n" + base64.encodebytes(b"\xef\xbb\xbf" + CALENDAR), INVITATION),
    "a calendar in uuencode": (b"words\r\nbegin 644 My meeting.ics\r\n", INVITATION),
    "winmail.dat in uuencode": (b"words\r\nbegin 600 WINMAIL.DAT\r\n", TNEF),
    "TNEF under another name": (b"\r\n" + base64.encodebytes(b"\x78\x9f\x3e\x22" + bytes(60)), TNEF),
    "TNEF under another name, in binary": (b"\r\n\r\n\x78\x9f\x3e\x22" + bytes(60), TNEF),
    "a signed message within": (
        b"--b\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/signed;\r\n"
        b' protocol="application/pgp-signature"; boundary=c\r\n',
        PGP,
    ),
    "protected headers within": (b'--b\r\nContent-Type: text/plain;\r\n hp="clear"\r\n', PROTECTED),
    "gossip within": (b"--b\r\nAutocrypt-Gossip: addr=x@family.test\r\n", "Autocrypt-Gossip names the recipients"),
    "a message that is encoded as a whole": (
        b"--b\r\nContent-Transfer-Encoding: base64\r\nX: y\r\nContent-Type: message/rfc822\r\n\r\nRnJvbT",
        ENCODED,
    ),
    "an encoded attachment beside a multipart": (
        b"--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Type: text/plain\r\n\r\nSGk=\r\n--c--\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        None,
    ),
    "an ordinary attachment": (
        b"--b\r\nContent-Type: application/pdf; name=calendar.pdf\r\nContent-Disposition: attachment;\r\n"
        b' filename="school calendar (see topics.html).pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0x\r\n',
        None,
    ),
    "a key": (b"--b\r\nContent-Type: application/pgp-keys; name=key.asc\r\n\r\n", None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_obstacles_in_a_body(body: bytes, expected: Obstacle | str | None) -> None:
    """Header lines of parts count anywhere, prose does not."""
    assert in_body(body) == text(expected)


def test_a_body_that_goes_on_cannot_be_decided() -> None:
    """There may be another part beyond the limit; an obstacle before it takes precedence."""
    assert in_body(b"words\r\n", False) == TOO_LARGE.text
    assert in_body(b"Content-Type: text/calendar\r\n", False) == INVITATION.text


def test_no_more_than_the_limit_is_read() -> None:
    """A sign that ends at the limit is found; beyond it the body counts as not read."""
    sign = b"\nContent-Type: text/calendar"
    assert in_body(b"x" * (BODY_LIMIT - len(sign)) + sign, True) == INVITATION.text
    assert in_body(b"x" * BODY_LIMIT + sign, True) == TOO_LARGE.text
    assert in_body(b"x" * BODY_LIMIT, True) is None


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
