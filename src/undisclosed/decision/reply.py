"""The words of the SMTP reply that a sender reads, and the reason with which a message is held.

Mail clients change replies: some show the first line only, some the last, some join all lines with or without a blank.
So every line is a sentence of its own, and both the first and the last say that the message was not sent, and why or
what to do. The number is that of this message, never the limit: senders who know the limit send batches just below it.

The texts are ASCII, as an SMTP reply must be (RFC 5321, section 4.2); names from the configuration are transliterated.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from anyascii import anyascii

from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.decision.rules import Decision
from undisclosed.policy import Policy

LINE_LIMIT: Final = 100
"""Characters of one reply line, its `550-5.7.0 ` included: the narrowest dialogs do not break it."""

REASON_LIMIT: Final = 200
"""Characters of the reason of a held message: Postfix logs it in one piece."""


class Reply(NamedTuple):
    """An SMTP reply. `lines` are printable ASCII, without code and enhanced code; `%` is not doubled."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    def single(self) -> str:
        """The reply in one line, for mail through sendmail(1): its bounce writes `_` in place of every line end."""
        return " ".join(self.lines)


def refusal(policy: Policy, decision: Decision, reference: str | None) -> Reply:
    """The reply to a rejected message. An empty or missing `reference` is left out."""
    words = _words(policy)
    reply = policy.reply
    room = _room(reply.code, reply.enhanced)
    remedy = words.remedy if decision.obstacle is None else words.obstacles[decision.obstacle.kind]
    lines = (
        words.exposed.format(outside=words.outside(decision.exposure.count)),
        *remedy.lines,
        _ask(policy, words.ask, words.administrator, room),
        _last(remedy.last, words.reference, reference, room),
    )
    return Reply(reply.code, reply.enhanced, lines)


def fault(policy: Policy, queue_id: str | None) -> Reply:
    """The reply after a failure of the milter: a temporary error under every policy. No decision was made."""
    words = _words(policy)
    # RFC 3463: "other or undefined mail system status"
    return _undecided(policy, 451, "4.3.0", words.fault, words.ask_if_again, words.fault_last, queue_id)


def header_too_large(policy: Policy, queue_id: str | None) -> Reply:
    """The reply to a message whose header is too long to be decided on. Permanent: a later attempt fails as well."""
    words = _words(policy)
    # RFC 3463: "message too big for system"
    return _undecided(policy, 550, "5.3.4", words.too_large, words.ask, words.too_large_last, queue_id)


def _undecided(
    policy: Policy, code: int, enhanced: str, first: tuple[str, ...], ask: str, last: str, queue_id: str | None
) -> Reply:
    """A reply without a decision: it quotes the queue id, since there is no reference."""
    words, room = _words(policy), _room(code, enhanced)
    lines = (*first, _ask(policy, ask, words.administrator, room), _last(last, words.queue_id, queue_id, room))
    return Reply(code, enhanced, lines)


def quarantine_reason(decision: Decision, reference: str | None) -> str:
    """The reason of a held message: one short ASCII line, which Postfix logs from 3.10 on."""
    count = decision.exposure.count
    head = f"{count} external {'address' if count == 1 else 'addresses'} visible to every recipient"
    tail = f"; reference {_plain(reference)}"[:40] if reference else ""
    obstacle = f"; not rewritten: {_plain(decision.obstacle.text)}" if decision.obstacle else ""
    rule = f"; rule {_plain(decision.rule)}" if decision.rule else ""
    return head + _cut(rule + obstacle, REASON_LIMIT - len(head) - len(tail)) + tail


class _Remedy(NamedTuple):
    """The advice for a rejected message: at most two lines, and the beginning of the last line."""

    lines: tuple[str, ...]
    last: str


class _Words(NamedTuple):
    """All texts in one language, each of at most 86 characters: the longest reply code takes 14."""

    outside: Callable[[int], str]
    """The number of outside addresses in words: singular or plural."""
    exposed: str
    remedy: _Remedy
    obstacles: Mapping[ObstacleKind, _Remedy]
    """The remedy where the addresses could not be hidden for the sender."""
    ask: str
    ask_if_again: str
    administrator: str
    """The contact if the one in the configuration cannot be written in ASCII, or is too long."""
    reference: str
    fault: tuple[str, ...]
    fault_last: str
    too_large: tuple[str, ...]
    too_large_last: str
    queue_id: str


_ENGLISH: Final = _Words(
    outside=lambda count: "1 outside address" if count == 1 else f"{count} outside addresses",
    exposed="Not sent: {outside} would have been visible to everyone who got it.",
    remedy=_Remedy(
        (
            "Please put your own address in To and all the others in Bcc, then send it again.",
            "A mail merge is safer still. For a few people, send one message each.",
        ),
        "Not sent: please put the addresses in Bcc and send again.",
    ),
    obstacles={
        ObstacleKind.INVITATION: _Remedy(
            (
                "It is an invitation, and an invitation lists every guest: Bcc cannot hide them.",
                "Please write an ordinary message with everyone in Bcc, or invite one by one.",
            ),
            "Not sent: please write an ordinary message and use Bcc.",
        ),
        ObstacleKind.OUTLOOK: _Remedy(
            (
                "It is in Outlook's Rich Text format, which lists all addresses a second time.",
                "Please choose HTML or plain text, put everyone in Bcc, and send it again.",
            ),
            "Not sent: please use HTML and Bcc, and send it again.",
        ),
        ObstacleKind.SIGNED: _Remedy(
            (
                "It is digitally signed or encrypted, so the addresses could not be hidden for you.",
                "Please put all but your own address in Bcc, use a mail merge, or send one each.",
            ),
            "Not sent: please put the addresses in Bcc and send again.",
        ),
        ObstacleKind.OTHER: _Remedy(
            (
                "The addresses could not be hidden automatically, so please do that yourself:",
                "put all but your own address in Bcc, use a mail merge, or send one message each.",
            ),
            "Not sent: please put the addresses in Bcc and send again.",
        ),
    },
    ask="For help, ask {whom}.",
    ask_if_again="If it happens again, ask {whom}.",
    administrator="your mail administrator",
    reference="Reference:",
    fault=(
        "Not sent yet, and not your fault: our mail system failed while checking it.",
        "Nothing was sent and nothing is lost. Please try again in a few minutes.",
    ),
    fault_last="Not sent yet, not your fault: please try again shortly.",
    too_large=(
        "Not sent: the list of recipients and the other header lines are too long to be checked.",
        "Please put your own address in To and all the others in Bcc, then send it again.",
    ),
    too_large_last="Not sent: the header is too long. Please use Bcc, and send again.",
    queue_id="Queue id:",
)

_LANGUAGES: Final[Mapping[str, _Words]] = {"en": _ENGLISH}


def _words(policy: Policy) -> _Words:
    """The words in the first of the organisation's languages that this file has, else in English."""
    return next(
        (_LANGUAGES[language] for language in policy.organisation.languages if language in _LANGUAGES), _ENGLISH
    )


def _room(code: int, enhanced: str) -> int:
    return LINE_LIMIT - len(f"{code}-{enhanced} ")


def _ask(policy: Policy, sentence: str, administrator: str, room: int) -> str:
    """The contact and the organisation, as far as there is room, the contact first. No word is broken."""
    room -= len(sentence.format(whom=""))
    languages = policy.organisation.languages
    whom = _cut(_plain(policy.organisation.help, languages), room) or administrator
    name = _cut(_plain(policy.organisation.name, languages), room - len(whom) - len(" ()"))
    return sentence.format(whom=f"{whom} ({name})" if name else whom).replace("....", "...")


def _last(lead: str, label: str, value: str | None, room: int) -> str:
    """The last line. The longest references (9 characters) and queue ids (18) fit."""
    spelled = _plain(value or "")
    return f"{lead} {label} {spelled}"[:room].rstrip() if spelled else lead


def _cut(text: str, room: int) -> str:
    """The text, or its first words and `...` if it is too long; empty if not even one word fits."""
    if len(text) <= room:
        return text
    words = text[: max(0, room - len("...") + 1)].rpartition(" ")[0].rstrip(" .,;:-(")
    return words and words + "..."


_SPELLINGS: Final = {"de": str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})}
"""Transliterations of a language that differ from the plain letter: München is Muenchen, but Môn is Mon."""


@functools.lru_cache(maxsize=256)
def _plain(text: str, languages: tuple[str, ...] = ()) -> str:
    """The text in printable ASCII and single blanks, without a full stop at its end; empty if nothing readable is left.

    Scripts whose transliteration few of their readers would recognise are left out (Han, which is read as Chinese
    whatever the language; Hebrew and Arabic, which are written without vowels), and so are symbols.
    """
    composed = unicodedata.normalize("NFC", text)
    for language in languages:
        composed = composed.translate(_SPELLINGS.get(language, {}))
    kept = "".join(map(_spell, composed))
    if not re.search("[A-Za-z0-9]", kept) or (
        not re.search("[A-Za-z]", kept) and any(char.isalpha() for char in composed)
    ):
        return ""  # "3" is not a name if the words around it were left out
    return " ".join(kept.split()).rstrip(" .,;:")


def _spell(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() else " "
    if char.isspace():
        return " "
    if unicodedata.category(char) in ("So", "Cf", "Cs", "Co", "Cn", "Cc"):
        return ""
    if unicodedata.bidirectional(char) in ("R", "AL") or unicodedata.name(char, "").startswith("CJK "):
        return ""
    try:
        return anyascii(char)
    except OSError:  # its tables are files, read at first use: a shorter name is better than no reply at all
        return ""
