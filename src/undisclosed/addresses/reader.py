"""A header field's text -> the addresses that a person can read in it.

Nearly all fields have the common forms only, which one compiled expression reads. From the point where it stops
matching, the tolerant scan of `scanner` takes over. Both are linear in the length of the field, and never raise.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from undisclosed.addresses.encoded_words import decoded
from undisclosed.addresses.scanner import Address, scan
from undisclosed.addresses.tokenizer import Tokens


class Mailbox(NamedTuple):
    """One entry of an address list."""

    name: str
    """The display name, unquoted and decoded; "" if there is none."""
    address: Address


_ADDRESS: Final = r"[a-z0-9_][\w!#$%&'*+/=^`{|}~.-]*+@[a-z0-9][a-z0-9.-]*+(?<![.-])"
# A name that cannot contain an address: no at sign, and nothing that decodes to one unless `_may_hide_one` says so.
# Only single characters repeat possessively: before Python 3.11.5 a possessive group that fails loses its position.
_NAME: Final = r"""(?:"[^"\\@\uff20\ufe6b=%]*+" | [^"(),:;<>@\uff20\ufe6b\[\]\\=]++
    | =\?(?:utf-?8|us-ascii|iso-8859-\d\d?|windows-125\d|koi8-[ru])\?[bq]\?[!-$&->A-~]*+\?= )*"""
# An address as display name, as clients write it: "ann@example.test" <ann@example.test>. It is an entry of its own.
_QUOTE: Final = rf""""'?(?={_ADDRESS}'?"\s*+<) | '(?={_ADDRESS}'\s*+<)"""
_ENTRIES: Final = re.compile(
    rf"""\s*+ (?:{_NAME}< | {_QUOTE})? ({_ADDRESS}(?=["'>]*+\s*+(?:[,;<]|\Z)) | (?s:.+)) ["'>]*+[\s,;]*+""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
"""The address of each entry in a common form; in any other entry, all the rest but for a harmless name."""
_MAILBOX: Final = re.compile(
    rf"""\s*+ (?: (?: "([\w .,()'&-]*+)" | (\w[\w .'&-]*+) ) \s*+ <({_ADDRESS})> | ({_ADDRESS}) ) \s*+ (?:,\s*+|\Z)""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
"""One entry without a name, or with a name of words only."""
_PLAIN: Final = re.compile(_ADDRESS, re.ASCII | re.IGNORECASE)
_HIDDEN_IN_Q: Final = re.compile(r"=(?:40|25|ef)", re.IGNORECASE)
_BASE64: Final = re.compile(r"\?b\?([^?]*+)\?=", re.IGNORECASE)
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")


def addresses(value: str) -> list[Address]:
    """Return every distinct address that a person can read in one field value, in order of first sight.

    `value` may be folded; bytes that are no UTF-8 are lone surrogates (surrogateescape).
    """
    if _may_hide_one(value):
        entries, rest = [], value
    else:
        entries, rest = _ENTRIES.findall(value), ""
        if entries and not _PLAIN.fullmatch(entries[-1]):
            # The scan begins behind the last address, because the name was skipped as well: ann<>@example.test
            at = value.rfind("@", 0, len(value) - len(entries.pop()))
            rest = value[at + len(entries[-1]) - entries[-1].index("@") :] if entries else value
    distinct: dict[str, Address] = {}
    new = tuple.__new__  # `Address(...)` takes three times as long, and lists have hundreds
    for text in entries:
        key = text.lower()
        if key == text:
            key = text  # saves one string
        if key not in distinct:
            local, _, domain = key.partition("@")
            distinct[key] = new(Address, (text, local, domain))
    if rest:
        for address in scan(rest):
            # No domain contains an at sign, so this text is as distinct as the pair.
            distinct.setdefault(f"{address.local}@{address.domain}", address)
    return list(distinct.values())


def _may_hide_one(value: str) -> bool:
    """Whether an encoded word of the common forms may decode to an at sign, plain (=40) or full-width (=EF..)."""
    if "=?" not in value:
        return False
    if _HIDDEN_IN_Q.search(value):
        return True
    try:
        data = b"".join(map(binascii.a2b_base64, _BASE64.findall(value)))
    except (binascii.Error, ValueError):
        return True
    return b"@" in data or b"%" in data or b"\xef" in data


def visible(value: str) -> list[str]:
    """Return the distinct addresses that a person can read in one field value, as they are written."""
    return [address.text for address in addresses(value)]


def mailboxes(value: str) -> list[Mailbox]:
    """Return the entries of an address list, in order: groups flattened, comments dropped.

    If no grammar accepts the text, the addresses in it are mailboxes without a name.
    """
    if "=?" in value:
        return mailboxes_by_grammar(value)
    boxes: list[Mailbox] = []
    position = 0
    while position < len(value):
        entry = _MAILBOX.match(value, position)
        if entry is None:
            return mailboxes_by_grammar(value)
        quoted, plain, named, bare = entry.groups()
        text = named or bare
        local, _, domain = text.lower().partition("@")
        boxes.append(Mailbox(" ".join((quoted or plain or "").split()), Address(text, local, domain)))
        position = entry.end()
    return boxes


def mailboxes_by_grammar(value: str) -> list[Mailbox]:
    """As `mailboxes`, of any text, token by token: twenty times as slow."""
    known = addresses(value)
    keys = {address.key for address in known}
    boxes: list[Mailbox] = []
    for name, text in _entries(value):
        inside = addresses(text)
        if not keys.issuperset(address.key for address in inside):
            # The entries are cut where a person would not cut them: no name can be trusted.
            return [Mailbox("", address) for address in known]
        boxes += [Mailbox(name if len(inside) == 1 else "", address) for address in inside]
    return boxes


def _entries(value: str) -> Iterator[tuple[str, str]]:
    """Cut an address list into entries: the display name, and the text of the address."""
    tokens = Tokens(value)
    words: list[int] = []  # tokens before an angle bracket, or all tokens
    angle: list[int] = []  # the angle bracket and the tokens behind it
    index = 0
    while kind := tokens.kind(index):
        current = angle or words
        begin = index
        if kind == "(":
            index = tokens.partner.get(index, index)
        elif kind == "[" and tokens.kind(index - 1) == "at":
            index = _literal_end(tokens, index)
        index += 1
        if kind == "<":
            words += angle
            angle = [begin]
        elif kind == ">" and angle and not tokens.hold_at_sign(angle):
            words += [*angle, begin]  # Ann <Jo> Lee <ann@example.test>
            angle = []
        elif _ends_entry(tokens, kind, angle):
            if kind != ":" or tokens.hold_at_sign(words):  # otherwise it was the name of a group
                yield _entry(tokens, words, angle)
            words, angle = [], []
        else:
            current += [begin] if kind == "(" else range(begin, index)
    yield _entry(tokens, words, angle)


def _ends_entry(tokens: Tokens, kind: str, angle: list[int]) -> bool:
    if kind in (",", ";"):
        # Not within an obsolete route: <@relay.test,@mx.test:a@x.test>.
        return not tokens.hold_at_sign(angle[1:2])
    return (kind == ">" and bool(angle)) or (kind == ":" and not angle)


def _literal_end(tokens: Tokens, index: int) -> int:
    """The end of the domain literal that begins at `index`: a@[IPv6:2001:db8::1]."""
    end = index + 1
    while tokens.kind(end) not in ("]", "[", "at", ""):
        end += 1
    return end if tokens.kind(end) == "]" else index


def _entry(tokens: Tokens, words: list[int], angle: list[int]) -> tuple[str, str]:
    if not angle:
        return "", _without_comments(tokens, words)
    text = "".join(tokens.unquoted(index) for index in words if index not in tokens.partner)
    address = _without_comments(tokens, angle if tokens.hold_at_sign(angle) else words + angle)
    # Blanks and controls become one blank, also a line end in an encoded word: the name is written to a field again.
    return " ".join(_CONTROLS.sub(" ", decoded(text)).split()), address


def _without_comments(tokens: Tokens, words: list[int]) -> str:
    """The text of some tokens; a comment becomes `()`, which still separates words."""
    return "".join("()" if index in tokens.partner else tokens.token(index) for index in words)
