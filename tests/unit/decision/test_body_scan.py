"""Obstacles in a body: what is found, wherever the body is cut, and what it costs."""

from __future__ import annotations

import base64
import random
import time
import tracemalloc
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undisclosed.decision.body_scan import WINDOW, BodySearch
from undisclosed.decision.obstacles import (
    ENCODED,
    INVITATION,
    LONG_FIELD,
    PGP,
    PROTECTED,
    REPEATED,
    TNEF,
    UUENCODED,
    Obstacle,
)
from undisclosed.decision.repetition import STEP

PARENTS = [f"parent{number}@family{number}.example" for number in range(12)]
HIDDEN = frozenset((address.split("@")[0], address.split("@")[1]) for address in PARENTS)
PARTS = BodySearch(HIDDEN, may_show=1, has_parts=True, is_base64=False)
PLAIN = BodySearch(HIDDEN, may_show=1, has_parts=False, is_base64=False)
BASE64 = BodySearch(HIDDEN, may_show=1, has_parts=False, is_base64=True)


def text(said: Obstacle | str | None) -> str | None:
    """The text of an obstacle, or the text itself."""
    return said.text if isinstance(said, Obstacle) else said


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    """A body in pieces of one size."""
    return (body[start : start + size] for start in range(0, len(body), size))


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
    "uuencode by the header of its part": (
        b"--b\r\nContent-Type: text/csv\r\nContent-Transfer-Encoding: X-uuencode\r\n\r\nbegin 644 parents\r\n",
        UUENCODED,
    ),
    "a key": (b"--b\r\nContent-Type: application/pgp-keys; name=key.asc\r\n\r\n", None),
    "a key of many letters": (b"--b\r\n\r\n" + b"k" * 400 + b"\r\n", None),
    "nothing": (b"", None),
}


LIST = ", ".join(PARENTS[:2]).encode()


def encoded(data: bytes) -> bytes:
    """Base64 as mail programs write it."""
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def part(content_type: bytes, content: bytes, encoding: bytes = b"8bit") -> bytes:
    """A multipart with a text and one more part."""
    return (
        (
            b"--b\r\nContent-Type: text/plain\r\n\r\nPlease find it attached.\r\n"
            b"--b\r\nContent-Type: " + content_type + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"
        )
        + content
        + b"\r\n--b--\r\n"
    )


FORWARDED = (
    b"From: Clerk <clerk@council.test>\r\nTo: parent0@family0.example,\r\n\tparent1@family1.example\r\n"
    b"Subject: School places\r\n\r\nDear all,\r\n"
)
ALONE = "a forwarded message in place of a text"

REPETITIONS = {
    "a forwarded message": part(b"message/rfc822", FORWARDED),
    ALONE: FORWARDED,
    "a forwarded message as a file": part(b"application/octet-stream; name=sent.eml", encoded(FORWARDED), b"base64"),
    "a forwarded message whose list is in encoded words": part(
        b"message/rfc822", b"To: =?utf-8?b?" + base64.b64encode(LIST) + b"?=\r\n\r\nDear all\r\n"
    ),
    "an inline forward": (
        b"See below.\r\n\r\n-----Original Message-----\r\nFrom: Clerk\r\nTo: "
        b"parent0@family0.example; parent1@family1.example\r\nSubject: x\r\n\r\n"
    ),
    "two addresses far apart": b"Ask parent0@family0.example.\r\n"
    + b"words\r\n" * 30_000
    + b"Or parent1@family1.example\r\n",
    "quoted": b"> To: parent0@family0.example,\r\n> parent1@family1.example\r\n",
    "HTML": part(
        b"text/html", b'<p><a href="mailto:PARENT0@family0.EXAMPLE">P</a>&nbsp;<b>parent1@family1.example</b>.<br>'
    ),
    "HTML with entities": part(
        b"text/html", b"<p>parent0&#64;family0&#46;example&nbsp;parent1&commat;family1.example</p>"
    ),
    "HTML as Word writes it": part(
        b"text/html", b"parent0@<span class=SpellE>family0.example</span> <i>parent1</i>@family1.example"
    ),
    "HTML as Word writes it, within a domain": part(
        b"text/html", b"<p>parent0@<span class=SpellE>family0</span>.example</p><p>parent1@<b>family1</b>.example</p>"
    ),
    "HTML that hides at signs from programs": part(
        b"text/html", b"parent0<b>&#64;</b>family0.example " * 2 + b"parent1&#8203;@family1.e&shy;xample"
    ),
    "HTML with entities for letters": part(b"text/html", b"par&#101;nt0@family0.example &#x70;arent1@family1.example"),
    "HTML in UTF-16": part(
        b"text/html; charset=utf-16",
        encoded("<i>parent0</i>@family0.example parent1&#64;family1.example".encode("utf-16")),
        b"base64",
    ),
    "blanks without width": "parent0\u200b@family0.example parent1@fam\u00adily1.example".encode(),
    "links with more letters in hexadecimal": b"mailto:%70arent0%40family0%2Eexample%2Cparent1%40family1.example",
    "a forwarded message as a file, in quoted-printable": part(
        b"application/octet-stream; name=sent.eml",
        encoded(b"Dear all,\nparent0@fam=\nily0.example, parent1=40family1.example"),
        b"base64",
    ),
    "a list with dashes": b"-parent0@family0.example\r\n2.parent1@family1.example\r\n",
    "links": b"https://council.test/leave?who=parent0%40family0.example&or=parent1%40family1.example\r\n",
    "quoted-printable": part(
        b"text/plain",
        b"an=\r\nswer parent0=40family0.example or pare=\r\nnt1@fam=\r\nily1=2Eexample\r\n",
        b"quoted-printable",
    ),
    "quoted-printable with blanks added on the way": b"parent0@= \t\r\nfamily0.example, parent1@=  \r\nfamily1.example",
    "base64": part(b"text/plain; charset=utf-8", encoded(b"Dear all,\n" * 40 + LIST), b"base64"),
    "base64 without padding, in one line": part(
        b"text/plain", base64.b64encode(b"x " + LIST).rstrip(b"="), b"BASE64 (so it is)"
    ),
    "base64 in two pieces": part(
        b"text/plain",
        base64.b64encode(b"parent0@family0.example ") + b"\r\n" + base64.b64encode(b"parent1@family1.example,"),
        b"base64",
    ),
    "UTF-16": part(b"text/plain; charset=utf-16", encoded(LIST.decode().encode("utf-16")), b"base64"),
    "UTF-16 on a big-endian system": part(b"text/plain", encoded(LIST.decode().encode("utf-16-be")), b"base64"),
    "a list of names as a file": part(b"text/csv; name=parents.csv", encoded(b"name;address\nP;" + LIST), b"base64"),
    "a vCard": part(b"text/vcard", b"EMAIL;TYPE=home:parent0@family0.example\r\nEMAIL:parent1@family1.example\r\n"),
    "other scripts without blanks": "\u8054\u7cfbparent0@family0.example\u8c22parent1@family1.example\u3002".encode(),
    "typographic quotes": "\u2018parent0@family0.example\u2019 \u201cparent1@family1.example\u201d".encode(),
    "typographic quotes of Windows": b"\x91parent0@family0.example\x92 \x93parent1@family1.example\x94",
    "ISO-2022-JP": "\u9023\u7d61parent0@family0.example\u3068parent1@family1.example".encode("iso2022_jp"),
    "full-width at signs": "parent0\uff20family0.example parent1\uff20family1.example".encode(),
    "marks around them": b"*parent0@family0.example* 'parent1@family1.example' _x_",
    "a line of 300,000 letters": b"x" * 150_000 + b" " + LIST + b" " + b"x" * 150_000,
    "a list without blanks": b"|".join(address.encode() for address in PARENTS * 3000),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_obstacles_in_a_body_with_parts(body: bytes, expected: Obstacle | str | None) -> None:
    """Header lines of parts count anywhere, prose does not."""
    assert text(BodySearch(frozenset(), may_show=1, has_parts=True, is_base64=False).obstacle([body])) == text(expected)


@pytest.mark.parametrize("name", REPETITIONS)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
def test_a_body_that_repeats_the_list(name: str, end: bytes) -> None:
    """Two hidden addresses in any text, however it is encoded (hostile review, 9; milter reports, 17)."""
    search = PLAIN if name == ALONE else PARTS
    assert search.obstacle([REPETITIONS[name].replace(b"\r\n", end)]) == REPEATED


@pytest.mark.parametrize(
    "body",
    [
        b"Write to the office: office@council.test, head@council.test, admissions@council.test\r\n",
        b"For the trip ask parent0@family0.example, or PARENT0@family0.example.\r\n",
        b"Others: a@family1.example, xparent0@family0.example, parent0@family0.example.test\r\n",
        b"x-parent1@family1.example, parent1.x@family1.example, parent0@family1.example, parent1@family0.example\r\n",
        b"parent0 at family0.example, parent1 (family1.example)\r\n",
        part(b"text/html", b'<a href="mailto:parent0@family0.example">parent0@family0.example</a>'),
        part(b"message/rfc822", b"To: others@elsewhere.example, parent0@family0.example\r\n\r\nDear all\r\n"),
        part(b"application/pdf", encoded(random.Random(1).randbytes(300_000)), b"base64"),
    ],
)
def test_a_newsletter_repeats_no_list(body: bytes) -> None:
    """Our own addresses, and one of those that are hidden, are in many texts."""
    for search in (PARTS, PLAIN):
        assert search.obstacle([body]) is None


def test_a_body_that_is_encoded_as_a_whole() -> None:
    """A text in base64 has no boundaries."""
    assert BASE64.obstacle([encoded(b"--\nDear all,\n" * 20 + LIST)]) == REPEATED
    assert BASE64.obstacle([encoded(b"Dear all,\n" * 20) + b"--\r\nA footer, added by a list server"]) is None
    assert BASE64.obstacle([encoded(b"\nBEGIN:VCALENDAR\nATTENDEE:x")]) == INVITATION


@pytest.mark.parametrize("first_line", [b"", b"Dear all,\r\n"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"begin 600 winmail.dat\r\nM>)\\^(@\r\n", TNEF),
        (b"begin 644 meeting.ics\r\n", INVITATION),
        (b"BEGIN:VCALENDAR\r\n", INVITATION),
        (b"Content-Type: text/calendar\r\n", None),
        (b"begin 600 minutes.txt\r\n", UUENCODED),
        (b"begin-base64 644 parents.csv\r\n", UUENCODED),
        (b"begin 600 metres from the school. Then\r\n", None),
        (b"They begin 644 times.txt\r\n", None),
    ],
)
def test_a_text_without_parts(first_line: bytes, line: bytes, expected: Obstacle | None) -> None:
    """Mail programs look for uuencode in any text, and for header lines of parts in none (hostile review, 9)."""
    assert PLAIN.obstacle([first_line + line]) == expected


EVERY = {
    **{name: (body, expected) for name, (body, expected) in BODIES.items()},
    **{n: (b, REPEATED) for n, b in REPETITIONS.items()},
}


@pytest.mark.parametrize("name", EVERY)
def test_any_pieces_give_the_same_answer(name: str) -> None:
    """A milter's chunks end anywhere."""
    body, expected = EVERY[name]
    search = PLAIN if name == ALONE else PARTS
    sizes = [WINDOW - 1, WINDOW + 1, *([1, 2, 3, 7] if len(body) < 10_000 else [])]
    for size in sizes:
        assert text(search.obstacle(pieces(body, size))) == text(expected)


@pytest.mark.parametrize("name", [name for name, (body, _) in EVERY.items() if len(body) < 3000])
@pytest.mark.parametrize("filling", [b"A line of the text.\r\n", b"\r\n", b"aWxsdXN0cmF0aW9u" * 4 + b"\r\n"])
def test_an_obstacle_at_the_end_of_a_window(name: str, filling: bytes) -> None:
    """It is found wherever the windows are cut, and nothing else is."""
    body, expected = EVERY[name]
    search = PLAIN if name == ALONE else PARTS
    step = max(1, len(body) // 120)
    for shift in range(0, len(body) + len(filling), step):
        start = WINDOW - shift - 2
        assert text(search.obstacle([_filled(filling, start) + body + b"\r\n" + filling])) == text(expected), shift


def test_an_address_with_a_tag_at_the_end_of_a_step() -> None:
    """A blank within a tag of HTML is no end of an address."""
    shown = b"parent0@<span class=SpellE>family0</span>.example"
    other = b"parent1@family1.example "
    for shift in range(len(shown) + 2):
        assert (
            PARTS.obstacle([other + b"x " * ((STEP - len(other) - shift) // 2) + b" " * (shift % 2) + shown])
            == REPEATED
        )


@pytest.mark.parametrize("body", [b" =", b"= =", b"=\n=", b"\n=\n", b"= \n", b" " * STEP + b"=", b"=" + b" " * STEP])
def test_a_text_that_ends_in_an_equals_sign(body: bytes) -> None:
    """Its blanks are looked at from the last one on, and the search for the one that ends a word comes to an end."""
    assert PLAIN.obstacle([body]) is None
    assert PLAIN.obstacle([body + LIST]) == REPEATED


def _filled(filling: bytes, size: int) -> bytes:
    """Whole lines and a shorter one, of this size together."""
    lines = filling * (size // len(filling))
    rest = size - len(lines)
    return b"x" * max(0, rest - 2) + (b"\r\n" if rest >= 2 else b"\n" * rest) + lines


UNITS = [
    b"--b\r\n", b"Content-Type: ", b"text/calendar", b"Content-Transfer-Encoding: base64\r\n", b"\r\n", b"\r",
    b"\n", b" ", b"BEGIN:VCALENDAR", encoded(LIST), LIST, b"parent0@family0.example", b"=40", b"=\r\n", b"x" * 70_000,
    b" " * 70_000, b"\r\n" * 40_000, b"word\r\n" * 12_000, b"\t", b"begin 600 winmail.dat\r\n", b"@", b"=", b"\0",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(UNITS) | st.binary(max_size=5), max_size=12), st.data(), st.booleans())
def test_pieces_never_change_the_answer(units: list[bytes], data: st.DataObject, has_parts: bool) -> None:
    """Any body, in any pieces, is answered as in one piece."""
    body = b"".join(units)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    search = PARTS if has_parts else PLAIN
    cut = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert search.obstacle(cut) == search.obstacle([body])


# -- the cost


HOSTILE = [
    b" ", b"\t", b"\r", b"\n", b"\r\n", b"x", b"=", b"=\n", b"=40", b"@", b"a@", b"@family1.example ",
    b"a'a'@family1.example|", b"--\n", b"\n--", b"--x\n y\n", b" x\n", b"<", b"<@", b">@<", b"&#64;", b"&#0", b"%40",
    b"@&amp;", b"@<p ", b"<p>@", b"@</h1", b"< ", b"<a\n", b"= ", b"@= \n", b"%41", b"\xc2\xad", b"&#64;<b>",
    b"=?utf-8?q?a=40b?=", b"=?", b'"', b"\0", b"\x1b$B", b"\xff", b"\xef\xbc\xa0", b"content-type:\n",
    b"content-type: text/plain;hp ", b"content-type: text/plain\n\n", b"content-transfer-encoding: base64\n\n",
    b"content-transfer-encoding: base64\n\n--\n", b"begin 600 ", b"QUJD=", b"QUJD", b"autocrypt-gossip ",
    b'content-disposition: x; name*0="a', b";", b"text ", b"content-type: a/b; name * 1 ",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_memory_and_work_are_bounded(unit: bytes) -> None:
    """Four times the body costs about four times the time, and less than 2 MB at any length (hostile review, 7)."""
    took = []
    for size in (100_000, 400_000):
        body = unit * (size // len(unit))
        began = time.process_time()
        for search in (PARTS, BASE64):
            search.obstacle(pieces(body, WINDOW - 1))
        took.append(time.process_time() - began)
    assert took[1] < 8 * took[0] + 0.1
    tracemalloc.start()
    for search in (PARTS, BASE64):
        search.obstacle(pieces(unit * (150_000 // len(unit)), WINDOW - 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    "literal", [b"hp", b"hp*", b"text", b"application", b"multipart", b"message", b"name", b"name*", b"name*0"]
)
def test_blanks_behind_each_literal_of_a_part(literal: bytes) -> None:
    """50,000 blanks took 2.4 s, and 200,000 29 s (hostile review, 7)."""
    began = time.process_time()
    PARTS.obstacle([b"--b\r\nContent-Type: text/plain;" + literal + b" " * 50_000 + b"x\r\n\r\n"])
    assert time.process_time() - began < 1


@pytest.mark.parametrize("fold", [b"", b"\r\n "])
@pytest.mark.parametrize("size", [60_000, 200_000, 3_000_000])
def test_a_header_field_of_any_length(fold: bytes, size: int) -> None:
    """One that is too long to be read at once is an obstacle; a shorter one is read."""
    filling = (b"x" * 70 + fold) * (size // (70 + len(fold)))
    for sign, expected in ((b"name=invite.ics", INVITATION), (b"name=invite.pdf", None)):
        body = b"--b\r\nContent-Type: application/octet-stream; x=" + filling + b";\r\n " + sign + b"\r\n\r\n--b--\r\n"
        assert PARTS.obstacle([body]) == (expected if size == 60_000 else LONG_FIELD)


def test_an_ordinary_attachment_is_read_fast() -> None:
    """Four megabytes take a fraction of a second; `tests/bench/body.py` measures it."""
    message = EmailMessage()
    message["Subject"] = "The newsletter"
    message.set_content("Dear all,\nplease find it attached.\n")
    message.add_attachment(
        random.Random(2).randbytes(3_000_000), maintype="application", subtype="pdf", filename="news.pdf"
    )
    body = message.as_bytes().partition(b"\n\n")[2]
    began = time.process_time()
    assert PARTS.obstacle(pieces(body, WINDOW - 1)) is None
    assert time.process_time() - began < 1
