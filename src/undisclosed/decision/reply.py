"""The SMTP reply that a sender reads, and the reason with which a message is held.

Mail clients change replies: some show the first line only, some the last, some join all lines with or without a blank.
So every line is a sentence of its own, and the first and the last each make sense alone.

Where the first two languages of the organisation have words, the reply has both, in five lines: what to do in each, one
line with the contact, the reason in each. The organisation's own words replace a refusal whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.decision.reply_words import ENGLISH, LANGUAGES, Text, Words
from undisclosed.decision.rules import Decision
from undisclosed.policy import Policy
from undisclosed.policy.ascii_text import plain
from undisclosed.policy.own_replies import filled_in, room
from undisclosed.policy.sections import OrganisationSection

MAX_LANGUAGES: Final = 2
"""Languages that fit into five lines: two lines each, and the contact."""

MAX_NAME: Final = 20
"""Characters of a reference or queue id; both are shorter."""

REASON_LIMIT: Final = 200
"""Characters of the reason of a held message: Postfix logs it in one piece."""


class Reply(NamedTuple):
    """An SMTP reply. Its lines are printable ASCII, without code and enhanced code; `%` is not doubled."""

    code: int
    enhanced: str
    lines: tuple[str, ...]
    short: str
    """One line in place of `lines`, for mail through sendmail(1): its bounce repeats the reply for each recipient, and
    writes `_` in place of every line end."""

    def on_the_wire(self, in_one_line: bool = False) -> list[str]:
        """The lines as an SMTP client gets them."""
        *others, last = (self.short,) if in_one_line else self.lines
        return [
            *(f"{self.code}-{self.enhanced} {line}" for line in others),
            f"{self.code} {self.enhanced} {last}",
        ]


def refusal(policy: Policy, decision: Decision, reference: str | None) -> Reply:
    """The reply to a rejected message. An empty or missing `reference` is left out."""
    kind = None if decision.obstacle is None else decision.obstacle.kind
    return refusal_of(policy, kind, decision.exposure.count, reference)


def refusal_of(policy: Policy, kind: ObstacleKind | None, count: int, reference: str | None) -> Reply:
    """The refusal of a message with so many addresses; `kind`: the obstacle for which they could not be hidden."""
    code, enhanced = policy.reply.code, policy.reply.enhanced
    if own := policy.own_replies.get(kind or ""):
        blocks = [[filled_in(policy, line, count=count, reference=reference or "-") for line in block] for block in own]
        return Reply(code, enhanced, tuple(chain(*blocks)), " / ".join(block[-1] for block in blocks))
    parts = []
    for words in _languages(policy):
        text = words.refused if kind is None else words.obstacles[kind]
        last = text.last.format(outside=words.outside(count))
        parts.append((text._replace(last=last), words.reference))
    return _composed(policy, code, enhanced, parts, reference)


def fault(policy: Policy, queue_id: str | None) -> Reply:
    """The reply after a failure of the milter: a temporary error under every policy. No decision was made."""
    parts = [(words.fault, words.queue_id) for words in _languages(policy)]
    # RFC 3463: "other or undefined mail system status"
    return _composed(policy, 451, "4.3.0", parts, queue_id)


def header_too_large(policy: Policy, queue_id: str | None) -> Reply:
    """The reply to a message whose header is too long to be decided on. Permanent: a later attempt fails as well."""
    parts = [(words.too_large, words.queue_id) for words in _languages(policy)]
    # RFC 3463: "message too big for system"
    return _composed(policy, 550, "5.3.4", parts, queue_id)


def quarantine_reason(decision: Decision, reference: str | None) -> str:
    """The reason of a held message: one short ASCII line, which Postfix logs from 3.10 on."""
    count = decision.exposure.count
    head = f"{count} external {'address' if count == 1 else 'addresses'} visible to every recipient"
    tail = f"; reference {plain(reference)}"[:40] if reference else ""
    obstacle = f"; not hidden: {plain(decision.obstacle.text)}" if decision.obstacle else ""
    rule = f"; rule {plain(decision.rule)}" if decision.rule else ""
    return head + _cut(rule + obstacle, REASON_LIMIT - len(head) - len(tail)) + tail


def missing_of_help(policy: Policy) -> str:
    """The end of `organisation.help` that a refusal has no room for; empty if it has all of it."""
    spelled = _help(policy)
    shown = _contact(policy, _ask(policy), room(policy.reply.code, policy.reply.enhanced)).help
    if shown == spelled or not spelled:
        return ""
    return spelled.removeprefix(shown.removesuffix("...")).lstrip(" ,;:.(-") or spelled


def _languages(policy: Policy) -> list[Words]:
    """The words in the first languages of the organisation that come with the program, else in English."""
    tags = [tag for language in policy.organisation.languages for tag in (language, language.partition("-")[0])]
    return [LANGUAGES[tag] for tag in dict.fromkeys(tags) if tag in LANGUAGES][:MAX_LANGUAGES] or [ENGLISH]


def _composed(policy: Policy, code: int, enhanced: str, parts: Sequence[tuple[Text, str]], name: str | None) -> Reply:
    """The reply in these languages. `name`, the reference or the queue id, stands behind the label of each."""
    lasts = [_last(text.last, label, name) for text, label in parts]
    if len(parts) == 1:
        [(text, _)] = parts
        before, ask = (text.first, *text.more), text.ask
    else:
        before, ask = tuple(text.first for text, _ in parts), _ask(policy)
    contact = _contact(policy, ask, room(code, enhanced))
    return Reply(code, enhanced, (*before, contact.line, *lasts), " / ".join(lasts))


def _last(lead: str, label: str, value: str | None) -> str:
    """The last line, never without the end of a reference (9 characters) or a queue id (at most 19)."""
    spelled = plain(value or "")[:MAX_NAME].rstrip()
    return f"{lead} {label} {spelled}" if spelled else lead


class _Contact(NamedTuple):
    line: str
    help: str
    """The contact in it, as far as there is room."""


def _contact(policy: Policy, sentence: str, limit: int) -> _Contact:
    """The contact and the organisation, as far as there is room, the contact first. No word is broken."""
    limit -= len(sentence.format(whom=""))
    whom = _cut(_help(policy), limit) or " / ".join(words.administrator for words in _languages(policy))
    name = _cut(plain(policy.organisation.name, policy.organisation.languages), limit - len(whom) - len(" ()"))
    line = sentence.format(whom=f"{whom} ({name})" if name else whom).replace("....", "...")
    return _Contact(line, whom)


def _ask(policy: Policy) -> str:
    """The sentence with the contact of a refusal."""
    every = _languages(policy)
    return every[0].refused.ask if len(every) == 1 else " / ".join(words.help for words in every) + ": {whom}."


def _help(policy: Policy) -> str:
    """The contact in ASCII; empty if none is configured, or if nothing readable is left of it."""
    organisation = policy.organisation
    if organisation.help == OrganisationSection.model_fields["help"].default:
        return ""  # each language has words of its own for it
    return plain(organisation.help, organisation.languages)


def _cut(text: str, limit: int) -> str:
    """The text, or its first words and `...` if it is too long; empty if not even one word fits."""
    if len(text) <= limit:
        return text
    words = text[: max(0, limit - len("...") + 1)].rpartition(" ")[0].rstrip(" .,;:-(")
    return words and words + "..."
