"""The words: what a sender reads in the SMTP reply, and what the log says of a held message.

Mail clients mangle replies: some show the first line only, some the last, some join all of them with or without a
blank in between (TRAPS: Replies and notices). So every line is a sentence of its own, and the first and the last each
say all that is needed: that the message was not sent, and why or what now. The number named is that of this message,
never the limit: who knows the limit sends in batches just below it.

Texts are ASCII, since an SMTP reply is (RFC 5321, section 4.2), and names from the configuration are spelled in ASCII.
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
"""Characters of one reply line, its `550-5.7.0 ` included: what the narrowest dialogs show unbroken."""

LINES_LIMIT: Final = 5

REASON_LIMIT: Final = 200
"""Characters of the reason that goes with a held message, so that Postfix logs it in one piece."""


class Reply(NamedTuple):
    """An SMTP reply: `lines` are printable ASCII and carry neither code nor enhanced code; `%` is not doubled."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    def single(self) -> str:
        """The reply in one line, for mail through sendmail(1): its bounce writes `_` in place of every line end."""
        return " ".join(self.lines)


def refusal(policy: Policy, decision: Decision, reference: str | None) -> Reply:
    """The reply to a message that the policy refuses. `reference` is the incident's; empty or None leaves it out."""
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
    """The reply to a message that we failed on: to come back, whatever the policy says. Nothing was decided on it."""
    words = _words(policy)
    code, enhanced = 451, "4.3.0"  # RFC 3463: "other or undefined mail system status"
    room = _room(code, enhanced)
    lines = (
        *words.fault,
        _ask(policy, words.ask_if_again, words.administrator, room),
        _last(words.fault_last, words.queue_id, queue_id, room),
    )
    return Reply(code, enhanced, lines)


def quarantine_reason(decision: Decision, reference: str | None) -> str:
    """The reason that goes with a held message: one short ASCII line, logged from Postfix 3.10 on."""
    count = decision.exposure.count
    head = f"{count} external {'address' if count == 1 else 'addresses'} visible to every recipient"
    tail = f"; reference {_plain(reference)}"[:40] if reference else ""
    obstacle = f"; not rewritten: {_plain(decision.obstacle.text)}" if decision.obstacle else ""
    rule = f"; rule {_plain(decision.rule)}" if decision.rule else ""
    return head + _cut(rule + obstacle, REASON_LIMIT - len(head) - len(tail)) + tail


class _Remedy(NamedTuple):
    """What to do about a refused message: at most two lines, and the lead of the last line."""

    lines: tuple[str, ...]
    last: str


class _Words(NamedTuple):
    """All that is said in one language. Every text is at most 86 characters: the longest reply code takes 14."""

    outside: Callable[[int], str]
    """The number of outside addresses, in words that agree with it."""
    exposed: str
    remedy: _Remedy
    obstacles: Mapping[ObstacleKind, _Remedy]
    """The remedy where the addresses could not be hidden for the sender."""
    ask: str
    ask_if_again: str
    administrator: str
    """Whom to ask where the configuration names nobody who can be spelled in ASCII, or only in too many letters."""
    reference: str
    fault: tuple[str, ...]
    fault_last: str
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
    """Whom to ask, and whose they are: both as far as there is room, the former first. No word of theirs is broken."""
    room -= len(sentence.format(whom=""))
    languages = policy.organisation.languages
    whom = _cut(_plain(policy.organisation.help, languages), room) or administrator
    name = _cut(_plain(policy.organisation.name, languages), room - len(whom) - len(" ()"))
    return sentence.format(whom=f"{whom} ({name})" if name else whom).replace("....", "...")


def _last(lead: str, label: str, value: str | None, room: int) -> str:
    """The last line. A reference of any length that there can be (9 characters; queue ids have up to 18) fits."""
    spelled = _plain(value or "")
    return f"{lead} {label} {spelled}"[:room] if spelled else lead


def _cut(text: str, room: int) -> str:
    """The text, or its first words and `...` where it is too long: nothing where not even one word fits."""
    if len(text) <= room:
        return text
    words = text[: max(0, room - len("...") + 1)].rpartition(" ")[0].rstrip(" .,;:-(")
    return words and words + "..."


_SPELLINGS: Final = {"de": str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})}
"""How a language spells in ASCII what others only strip of its dots: German has Muenchen, Welsh has no Moen for Môn."""


@functools.lru_cache(maxsize=256)
def _plain(text: str, languages: tuple[str, ...] = ()) -> str:
    """The text in printable ASCII and single blanks, no full stop at its end; empty where nothing is left to read.

    Letters whose spelling few of their readers would know again (Han, read as Chinese whatever the language; Hebrew
    and Arabic, without vowels) are left out, and so are pictures.
    """
    composed = unicodedata.normalize("NFC", text)
    for language in languages:
        composed = composed.translate(_SPELLINGS.get(language, {}))
    kept = "".join(map(_spell, composed))
    if not re.search("[A-Za-z0-9]", kept) or (
        not re.search("[A-Za-z]", kept) and any(char.isalpha() for char in composed)
    ):
        return ""  # "3" is no more a name than nothing is, where three words stood before it
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
    except OSError:  # its tables are files, read at first use: a shorter name is better than no reply
        return ""
