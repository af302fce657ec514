"""The words of SMTP replies in each language that comes with the program, in ASCII.

Each text is complete in its first and in its last line, since mail clients show the one, the other, or all of them. The
first says what to do, the last says why and quotes the reference; `more` is left out where two languages share the five
lines of a reply. The number is that of the message, never the limit: senders who know the limit send batches below it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from undisclosed.decision.obstacles import ObstacleKind


class Text(NamedTuple):
    """One reply in one language. Each line has at most 86 characters: the longest reply code takes 14."""

    first: str
    more: tuple[str, ...]
    last: str
    ask: str


class Words(NamedTuple):
    """All replies in one language."""

    outside: Callable[[int], str]
    """The number of outside addresses in words: singular or plural."""
    refused: Text
    obstacles: Mapping[ObstacleKind, Text]
    """The refusal of a message whose addresses could not be hidden for its sender."""
    fault: Text
    too_large: Text
    help: str
    """The label of the contact, where two languages share its line."""
    administrator: str
    """The contact if none is configured, or if it cannot be written in ASCII."""
    reference: str
    queue_id: str


_ASK: Final = "For help, ask {whom}."

ENGLISH: Final = Words(
    outside=lambda count: "1 outside address" if count == 1 else f"{count} outside addresses",
    refused=Text(
        "Not sent. Please put your own address in To, all others in Bcc, and send it again.",
        ("A mail merge is safer still. For a few people, send one message each.",),
        "Everyone would have seen {outside}: use Bcc.",
        _ASK,
    ),
    obstacles={
        ObstacleKind.INVITATION: Text(
            "Not sent. Please write an ordinary message with everyone in Bcc, or invite one by one.",
            ("It is an invitation, and an invitation lists every guest: Bcc cannot hide them.",),
            "All would see {outside}: write a message with Bcc.",
            _ASK,
        ),
        ObstacleKind.OUTLOOK: Text(
            "Not sent. Please choose HTML as its format, put everyone in Bcc, and send it again.",
            ("Outlook's Rich Text format lists all addresses a second time.",),
            "Everyone would have seen {outside}: use HTML and Bcc.",
            _ASK,
        ),
        ObstacleKind.SIGNED: Text(
            "Not sent. Please put your own address in To, all others in Bcc, and send it again.",
            ("It is digitally signed or encrypted, so the addresses could not be hidden for you.",),
            "Everyone would have seen {outside}: use Bcc.",
            _ASK,
        ),
        ObstacleKind.REPEATED: Text(
            "Not sent. Please take the addresses out of its text, put them in Bcc, and send again.",
            ("The text or an attachment lists addresses of other recipients: Bcc cannot hide those.",),
            "All would see {outside}: clear the text, use Bcc.",
            _ASK,
        ),
        ObstacleKind.OTHER: Text(
            "Not sent. Please put your own address in To, all others in Bcc, and send it again.",
            ("The addresses could not be hidden for you. A mail merge is safer still.",),
            "Everyone would have seen {outside}: use Bcc.",
            _ASK,
        ),
    },
    fault=Text(
        "Not sent yet, and not your fault: our mail system failed while checking it.",
        ("Nothing was sent and nothing is lost. Please try again in a few minutes.",),
        "Not sent yet, not your fault: please try again shortly.",
        "If it happens again, ask {whom}.",
    ),
    too_large=Text(
        "Not sent. Please put your own address in To, all others in Bcc, and send it again.",
        ("The list of recipients and the other header lines are too long to be checked.",),
        "Its header is too long to be checked: use Bcc.",
        _ASK,
    ),
    help="Help",
    administrator="your mail administrator",
    reference="Reference:",
    queue_id="Queue id:",
)

_ASK_CY: Final = "Am gymorth, cysylltwch: {whom}."
_REFUSED_CY: Final = "Heb ei hanfon. Rhowch eich cyfeiriad chi yn To, pawb arall yn Bcc, a'i hanfon eto."

WELSH: Final = Words(
    outside=lambda count: "un cyfeiriad allanol" if count == 1 else f"{count} o gyfeiriadau allanol",
    refused=Text(
        _REFUSED_CY,
        ("Mae cyfuno post yn fwy diogel. I ychydig o bobl, anfonwch neges yr un.",),
        "Byddai pawb yn gweld {outside}: defnyddiwch Bcc.",
        _ASK_CY,
    ),
    obstacles={
        ObstacleKind.INVITATION: Text(
            "Heb ei hanfon. Ysgrifennwch neges gyffredin, nid gwahoddiad, gyda phawb yn Bcc.",
            ("Mae gwahoddiad yn rhestru pawb: ni all Bcc eu cuddio.",),
            "Byddai pawb yn gweld {outside}: anfonwch neges Bcc.",
            _ASK_CY,
        ),
        ObstacleKind.OUTLOOK: Text(
            "Heb ei hanfon. Dewiswch HTML yn fformat, rhowch bawb yn Bcc, a'i hanfon eto.",
            ("Mae fformat Rich Text Outlook yn rhestru'r cyfeiriadau ddwywaith.",),
            "Byddai pawb yn gweld {outside}: HTML a Bcc.",
            _ASK_CY,
        ),
        ObstacleKind.SIGNED: Text(
            _REFUSED_CY,
            ("Mae wedi'i llofnodi neu wedi'i hamgryptio: nid oedd modd cuddio'r cyfeiriadau.",),
            "Byddai pawb yn gweld {outside}: defnyddiwch Bcc.",
            _ASK_CY,
        ),
        ObstacleKind.REPEATED: Text(
            "Heb ei hanfon. Tynnwch y cyfeiriadau o'r testun, rhowch nhw yn Bcc, a'i hanfon eto.",
            ("Mae'r testun neu atodiad yn rhestru cyfeiriadau: ni all Bcc guddio'r rheini.",),
            "Byddai pawb yn gweld {outside}: defnyddiwch Bcc.",
            _ASK_CY,
        ),
        ObstacleKind.OTHER: Text(
            _REFUSED_CY,
            ("Nid oedd modd cuddio'r cyfeiriadau ar eich rhan. Mae cyfuno post yn fwy diogel.",),
            "Byddai pawb yn gweld {outside}: defnyddiwch Bcc.",
            _ASK_CY,
        ),
    },
    fault=Text(
        "Heb ei hanfon eto, ac nid eich bai chi: methodd ein system wrth ei gwirio.",
        ("Nid oes dim wedi'i golli. Rhowch gynnig arall arni ymhen ychydig funudau.",),
        "Heb ei hanfon eto, nid eich bai chi: ceisiwch eto'n fuan.",
        "Os bydd yn digwydd eto, cysylltwch: {whom}.",
    ),
    too_large=Text(
        _REFUSED_CY,
        ("Mae'r rhestr o dderbynwyr a'r penawdau eraill yn rhy hir i'w gwirio.",),
        "Mae'r penawdau yn rhy hir i'w gwirio: defnyddiwch Bcc.",
        _ASK_CY,
    ),
    help="Cymorth",
    administrator="eich gweinyddwr e-bost",
    reference="Cyfeirnod:",
    queue_id="Rhif ciw:",
)

LANGUAGES: Final[Mapping[str, Words]] = {"en": ENGLISH, "cy": WELSH}
