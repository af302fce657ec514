"""The text of notices: whole messages for every kind and language, and how the text depends on the incident."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from email import message_from_bytes
from email import policy as email_policy
from email.message import EmailMessage
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from support.factories import policy
from support.notice_factories import (
    HELP,
    SENT,
    STATES,
    content,
    copy,
    facts,
    incident,
    notice,
    organisation,
    readable,
    render,
    several,
    text_of,
    words,
)
from support.paths import DATA
from undisclosed.decision.obstacles import INVITATION, LONG_FIELD, REPEATED, SMIME, TNEF, Obstacle
from undisclosed.incidents.records import ADOPTED, NoticeKind, QueueCopy, State
from undisclosed.notices import NoticeError
from undisclosed.notices.templates import KINDS
from undisclosed.notices.variables import MAX_LISTED, Facts

WHOLE = DATA / "notices"


def many() -> list[Facts]:
    """The facts of a message in each state."""
    told = [facts(incident(id=9, reference="2222-2222", subject="Trip on Friday"), "held")]
    return [*told, *(facts(incident(STATES[kind], reference=f"3333-{kind[:4].upper()}"), kind) for kind in KINDS)]


WHOLE_NOTICES: Final[dict[str, Callable[[str], EmailMessage]]] = {
    **{kind: partial(notice, kind) for kind in KINDS},
    "held invitation": partial(notice, "held", about=incident(obstacle=INVITATION.text, obstacle_kind=INVITATION.kind)),
    "held waits": partial(notice, "held", about=incident(copies=(copy(waits="on hold by a table as well"),))),
    "rewritten unconfirmed": partial(notice, "rewritten", known={"is_confirmed": False}),
    "warned unconfirmed": partial(notice, "warned", known={"is_confirmed": False}),
    "released redirected": partial(notice, "released", known={"is_redirected": True}),
    "summary held": partial(several, "summary", many()[:2]),
    "summary": partial(several, "summary", many()),
    "digest": partial(several, "digest", many()),
}
"""Notices of each kind, by the names of their files; called with a language."""


@pytest.mark.parametrize("language", ["en", "cy"])
@pytest.mark.parametrize("name", WHOLE_NOTICES)
def test_a_whole_notice(name: str, language: str) -> None:
    """Header and text of each kind in each language, word for word."""
    file = WHOLE / f"{name.replace(' ', '_')}.{language}.txt"
    assert readable(WHOLE_NOTICES[name](language)) == file.read_text("utf-8")


def test_a_whole_notice_as_it_is_sent() -> None:
    """Every byte: both parts, their encoding, the header."""
    assert notice("held", "en").as_bytes() == (WHOLE / "held.en.eml").read_bytes()


@pytest.mark.parametrize("languages", [("en",), ("cy",), ("en", "cy")])
@pytest.mark.parametrize("name", WHOLE_NOTICES)
def test_html_says_the_same(name: str, languages: tuple[str, ...]) -> None:
    """HTML part and text part say the same, in the same order."""
    message = WHOLE_NOTICES[name](*languages)
    text = re.sub(r"(?m)^- |^-{72}$", "", content(message, "plain"))
    assert text_of(content(message, "html")) == " ".join(text.split())


def test_several_languages_in_one_notice() -> None:
    """In the organisation's order, each under its own heading; the header names them."""
    message = notice("held", "cy", "en")
    assert message["Subject"] == (
        "Heb ei hanfon: mae “School admissions” yn cael ei dal / Not sent: “School admissions” is on hold (K7QF-3M2D)"
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
    """Recipients of all transactions of a message; copies that were never queued, and repeats, do not count."""
    copies = (
        copy(recipients=50),
        copy(id=2, recipients=45),
        copy(State.NEVER_QUEUED, id=3, recipients=50),
        copy(id=4, recipients=45, repeat_of=2),
    )
    assert "None of its 95 recipients has received it." in words(notice("held", about=incident(copies=copies)))


@pytest.mark.parametrize("kind", ["held", "reminder", "expired", "kept", "deleted"])
@pytest.mark.parametrize("received", ["by another copy", "by a part of a release"])
def test_recipients_who_received_it_are_mentioned(kind: NoticeKind, received: str) -> None:
    """If some recipients have the message, the notice does not say that none has."""
    copies: tuple[QueueCopy, ...] = (copy(STATES[kind], recipients=50),)
    known: dict[str, Any] = {"copies": copies}
    if received == "by another copy":
        copies += (copy(State.RELEASED, id=2, recipients=46),)
    else:
        known["release_modes"] = frozenset({"bcc"})
    message = notice(kind, "en", "cy", about=incident(copies=copies), known=known)
    assert "Some of its 50 recipients" in words(message)
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
        ((), State.RELEASED, "has been sent to its 96 recipients. You need", "14:05). Roedd 96"),
        (("bcc", "split"), State.RELEASED, "has been sent to its 96 recipients. You need", "14:05). Roedd 96"),
        (("bcc",), State.RELEASED_BY_HAND, "has been sent to its 96 recipients. You need", "14:05). Roedd 96"),
    ],
)
def test_the_mode_of_a_release(release_modes: tuple[str, ...], state: State, english: str, welsh: str) -> None:
    """The notice says what recipients see now; it leaves that out if there were several modes or none is known."""
    known = {"release_modes": frozenset(release_modes)}
    message = notice("released", "en", "cy", about=incident(state), known=known)
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
    """The notice gives the reason and advice that works, and offers only what can be done (walk as users, 14)."""
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
    assert "can be deleted, or, if everyone may see every address, sent as it is" in words(message)
    assert "neu, os caiff pawb weld pob cyfeiriad, ei hanfon fel y mae" in words(message)
    assert "which of these" not in words(message)


def test_a_sender_without_choices() -> None:
    """`hold.sender_may` is empty: the notice says that an administrator decides."""
    message = notice("held", "en", "cy", hold={"sender_may": []})
    assert "which of these" not in words(message)
    assert "An administrator will decide what happens to it." in words(message)
    assert "Gweinyddwr fydd yn penderfynu" in words(message)


def test_a_choice_that_the_policy_forbids_is_not_offered() -> None:
    """`hold.sender_may` without `split`: the notice does not mention it."""
    assert "separately" not in words(notice("held", hold={"sender_may": ["bcc", "delete"]}))


@pytest.mark.parametrize("may", [["bcc"], ["split"], ["unchanged"], ["delete"]])
def test_one_choice_is_no_list(may: list[str]) -> None:
    """Nobody is asked "which of these" over one choice (walk as users, 14)."""
    message = notice("held", "en", "cy", hold={"sender_may": may})
    assert "which of these" not in words(message)
    assert "You can have it" in words(message)
    assert "pa un o" not in words(message)
    assert "Gallwch ofyn am" in words(message)


def test_no_choice_that_would_be_refused_is_offered() -> None:
    """A copy that waits for a person: an administrator decides. Adopted mail can be released like any other."""
    waits = notice("held", "en", "cy", about=incident(copies=(copy(waits="Postfix sends it through a filter"),)))
    assert "An administrator must decide" in words(waits)
    assert "Rhaid i weinyddwr benderfynu" in words(waits)
    assert "which of these" not in words(waits)
    assert "which of these" in words(notice("held", about=incident(copies=(copy(waits=ADOPTED, adopted=True),))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", ["en", "cy"])
def test_what_to_do_stands_before_the_details(kind: NoticeKind, language: str) -> None:
    """The contact is named in the first three paragraphs below the heading, and before any list; the end says that a
    reply is read, and by whom (walk as users, section 3)."""
    message = notice(kind, language)
    paragraphs = content(message, "plain").split("\n\n")
    [first, *_] = [place for place, text in enumerate(paragraphs) if HELP in " ".join(text.split())]
    lists = [place for place, text in enumerate(paragraphs) if text.startswith("- ")]
    assert first <= (5 if kind in ("warned", "rewritten", "split", "released", "delayed") else 3)
    assert all(first < place for place in lists)
    assert message["Reply-To"] == "postmaster@council.test"
    assert "postmaster@council.test" in paragraphs[-1]


def test_a_long_list_is_cut() -> None:
    """A summary and a digest name 200 messages, and the number of the others (hostile review, 12)."""
    told = [facts(incident(id=number, reference=f"2222-{number:04}"), "held") for number in range(MAX_LISTED + 250)]
    for name in ("summary", "digest"):
        plain = content(several(name, told), "plain")
        assert plain.count("2222-") == MAX_LISTED
        assert "and 250 more" in plain
        assert len(plain) < 50_000


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({}, "from clerk@council.test"),
        ({"sender": "bounce-77@esp.example"}, "from clerk@council.test"),
        ({"sender": "bounce-77@esp.example", "author": None, "login": "desk@council.test"}, "from desk@council.test"),
        ({"sender": "parent@family.example", "author": None}, "from family.example"),
        ({"sender": "parent@family.example", "author": None, "login": "parent@family.example"}, "from family.example"),
        ({"sender": "", "author": None}, "14:05, “"),
    ],
)
def test_the_digest_names_internal_senders_only(over: dict[str, Any], named: str) -> None:
    """The internal From or login, and of an outside sender the domain only."""
    text = words(several("digest", [facts(incident(**over), "held")]))
    assert named in text
    assert "parent@" not in text
    assert "bounce-77" not in text


def test_addresses_in_a_subject_are_not_repeated_in_a_digest() -> None:
    """As in every notice."""
    assert "parent1@" not in words(several("digest", [facts(incident(subject="Fwd: parent1@family.test"), "held")]))


def test_a_leak_by_hand_is_told_as_it_is() -> None:
    """The sender was told that nobody has it (walk as users, 5): who sees what now, and what to do."""
    text = words(notice("released_by_hand", "en", "cy"))
    assert "It has now been sent to its 96 recipients as you wrote it" in text
    assert "Each recipient can read 95 email addresses" in text
    assert "Gall pob derbynnydd weld 95" in text
    assert "Please do not recall the message" in text


def test_a_message_that_is_not_known_to_be_queued() -> None:
    """A milter behind ours may have refused it (hostile review, 14): the notice claims only what is known."""
    for kind in ("rewritten", "warned"):
        text = words(notice(kind, known={"is_confirmed": False}))
        assert "has been sent" not in text
        assert "was handed to the mail server" in text
        assert "If your mail program reported an error, the message was not sent." in text


def test_redirected_mail_did_not_reach_its_recipients() -> None:
    """Postfix sends it to one other address (REDIRECT), whatever the way of the release."""
    for kind in ("released", "split"):
        text = words(notice(kind, known={"is_redirected": True, "release_modes": frozenset({"bcc"})}))
        assert "none of its 96 recipients gets it" in text
        assert "has been sent" not in text


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


def test_adopted_mail_is_never_deleted_by_itself() -> None:
    """It may be on hold for another reason: neither the notice nor the digest announces a deletion."""
    adopted = incident(copies=(copy(adopted=True, waits=ADOPTED, until=None),))
    assert "It stays on hold until somebody decides." in words(notice("held", about=adopted))
    assert "deleted on" not in words(several("digest", [facts(adopted, "held")]))


def test_a_late_notice_names_no_day_before_tomorrow() -> None:
    """The steward was away: a message is deleted a day after its reminder at the earliest."""
    over = incident(copies=(copy(until=SENT - timedelta(days=3)),))
    assert "on 20 November 2026 without" in words(notice("reminder", about=over))
    assert "deleted on 20 November 2026" in words(several("digest", [facts(over, "reminder")]))


def test_dates_are_local() -> None:
    """Dates are in the host's time zone: shortly before midnight in UTC it is the next day in British summer time."""
    late = incident(at=SENT.replace(month=7, hour=23, minute=30))
    message = render(organisation(), late, "held", zone=ZoneInfo("Europe/London"))
    assert "of 20 July 2026, 00:30 has not been sent" in words(message)


def test_without_a_contact_the_administrator_is_named() -> None:
    """The default of `organisation.help` is English, and says nobody's name: the address does, in each language."""
    own = policy(organisation={"languages": ["en", "cy"]}, notices={"administrator": "mail-desk@council.test"})
    text = words(render(own, incident(), "held"))
    assert "contact mail-desk@council.test, quote" in text
    assert "Cyswllt: mail-desk@council.test." in text


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
    "subject", ["Trip on Friday, rewrite", "Meeting", "Ŵyl y Bŷd " * 5, f"{'x' * 60} ŷ", "😀" * 40]
)
def test_the_subject_is_encoded_as_every_program_decodes_it(subject: str) -> None:
    """Two encoded words have a blank between them (RFC 2047, section 2): seen on Debian 13 without it."""
    message = render(policy(), incident(subject=subject), "rewritten")
    [line, *_] = [line for line in re.split(rb"\n(?![ \t])", message.as_bytes()) if line.startswith(b"Subject:")]
    words = line.split()[1:]
    assert all(re.fullmatch(rb"=\?utf-8\?[bq]\?[^?]+\?=", word) for word in words)
    assert max(map(len, line.split(b"\n"))) <= 78
    read = message_from_bytes(message.as_bytes(), policy=email_policy.default)["Subject"]
    assert read == message["Subject"]
    assert " ".join(subject.split()) in read


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
    """The Message-ID depends on incident, kind and first copy only, so that duplicates can be recognised."""
    first, second = (notice("held")["Message-ID"] for _ in range(2))
    later = notice("held", about=incident(at=SENT + timedelta(hours=2)))["Message-ID"]
    again = notice("held", about=incident(copies=(copy(id=2),)))["Message-ID"]
    assert first == second == "<held.k7qf-3m2d.20261119140500.1@council.test>"
    assert len({first, later, again, notice("deleted")["Message-ID"]}) == 4


def test_an_internationalised_sender() -> None:
    """The domain is written as A-labels, the local part in UTF-8, which needs SMTPUTF8."""
    message = notice("held", about=incident(sender="siân@cyngor.test"))
    assert "To: siân@cyngor.test\n".encode() in message.as_bytes()
    message = notice("held", about=incident(sender="clerk@CYNGOR-MÔN.test"))
    assert b"To: clerk@xn--cyngor-mn-n7a.test\n" in message.as_bytes()


@pytest.mark.parametrize("sender", ["", "clerk", "a@b@c.test", "a@council.test,b@family.test", "a b@council.test"])
def test_a_sender_that_is_not_one_address(sender: str) -> None:
    """Such a sender is refused: sendmail(1) might read several addresses in it."""
    with pytest.raises(NoticeError, match="not an address that can be written to"):
        notice("held", about=incident(sender=sender))
