"""The text of notices: whole messages for every kind and language, and how the text depends on the incident."""

from __future__ import annotations

import re
from datetime import timedelta
from email import message_from_bytes
from email import policy as email_policy
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from support.factories import policy
from support.notice_factories import (
    SENT,
    STATES,
    content,
    copy,
    incident,
    notice,
    organisation,
    readable,
    render,
    text_of,
    words,
)
from support.paths import DATA
from undisclosed.decision.obstacles import INVITATION, LONG_FIELD, REPEATED, SMIME, TNEF, Obstacle
from undisclosed.incidents.records import NoticeKind, State
from undisclosed.notices import NoticeError
from undisclosed.notices.templates import KINDS

WHOLE = DATA / "notices"


@pytest.mark.parametrize("language", ["en", "cy"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_notice(kind: NoticeKind, language: str) -> None:
    """Header and text of each kind in each language, word for word."""
    assert readable(notice(kind, language)) == (WHOLE / f"{kind}.{language}.txt").read_text("utf-8")


def test_a_whole_notice_as_it_is_sent() -> None:
    """Every byte: both parts, their encoding, the header."""
    assert notice("held", "en").as_bytes() == (WHOLE / "held.en.eml").read_bytes()


@pytest.mark.parametrize("languages", [("en",), ("cy",), ("en", "cy")])
@pytest.mark.parametrize("kind", KINDS)
def test_html_says_the_same(kind: NoticeKind, languages: tuple[str, ...]) -> None:
    """HTML part and text part say the same, in the same order."""
    message = notice(kind, *languages)
    text = re.sub(r"(?m)^- |^-{72}$", "", content(message, "plain"))
    assert text_of(content(message, "html")) == " ".join(text.split())


def test_several_languages_in_one_notice() -> None:
    """In the organisation's order, each under its own heading; the header names them."""
    message = notice("held", "cy", "en")
    assert message["Subject"] == (
        "Heb ei hanfon: mae eich neges yn cael ei dal / Not sent: your message is on hold (K7QF-3M2D)"
    )
    assert message["Content-Language"] == "cy, en"
    welsh, english = content(message, "plain").split("-" * 72)
    assert content(notice("held", "cy"), "plain") == welsh.rstrip() + "\n"
    assert content(notice("held", "en"), "plain") == english.lstrip()
    html = content(message, "html")
    assert '<html lang="cy">' in html
    assert html.index('<div lang="cy">') < html.index("<hr>") < html.index('<div lang="en">')


def test_a_language_with_a_region_uses_the_templates_of_the_language() -> None:
    """`en-US` uses the English templates, with dates as in the United States."""
    assert "It is on hold" in words(notice("held", "en-US"))
    assert "of November 19, 2026, 2:05" in words(notice("held", "en-US"))


# -- how the text depends on the incident


def test_singular() -> None:
    """One address and one recipient are written in the singular."""
    about = incident(count=1, copies=(copy(recipients=1),))
    english, welsh = (words(notice("held", language, about=about)) for language in ("en", "cy"))
    assert "Its recipient has not received it." in english
    assert "Its recipient would have been able to read 1 email address outside" in english
    assert "Nid yw\u2019r derbynnydd wedi\u2019i chael." in welsh
    assert "Byddai\u2019r derbynnydd wedi gallu gweld un cyfeiriad e-bost o\u2019r tu allan" in welsh


@pytest.mark.parametrize("language", ["en", "cy"])
def test_a_message_whose_addresses_were_not_counted(language: str) -> None:
    """Adopted mail: the notice gives no number."""
    text = words(notice("held", language, about=incident(count=0)))
    assert re.search(r"\b0\b", text) is None
    assert "able to read" not in text
    assert "gallu gweld" not in text


def test_recipients_of_every_copy_are_added_up() -> None:
    """Recipients of all transactions of a message; those of a copy that was never queued do not count."""
    copies = (copy(recipients=50), copy(recipients=45), copy(State.NEVER_QUEUED, recipients=50))
    assert "None of its 95 recipients has received it." in words(notice("held", about=incident(copies=copies)))


@pytest.mark.parametrize("kind", ["held", "reminder", "expired", "kept", "deleted"])
@pytest.mark.parametrize("received", ["by another copy", "by a part of a release"])
def test_recipients_who_received_it_are_mentioned(kind: NoticeKind, received: str) -> None:
    """If some recipients have the message, the notice does not say that none has."""
    copies: tuple[Any, ...] = (copy(STATES[kind], recipients=50),)
    if received == "by another copy":
        copies += (copy(State.RELEASED, recipients=46),)
    release_modes = () if len(copies) > 1 else ("bcc",)
    message = notice(kind, "en", "cy", about=incident(copies=copies), release_modes=release_modes)
    assert "None of" not in words(message)
    assert "recipients had already received it; the others have not." in words(message)
    assert "nid yw\u2019r un ohonynt" not in words(message)
    assert "Roedd rhai ohonynt eisoes wedi\u2019i chael" in words(message)


@pytest.mark.parametrize(
    ("release_modes", "state", "english", "welsh"),
    [
        (("bcc",), State.RELEASED, "with the addresses outside the organisation hidden.", "wedi\u2019u cuddio."),
        (("split",), State.RELEASED, "separately, so that each sees only their own", "ar wahân"),
        (("unchanged",), State.RELEASED, "as you wrote it. Each recipient can read 95", "fel yr oedd."),
        ((), State.RELEASED_BY_HAND, "as you wrote it. Each recipient can read 95", "Gall pob derbynnydd weld 95"),
        ((), State.RELEASED, "has been sent to its 96 recipients. You need", "14:05). Roedd 96"),
        (("bcc", "split"), State.RELEASED, "has been sent to its 96 recipients. You need", "14:05). Roedd 96"),
        (("bcc",), State.RELEASED_BY_HAND, "has been sent to its 96 recipients. You need", "14:05). Roedd 96"),
    ],
)
def test_the_mode_of_a_release(release_modes: tuple[str, ...], state: State, english: str, welsh: str) -> None:
    """The notice says what recipients see now; it leaves that out if there were several modes or none is known."""
    message = notice("released", "en", "cy", about=incident(state), release_modes=release_modes)
    assert english in words(message)
    assert welsh in words(message)


@pytest.mark.parametrize(
    ("obstacle", "english", "welsh"),
    [
        (INVITATION, "is an invitation", "gwahoddiad yw\u2019r neges"),
        (TNEF, "Outlook\u2019s Rich Text", "Rich Text Outlook"),
        (SMIME, "digitally signed or encrypted", "llofnodi\u2019n ddigidol"),
        (REPEATED, "lists addresses of the recipients again", "rhestru cyfeiriadau\u2019r derbynwyr eto"),
        (LONG_FIELD, "cannot be changed safely", "nad oes modd newid y neges yn ddiogel"),
    ],
)
def test_an_obstacle_removes_the_choices_bcc_and_split(obstacle: Obstacle, english: str, welsh: str) -> None:
    """The notice gives the reason, and offers only what can be done."""
    message = notice(
        "held",
        "en",
        "cy",
        about=incident(obstacle=obstacle.text, obstacle_kind=obstacle.kind),
        hold={"sender_may": ["bcc", "split", "unchanged", "delete"]},
    )
    assert english in words(message)
    assert welsh in words(message)
    assert "as if they had been in Bcc" not in words(message)
    assert "separately" not in words(message)
    assert "Send it as it is" in words(message)
    assert "Anfon y neges fel y mae" in words(message)


def test_a_sender_without_choices() -> None:
    """`hold.sender_may` is empty: the notice says that an administrator decides."""
    message = notice("held", "en", "cy", hold={"sender_may": []})
    assert "What you can ask for" not in words(message)
    assert "An administrator will decide what happens to it." in words(message)
    assert "Gweinyddwr fydd yn penderfynu" in words(message)


def test_a_choice_that_the_policy_forbids_is_not_offered() -> None:
    """`hold.sender_may` without `split`: the notice does not mention it."""
    assert "separately" not in words(notice("held", hold={"sender_may": ["bcc", "delete"]}))


def test_held_mail_that_is_kept() -> None:
    """`hold.on_expiry = "keep"`: the notice announces no deletion."""
    message = notice("reminder", "en", "cy", hold={"on_expiry": "keep"})
    assert "it stays on hold until an administrator decides" in words(message)
    assert "will be deleted" not in words(message)
    assert "caiff y neges ei dileu" not in words(message)


def test_the_day_of_expiry_is_the_earliest_one() -> None:
    """The earliest `until` of the copies; without any, it is counted from the incident."""
    copies = (copy(until=SENT + timedelta(days=9)), copy(until=SENT + timedelta(days=8)))
    assert "on 27 November 2026 without" in words(notice("held", about=incident(copies=copies)))
    unknown = incident(copies=(copy(until=None),))
    assert "on 22 November 2026 without" in words(notice("held", about=unknown, hold={"expire_days": 3}))


def test_dates_are_local() -> None:
    """Dates are in the host's time zone: shortly before midnight in UTC it is the next day in British summer time."""
    late = incident(at=SENT.replace(month=7, hour=23, minute=30))
    message = render(organisation(), late, "held", zone=ZoneInfo("Europe/London"))
    assert "of 20 July 2026, 00:30 has not been sent" in words(message)


def test_the_default_contact_is_translated() -> None:
    """The default of `organisation.help` is English; a Welsh notice says it in Welsh."""
    text = words(render(policy(organisation={"languages": ["en", "cy"]}), incident(), "held"))
    assert "contact your mail administrator, say" in text
    assert "Cyswllt: eich gweinyddwr e-bost." in text


@pytest.mark.parametrize("subject", [None, "", " "])
def test_a_subject_that_was_not_kept(subject: str | None) -> None:
    """The sentence leaves it out."""
    assert "Your message of 19 November 2026" in words(notice("held", about=incident(subject=subject)))


# -- the header


@pytest.mark.parametrize(
    ("configured", "domains", "expected"),
    [
        ("", ["council.test"], "Exampleshire County Council <postmaster@council.test>"),
        ("", [".staff.council.test", "council.test"], "Exampleshire County Council <postmaster@council.test>"),
        ("", [".council.test"], "Exampleshire County Council <postmaster@council.test>"),
        ("desk@council.test", ["council.test"], "desk@council.test"),
        ('"Mail, desk" <desk@council.test>', ["council.test"], '"Mail, desk" <desk@council.test>'),
        ("Desg bost Môn <desk@council.test>", ["council.test"], "Desg bost Môn <desk@council.test>"),
    ],
)
def test_the_author(configured: str, domains: list[str], expected: str) -> None:
    """`notices.from`, else the organisation's postmaster."""
    own = policy(organisation={"internal_domains": domains}, notices={"from": configured})
    message = message_from_bytes(render(own, incident(), "held").as_bytes(), policy=email_policy.default)
    assert str(message["From"]) == expected


@pytest.mark.parametrize(
    ("message_id", "repeated"),
    [
        ("<1@council.test>", True),
        (f"<{'x' * 100}@{'y' * 100}>", True),
        (None, False),
        ("1@council.test", False),
        ("<1@council.test> <2@council.test>", False),
        ("<a@b>\nBcc: <c@d>", False),
        ("<é@council.test>", False),
        (f"<{'x' * 200}@council.test>", False),
    ],
)
def test_in_reply_to(message_id: str | None, repeated: bool) -> None:
    """A valid Message-ID is copied unchanged, in one line; an invalid one is left out."""
    raw = notice("held", about=incident(message_id=message_id)).as_bytes()
    message = message_from_bytes(raw, policy=email_policy.compat32)
    expected = [message_id] if repeated else []
    for name in ("In-Reply-To", "References"):
        assert [value.strip() for value in message.get_all(name, [])] == expected


def test_the_message_id_of_a_notice_is_stable() -> None:
    """The Message-ID depends on kind, incident and copies only, so that duplicates can be recognised."""
    first, second = (notice("held")["Message-ID"] for _ in range(2))
    later = notice("held", about=incident(copies=(copy(arrived=SENT + timedelta(hours=2)),)))["Message-ID"]
    assert first == second == "<held.k7qf-3m2d.20261119140500@council.test>"
    assert len({first, later, notice("deleted")["Message-ID"]}) == 3


def test_an_internationalised_sender() -> None:
    """The domain is written as A-labels, the local part in UTF-8, which needs SMTPUTF8."""
    message = notice("held", about=incident(sender="siân@cyngor.test"))
    assert "To: siân@cyngor.test\n".encode() in message.as_bytes()
    message = notice("held", about=incident(sender="clerk@CYNGOR-MÔN.test"))
    assert b"To: clerk@xn--cyngor-mn-n7a.test\n" in message.as_bytes()


@pytest.mark.parametrize("sender", ["", "clerk", "a@b@c.test", "a@council.test,b@family.test", "a b@council.test"])
def test_a_sender_that_is_not_one_address(sender: str) -> None:
    """Such a sender is refused: sendmail(1) might read several addresses in it."""
    with pytest.raises(NoticeError, match="no address that can be written to"):
        notice("held", about=incident(sender=sender))
