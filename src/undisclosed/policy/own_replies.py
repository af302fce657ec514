"""The organisation's own words for the reply to a refused message: how they are checked, and how they are filled in.

`config/reply_files.py` reads them; `decision/reply.py` sends them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from undisclosed.policy.ascii_text import plain
from undisclosed.policy.sections import OrganisationSection

if TYPE_CHECKING:
    from undisclosed.policy.policy import Policy

LINE_LIMIT: Final = 100
"""Characters of one reply line, its `550-5.7.0 ` included: the narrowest dialogs do not break it."""

LINES_LIMIT: Final = 5
"""Lines of a reply, in all languages together: more are not read in a dialog."""

REPLY_FILES: Final[Mapping[str, str]] = {
    "": "reply.txt",
    "invitation": "reply-invitation.txt",
    "outlook": "reply-outlook.txt",
    "signed": "reply-signed.txt",
    "repeated": "reply-repeated.txt",
    "other": "reply-other.txt",
}
"""The file in a language's folder: for a message that a rule refuses, and for one that is refused because its addresses
could not be hidden, by the kind of the obstacle. The usual advice would be wrong for an invitation."""

PLACEHOLDERS: Final = ("count", "organisation", "help", "reference")

OwnReplies = Mapping[str, tuple[tuple[str, ...], ...]]
"""By the keys of REPLY_FILES: the lines of each language, the most important language first."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")

_LONGEST: Final = {"count": "99999", "reference": "K7QF-3M2D"}
"""Placeholders whose value depends on the message, at full length."""


class Mistake(NamedTuple):
    """A line that cannot be sent as it is."""

    line: int | None
    problem: str
    fix: str


def room(code: int, enhanced: str) -> int:
    """The characters that a line has beside its codes."""
    return LINE_LIMIT - len(f"{code}-{enhanced} ")


def filled_in(policy: Policy, line: str, *, count: int | str, reference: str) -> str:
    """The line with each placeholder replaced. A line that `mistakes` accepts is never cut."""
    organisation = policy.organisation
    values = {
        "count": str(count),
        "reference": reference,
        "organisation": plain(organisation.name, organisation.languages),
        "help": plain(organisation.help, organisation.languages) or OrganisationSection.model_fields["help"].default,
    }
    return " ".join(_PLACEHOLDER.sub(lambda found: values[found[1]], line).split())


def mistakes(policy: Policy, lines: Sequence[tuple[int, str]]) -> Iterator[Mistake]:
    """The mistakes in a file's lines that are not blank, each with its number."""
    if not lines:
        yield Mistake(None, "it has no words", "write at most five lines, or remove the file")
        return
    found = [mistake for number, line in lines for mistake in _in_line(policy, number, line)]
    yield from found
    if len(lines) > LINES_LIMIT:
        yield Mistake(lines[LINES_LIMIT][0], f"more than {LINES_LIMIT} lines", "shorten it: dialogs show no more")
    if not found and "{reference}" not in lines[-1][1]:
        fix = (
            "write {reference} into it: mail by sendmail(1) gets this line alone, and some programs show only this one"
        )
        yield Mistake(lines[-1][0], "the last line does not quote the reference", fix)


def _in_line(policy: Policy, number: int, line: str) -> Iterator[Mistake]:
    if any(char < " " or char == "\x7f" for char in line):
        yield Mistake(number, "a control character, such as a tab", "write blanks instead")
        return
    if not line.isascii():
        problem = "an SMTP reply is ASCII, without accents and typographic marks"
        yield Mistake(number, problem, f"write: {plain(line, policy.organisation.languages)}")
        return
    unknown = [name for name in _PLACEHOLDER.findall(line) if name not in PLACEHOLDERS]
    for name in unknown:
        nearest = difflib.get_close_matches(name.strip().lower(), PLACEHOLDERS, n=1)
        known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
        fix = f"{f'write {{{nearest[0]}}}; ' if nearest else ''}known are {known}"
        yield Mistake(number, f"there is no placeholder {{{name}}}", fix)
    if unknown:
        return
    if re.search("[{}]", _PLACEHOLDER.sub("", line)):
        yield Mistake(number, "a brace without its pair", "remove it: braces are for placeholders only")
        return
    length, limit = len(filled_in(policy, line, **_LONGEST)), room(policy.reply.code, policy.reply.enhanced)
    if length > limit:
        problem = f"too long: {length} characters once its placeholders are filled in, and {limit} fit behind the codes"
        yield Mistake(number, problem, "shorten it, or put a part into a line of its own; break no link")
