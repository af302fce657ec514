"""Hostile subjects, senders and identifiers in a notice: they are shown as text and have no other effect."""

from __future__ import annotations

from email import message_from_bytes
from email import policy as email_policy
from email.message import EmailMessage, Message
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.factories import policy
from support.notice_factories import content, incident, notice, render, text_of, words
from undisclosed.addresses import addresses
from undisclosed.notices import NoticeError
from undisclosed.notices.addressee import domain_of, is_ours

FIELDS: Final = [
    "From",
    "To",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "X-Auto-Response-Suppress",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
    "Content-Language",
]
"""The fields of a notice without In-Reply-To and References."""

PIECES: Final = (
    *("\r\n", "\n", "\r", "\0", "\x85", "\u2028", "\u202e", "\u200b", "\ud800", "\x1b[", "ŵ"),
    *("<script>", "</p>", "&", '"', "- ", "=", ".", "{{ 7*7 }}", "{% for x in y %}"),
    *("Bcc: x@family.test", "=?utf-8?q?=0ABcc:_x?=", "--=_held.k7qf-3m2d.20261119140500.1"),
    *("parent1@family.test", "<parent1@family.test>", "parent1 @ family.test", "parent1\uff20family.test"),
)
HOSTILE: Final = st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def received(message: EmailMessage) -> Message:
    """The message as parsed by `email` with its oldest rules."""
    return message_from_bytes(message.as_bytes(), policy=email_policy.compat32)


def shown_outside(message: EmailMessage) -> list[str]:
    """The addresses outside the organisation that can be read anywhere in a notice, in header, text or HTML."""
    texts = [str(value) for name, value in message.items() if name not in ("In-Reply-To", "References")]
    texts += [content(message, "plain"), text_of(content(message, "html"))]
    return [found.text for text in texts for found in addresses(text) if not found.domain.endswith("council.test")]


@given(subject=HOSTILE)
@example(subject="Re: \r\nBcc: parent1@family.test\r\n\r\n<b>")
@example(subject="{{ ''.__class__.__mro__ }}{% include 'en/held.txt' %}")
@example(subject="=?utf-8?b?cGFyZW50MUBmYW1pbHkudGVzdA==?=")
def test_a_subject_is_only_shown(subject: str) -> None:
    """A subject adds no field, part, markup or line, is not evaluated as a template, and shows no address."""
    message = notice("held", about=incident(subject=subject, message_id=None))
    read = received(message)
    assert read.keys() == FIELDS
    assert [part.get_content_type() for part in read.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert shown_outside(message) == []
    plain, html = content(message, "plain"), content(message, "html")
    assert "49" not in words(message) or "49" in subject
    assert plain.count("\n\n") == content(notice("held"), "plain").count("\n\n")
    assert all(char.isprintable() or char in "\n\u200c\u200d" for char in plain)
    bare = content(notice("held", about=incident(subject=None)), "html")
    assert html.count("<") - 2 * html.count("<strong") == bare.count("<") - 2 * bare.count("<strong")
    assert html.count("<script") == 0


@given(name=HOSTILE.filter(lambda text: text.isprintable() and text != ""), help_=HOSTILE.filter(str.isprintable))
def test_names_from_the_configuration_are_only_shown(name: str, help_: str) -> None:
    """An organisation may be called `A & B <C>`: that adds no markup and no field, and the author stays one address."""
    own = policy(organisation={"name": name[:200], "help": help_[:200]})
    message = render(own, incident(message_id=None), "held")
    read = received(message)
    assert read.keys() == FIELDS
    assert [found.text for found in addresses(str(read["To"]))] == ["clerk@council.test"]
    html, bare = content(message, "html"), content(notice("held"), "html")
    assert html.count("<") - 2 * html.count("<strong") == bare.count("<") - 2 * bare.count("<strong")


@given(sender=HOSTILE | st.from_regex(r"\A[!-~é]{1,20}@(council|family)\.test\Z") | st.emails())
@example(sender='"a b"@council.test')
@example(sender='"a@family.test, b"@council.test')
@example(sender="a@family.test,b@council.test")
@example(sender="-t@council.test")
@example(sender="clerk@.council.test")
@example(sender="clerk@.")
@example(sender="clerk@council.test.")
@example(sender="clerk@council-.test")
@example(sender="clerk@council.test-")
@example(sender="@family.test:clerk@council.test")
@example(sender="clerk@council.test\nparent1@family.test")
@example(sender="clerk@[192.0.2.1]")
@example(sender="0" * 73 + "@0")
@example(sender='"' + "a b " * 20 + '"@council.test')
@example(sender="clerk@" + "é" * 80 + ".council.test")
def test_a_sender_is_one_address_or_none(sender: str) -> None:
    """To is exactly that address; one that is not one address is refused, and no notice is addressed to it."""
    about = incident(sender=sender, message_id=None)
    try:
        message = notice("held", about=about)
    except NoticeError:
        assert not is_ours(policy(), sender) or '"' in sender
        return
    read = received(message)
    assert read.keys() == FIELDS
    raw = message.as_bytes().partition(b"\nTo:")[2].partition(b"\nReply-To:")[0].decode()
    assert "=?" not in raw.rpartition("@")[2]  # an encoded word has no place in an address (RFC 2047, section 5)
    assert [found.key for found in addresses(raw)] == [found.key for found in addresses(sender)]
    assert [found.domain for found in addresses(raw)] == [domain_of(sender)]


@given(reference=st.text(max_size=30), message_id=HOSTILE | st.from_regex(r"\A<[!-~]{1,200}>\Z"))
@example(reference="", message_id="<0)@0>")
@example(reference="", message_id="<(@0>")
@example(reference="", message_id="<)@0>")
@example(reference="", message_id="<a..b@0>")
@example(reference="", message_id="<a@[::1]>")
def test_identifiers_are_only_shown(reference: str, message_id: str) -> None:
    """Values from the journal add no field either."""
    read = received(notice("held", about=incident(reference=reference, message_id=message_id)))
    assert [name for name in read if name not in ("In-Reply-To", "References")] == FIELDS
    for name in ("In-Reply-To", "References"):
        assert [value.strip() for value in read.get_all(name, [])] in ([], [message_id])


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("Fwd: parent1@family.test and others", "“Fwd: … and others”"),
        ("mail <parent1@family.test>", "“mail …”"),
        ("parent1 (at) family.test", "“parent1 (at) family.test”"),
        ("a\tb\r\n c", "“a b c”"),
        ("evil \u202egnp.exe", "“evil gnp.exe”"),
        ("x" * 300, f"“{'x' * 150}”"),
        ("<b>Tea & cake</b>", "“<b>Tea & cake</b>”"),
    ],
)
def test_how_a_subject_is_shown(subject: str, shown: str) -> None:
    """In one line of at most 150 characters, without addresses, and otherwise unchanged."""
    message = notice("held", about=incident(subject=subject))
    assert shown in words(message)
    assert shown in text_of(content(message, "html"))
