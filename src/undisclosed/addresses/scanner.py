"""The tolerant scan: every address that a person can read in a text, whether or not any grammar accepts it.

It starts from the at signs, not from a grammar: the text around each one decides whether it is part of an address. So
no quote, comment or bracket, balanced or not, can hide an address; the structure decides only its spelling (RFC 5322,
3.4 and 4.4). The cost is linear: the text that is examined around an at sign ends at the next one or after a fixed
number of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from undisclosed.addresses.domains import MAX_NAME, to_ascii
from undisclosed.addresses.tokenizer import (
    APOSTROPHES,
    AT_SIGNS,
    BETWEEN,
    DOTS,
    JOINERS,
    Tokens,
    readable,
    unescaped,
    unfolded,
)


class Address(NamedTuple):
    """One address, as it was written and as it is compared."""

    text: str
    """The bare addr-spec as it was written, without comments, folding and invisible characters."""
    local: str
    """The local part without quotes, case-folded."""
    domain: str
    """The domain as `domains.to_ascii` spells it; an address literal as `[...]`, in lower case."""

    @property
    def key(self) -> tuple[str, str]:
        """The identity of an address: two spellings of one address share it."""
        return self.local, self.domain


MAX_LOCAL: Final = 256
"""Characters that are searched backwards for the beginning of a quoted local part if quotes are unbalanced."""

_LABEL: Final = rf"[^\x00-\x2c\x2e\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f\s{DOTS}{AT_SIGNS}{APOSTROPHES}{BETWEEN}]++"
_DOMAIN: Final = re.compile(rf"([!-,./:-?\[-^`{{-~{DOTS}{APOSTROPHES}]*+)({_LABEL}(?:[{DOTS}]++{_LABEL})*)")
_DOT: Final = re.compile(f"[{DOTS}]")
_LITERAL: Final = re.compile(rf'\[(?:[^\[\]\\{AT_SIGNS}]++|\\.)*\]|\[[^\s\[\]<>",;{AT_SIGNS}]++', re.DOTALL)
_ROUTE_GOES_ON: Final = re.compile(rf":|,\s*+[{AT_SIGNS}]")
_TO_ESCAPE: Final = re.compile(r'["\\]')
_ATOMS: Final = re.compile(r'[^\s"(),:;<>@\[\]\\]+')
# Text that may follow a domain of one label in a name or comment: `Kids@Home` is an address, `c:\ann@pc\x` is not.
_CLEAN_END: Final = re.compile(rf"\Z|[\s)\]>}},;:\"{APOSTROPHES}{BETWEEN}]|[.!?]+(?:\s|\Z)")
_CLOSING: Final = {"{": "}", **{mark: mark for mark in "`*|~/^#$%!+=-_"}}
_ASCII_MARKS: Final = "!#$%&'*+/=?^_`{|}~.-"


def scan(text: str) -> list[Address]:
    """Return all addresses that a person can read in `text`, in order; an address may be there twice."""
    found: list[tuple[int, Address]] = []
    texts = [(-1, readable(text), "")]
    # Quoted strings are texts of their own, read in their turn. Each level of quoting doubles the backslashes of the
    # one below, so there are at most 16 in a field of 60,000 bytes, and the texts shrink.
    for parent, inner, within in texts:
        scanned = _Scan(inner, within)
        found.extend((parent if within else place, address) for place, address in scanned.addresses())
        texts.extend((parent if within else place, below, part) for place, below, part in scanned.quoted_texts())
    found.sort(key=lambda item: item[0])
    return [address for _, address in found]


class _Domain(NamedTuple):
    """The domain to the right of an at sign."""

    text: str
    end: int
    """Its end in the scanned text."""
    blanks: bool = False
    """Whether blanks separate it from the at sign (obsolete syntax: RFC 5322, 4.4)."""
    led: str = ""
    """Marks directly behind the at sign: `alice@.x.test`, `alice@"x.test"`."""
    shorter: str = ""
    """The domain for a reader who does not join `x.test. example` to one name; else ""."""

    @property
    def strong(self) -> bool:
        """Whether it is dotted or a literal: reachable from outside, and not in a text by chance."""
        return self.text[0] == "[" or _DOT.search(self.text) is not None


class _Local(NamedTuple):
    """The local part to the left of an at sign."""

    text: str
    unquoted: str
    blanks: bool = False
    stray: str = ""
    """Marks between it and the at sign: `alice>@x.test`."""
    borrowed: bool = False
    """Whether it is the domain of the address before: `a@x.test@y.test`."""
    first: int = 0
    """Its first token."""
    adjacent: bool = False
    """Whether it is one word directly before the at sign."""

    @property
    def has_letters(self) -> bool:
        """Whether it is quoted, or has a letter or digit."""
        return self.text.startswith('"') or any(map(str.isalnum, self.text))


class _Scan:
    """The scan of one text.

    `within` names the origin of the text: "" for a field, "name" for the content of a quoted string, "local part" for
    that of a quoted string before an at sign.
    """

    def __init__(self, text: str, within: str) -> None:
        self.text = text
        self.within = within
        self.tokens = Tokens(text)
        self.depth = 0  # the nesting depth of comments
        self.done = 0  # the end of the last address
        self.lone = -1  # the last at sign without a domain
        self.routed = 0  # the end of the last domain without a local part

    @property
    def _in_text(self) -> bool:
        """Whether the scan is in a name or a comment, which may contain plain text."""
        return bool(self.within) or self.depth > 0

    def addresses(self) -> Iterator[tuple[int, Address]]:
        """Yield each address with the place of its at sign."""
        for index, kind in enumerate(self.tokens.kinds):
            if kind in "()" and index in self.tokens.partner:
                self.depth += 1 if kind == "(" else -1
            elif kind == "at":
                domain = self._domain(index)
                local = domain and self._local(index, domain.end)
                if domain is None:
                    self.lone = index
                elif local is None or self._is_route(local, domain):
                    self.routed = domain.end
                elif self._is_address(local, domain):
                    self.done = domain.end
                    for name in filter(None, (domain.shorter, domain.text)):
                        yield self.tokens.begins[index], _spelled(local, name)

    def quoted_texts(self) -> Iterator[tuple[int, str, str]]:
        """Yield each quoted string with an at sign: its beginning, its content, and the `within` for it."""
        tokens = self.tokens
        for index, kind in enumerate(tokens.kinds):
            if kind != "quoted" or not any(mark in tokens.token(index) for mark in AT_SIGNS):
                continue
            content = unescaped(tokens.token(index)[1:-1])
            # Clients hide the quotes, so "ann@"x.test reads as an address; and if one quote is missing, the others are
            # paired wrongly: ann smith"@x.test, "
            previous, blanks = tokens.skip(index - 1, -1)
            if not blanks and tokens.kind(previous) in ("word", "quoted"):
                content = (self._between_quotes(tokens.begins[index]) or tokens.token(previous) + '"') + content
            if content[-1] in AT_SIGNS and tokens.kind(index + 1) == "word":
                content += tokens.token(index + 1)
            following, _ = tokens.skip(index + 1, 1)
            yield tokens.begins[index], content, "local part" if tokens.kind(following) == "at" else "name"

    def _between_quotes(self, close: int) -> str:
        """Return the quoted string that ends with the quote at `close`, if it begins near enough, else ""."""
        begin = self.text.rfind('"', max(0, close - MAX_LOCAL), close)
        quoted = self.text[begin : close + 1] if begin >= 0 else ""
        return "" if len(quoted) <= 2 or any(mark in quoted for mark in AT_SIGNS) else quoted

    def _is_route(self, local: _Local, domain: _Domain) -> bool:
        """Whether this is a relay on the route to an address (RFC 5322, 4.4): Alice<@relay.test:alice@x.test>."""
        return "<" in local.stray and _ROUTE_GOES_ON.match(self.text, domain.end) is not None

    def _is_address(self, local: _Local, domain: _Domain) -> bool:
        if self.within == "local part" and (local.unquoted[-1:] in DOTS or domain.led):
            return False  # "odd.@.ball"@x.test has no second address
        before = self.tokens.kind(local.first - 1)
        if domain.strong:
            # "Ann @ example.test" is a way to write a name; `ann @example.test` is an address with a blank in it.
            return not (self._in_text and local.blanks and domain.blanks and before != "<")
        if local.blanks or (domain.blanks and self._in_text) or domain.led.strip(DOTS):
            return False
        if local.stray or local.borrowed or before == "at":
            return False
        if self._in_text:
            return local.adjacent and local.has_letters and _CLEAN_END.match(self.text, domain.end) is not None
        # Ann !@Q! Lee: without a letter it counts only at a place where an address is expected.
        return local.has_letters or self.tokens.kind(self.tokens.skip(local.first - 1, -1)[0]) in ("", *"<,;:")

    # -- to the right of an at sign

    def _domain(self, at: int) -> _Domain | None:
        """Find the domain behind an at sign, also with marks between them: alice@"x.test", alice@&x.test."""
        tokens, led = self.tokens, ""
        index, blanks = tokens.skip(at + 1, 1)
        while (kind := tokens.kind(index)) not in ("at", ""):
            begin, end = tokens.begins[index], tokens.begins[index + 1]
            if kind == "[" and (literal := _LITERAL.match(self.text, begin)):
                return _Domain(unfolded(literal[0]), literal.end(), blanks)
            if kind == "word" and (name := _DOMAIN.match(self.text, begin, end)):
                return self._joined(index, name, blanks, led)
            if kind == "quoted" and (name := _DOMAIN.match(self.text, begin + 1, end)):
                return _Domain(name[2], name.end(), blanks, '"')
            led += tokens.token(index)
            index, apart = tokens.skip(index + 1, 1)
            if blanks or apart:
                break
        commented = tokens.kind(at + 1) == "(" and _DOMAIN.match(self.text, tokens.begins[at + 1] + 1)
        if commented and _DOT.search(commented[2]):
            return _Domain(commented[2], commented.end(), False, "(")  # alice@(x.test)
        return None

    def _joined(self, index: int, name: re.Match[str], blanks: bool, led: str) -> _Domain | None:
        """Join the labels of `machine(comment). example`, obsolete but legal, to one domain."""
        tokens, text, end, shorter = self.tokens, name[2], name.end(), ""
        while not self.text[end : tokens.begins[index + 1]].strip(DOTS):
            dotted = end < tokens.begins[index + 1]
            following, apart = tokens.skip(index + 1, 1)
            if tokens.kind(following) == "word" and not tokens.token(following).strip(DOTS):  # a dot between blanks
                following, more = tokens.skip(following + 1, 1)
                dotted, apart = True, apart or more
            if tokens.kind(following) != "word" or tokens.kind(following + 1) == "at":
                break
            begin, stop = tokens.begins[following], tokens.begins[following + 1]
            label = _DOMAIN.match(self.text, begin, stop)
            if label is None or label[1].strip(DOTS) or not (dotted or self.text[begin] in DOTS):
                break
            if apart and _DOT.search(text):
                behind, _ = tokens.skip(following + 1, 1)
                if self._in_text or tokens.kind(behind) not in (",", ";", ">", ""):
                    break  # "Ask alice@x.test. Thanks!"
                shorter = shorter or text
            text, end, index = f"{text}.{label[2]}", label.end(), following
        trimmed = text.rstrip("-_" + JOINERS)
        if not trimmed:
            return None
        end -= len(text) - len(trimmed)
        return _Domain(trimmed.lstrip(JOINERS), end, blanks, led + name[1], shorter)

    # -- to the left of an at sign

    def _local(self, at: int, domain_end: int) -> _Local | None:
        tokens, place = self.tokens, self.tokens.begins[at]
        if tokens.kind(at - 1) == '"' and (quoted := self._between_quotes(place - 1)):
            content = unfolded(quoted[1:-1]).rstrip("\\")
            return _Local(f'"{content}"', unescaped(content), first=at)
        index, blanks, stray = self._last_word(at)
        if index < 0 or (blanks and stray):
            return None
        if tokens.begins[index] < self.done:
            left = self.text[self.done : tokens.begins[index + 1]].lstrip(_ASCII_MARKS)
            if (blanks or stray) and not left:
                return None
            word = left or tokens.token(index)
            return _Local(word, word, blanks, stray, not left, index, index == at - 1)
        if tokens.begins[index] < self.routed and ("," in stray or ":" in stray):
            return None
        words = self._words(index)
        if words == [index] and tokens.kind(index) == "word":
            word = _unwrapped(tokens.token(index), tokens.kind(index - 1), self.text[domain_end : domain_end + 1])
            return _Local(word, word, blanks, stray, False, index, index == at - 1)
        unquoted = "".join(map(tokens.unquoted, words))
        if words == [index]:
            text = unfolded(tokens.token(index))
        else:
            text = unquoted if _ATOMS.fullmatch(unquoted) else '"' + _TO_ESCAPE.sub(r"\\\g<0>", unquoted) + '"'
        return _Local(text, unquoted, blanks, stray, False, words[0])

    def _last_word(self, at: int) -> tuple[int, bool, str]:
        """Return the last word of the local part, or -1, and the blanks and marks between it and the at sign."""
        tokens, stray = self.tokens, ""
        index, blanks = tokens.skip(at - 1, -1)
        while tokens.kind(index) not in ("word", "quoted") or not tokens.token(index).strip(APOSTROPHES + JOINERS):
            if blanks or tokens.kind(index) == "" or (tokens.kind(index) == "at" and index != self.lone):
                alone = tokens.kind(at - 1) == "word" and not self._in_text  # '@x.test
                return at - 1 if alone else -1, False, ""
            if index != self.lone:  # alice@[@192.0.2.1]
                stray += tokens.token(index)
            index, blanks = tokens.skip(index - 1, -1)
        return index, blanks, stray

    def _words(self, last: int) -> list[int]:
        r"""Collect to the left the words of an obsolete local part: `pete . (x) "smith"`, `a."b c"`, `a\b`."""
        tokens, words, first = self.tokens, [last], last
        while True:
            index, _ = tokens.skip(first - 1, -1)
            if tokens.kind(index) not in ("word", "quoted") or tokens.begins[index] < self.done:
                break
            between = first - 1
            while tokens.kind(between) == "backslash":
                between -= 1
            dotted = self.text[tokens.begins[first]] == "." or self.text[tokens.begins[index + 1] - 1] == "."
            if between == index and (first - index > 1 or tokens.kind(last) == "quoted"):
                words += range(first - 1, index - 1, -1)
            elif dotted:
                words.append(index)
            else:
                break
            first = index
        return words[::-1]


def _unwrapped(word: str, before: str, behind: str) -> str:
    """Remove the marks around an address: 'a@x', *a@x*, ftp://a@x."""
    word = word.strip(JOINERS)
    bare = word.lstrip(APOSTROPHES)
    if bare != word:
        return bare.rstrip(APOSTROPHES) or word
    if before == ":" and word.startswith("//"):
        return word.lstrip("/")
    if len(word) > 1 and behind and _CLOSING.get(word[0]) == behind:
        return word[1:]
    return word


def _spelled(local: _Local, domain: str) -> Address:
    name = local.unquoted.casefold()
    if not name.isascii() and len(name) <= MAX_NAME:  # normalisation is quadratic in a run of combining marks
        name = unicodedata.normalize("NFC", name)
    return Address(f"{local.text}@{domain}", name, to_ascii(domain))
