"""The tolerant scan: every address that a person can read in a text, whether or not any grammar accepts it.

It starts from the at signs, not from a grammar: each one is looked at, wherever it stands, and what is around it
decides whether there is an address. So no quote, comment or bracket, balanced or not, can hide one; structure only
tells how an address is spelled (RFC 5322, 3.4 and 4.4). Nothing recurses, and no part of the text is read more than a
few times.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from undisclosed.domains import LONGEST_NAME, to_ascii
from undisclosed.encoded_words import decoded

Found = tuple[str, str, str]
"""Text, local part and domain, as `addresses.Address` describes them."""

AT_SIGNS: Final = "@\uff20\ufe6b"
_DOTS: Final = ".\u3002\uff0e\uff61"
_JOINERS: Final = "\u200c\u200d"
_APOSTROPHES: Final = "'\u2018\u2019\u201b"
# Marks that nobody sees: controls, soft hyphens, zero-width and bidirectional marks, variation selectors (Unicode's
# Default_Ignorable_Code_Point); not the joiners U+200C and U+200D: with one, DNS has another domain. Behind a
# backslash a control is part of the address (obs-qp).
_UNSEEN: Final = re.compile(
    r"(?<!\\)"
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
# Punctuation of other scripts and of word processors: between addresses or around one, never in one.
_BETWEEN: Final = (
    "\xa1\xa6\xa7\xab\xb6\xbb\xbf\u060c\u061b\u2013-\u2015\u201a\u201c-\u201f\u2022\u2026\u2039\u203a\u2190-\u21ff"
    "\u27e8\u27e9\u3001\u3008-\u3011\u3014-\u301f\ufe50\ufe54\ufe55\ufe59-\ufe5e\uff02\uff07-\uff09\uff0c\uff0f"
    "\uff1a-\uff1c\uff1e\uff3b-\uff3d\uff5b-\uff5d\uff5f\uff60\uff62-\uff64"
)

_COMMON: Final = rf"""(?P<word>[^\s{AT_SIGNS}"()<>,:;\[\]\\{_BETWEEN}]++) | (?P<blank>\s++) | (?P<at>[{AT_SIGNS}])"""
_TOKEN: Final = re.compile(
    rf"""{_COMMON} | (?P<quoted>"(?:[^"\\]++|\\.)*") | (?P<backslash>\\) | (?P<mark>.)""", re.DOTALL | re.VERBOSE
)
# Where a quote means nothing: in a comment, and behind the last one that closes.
_TOKEN_IN_COMMENT: Final = re.compile(
    rf"""{_COMMON} | (?P<backslash>\\[()\\]|\\) | (?P<mark>.)""", re.DOTALL | re.VERBOSE
)
_LABEL: Final = rf"[^\x00-\x2c\x2e\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f\s{_DOTS}{AT_SIGNS}{_APOSTROPHES}{_BETWEEN}]++"
_DOMAIN: Final = re.compile(rf"[{_DOTS}]*+({_LABEL}(?:[{_DOTS}]++{_LABEL})*)")
_DOMAIN_IN_BRACKETS: Final = re.compile(rf"""["'(<{{\[\\{_APOSTROPHES}]{{1,9}}({_LABEL}(?:[{_DOTS}]++{_LABEL})+)""")
_DOT: Final = re.compile(f"[{_DOTS}]")
_LITERAL: Final = re.compile(rf'\[(?:[^\[\]\\{AT_SIGNS}]++|\\.)*\]|\[[^\s\[\]<>",;{AT_SIGNS}]++', re.DOTALL)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_TO_ESCAPE: Final = re.compile(r'["\\]')
_ATOMS: Final = re.compile(r'[^\s"(),:;<>@\[\]\\]+')
# What may follow a domain of one label within a name or comment: `Kids@Home` is an address there, `na\me` is not.
_CLEAN_END: Final = re.compile(rf"\Z|[\s)\]>}},;:\"{_APOSTROPHES}{_BETWEEN}]|[.!?]+(?:\s|\Z)")
_CLOSING: Final = {"{": "}", **{mark: mark for mark in "`*|~/^#$%!+=-_"}}
_MAILTO: Final = re.compile(r"mailto:[^\s<>\"]++", re.IGNORECASE)
_MAILTO_KEY: Final = re.compile(r"[?&][^=&?\s]*+=")


def found(text: str) -> list[Found]:
    """Return what looks like an address to a person who reads `text`, in order; the same one may come twice."""
    places: list[tuple[int, Found]] = []
    texts = [(_readable(text), -1, "")]
    # Quoted strings are texts of their own, read in their turn. Each level of quoting doubles the backslashes of the
    # one below, so there are at most 16 in a field of 60,000 bytes, and the texts shrink.
    for inner, parent, within in texts:
        scan = Scan(inner, within)
        places.extend((parent if within else place, each) for place, each in scan.addresses())
        texts.extend((below, parent if within else place, part) for place, below, part in scan.quoted_texts())
    places.sort(key=lambda item: item[0])
    return [each for _, each in places]


def _readable(text: str) -> str:
    """What the field says once it is decoded: without encoded words, unseen marks and percent-encoding in links."""
    text = _UNSEEN.sub("", decoded(text))
    if "mailto:" in text.lower():
        text = _MAILTO.sub(lambda link: _MAILTO_KEY.sub(" ", unquote(link[0])), text)  # RFC 6068: ?to=a@x&cc=b@y
    return text


class _Domain(NamedTuple):
    """What stands to the right of an at sign."""

    text: str
    end: int
    """Where it ends in the text scanned."""
    strong: bool
    """Dotted, or a literal: what can be reached from outside."""
    blanks: bool
    """Blanks stand between it and the at sign (obsolete syntax: RFC 5322, 4.4)."""
    dotted: bool
    """It begins with a dot."""
    shorter: str
    """What a reader takes for the domain who does not join `x.test. example` to one name; else ""."""


class _Local(NamedTuple):
    """What stands to the left of an at sign."""

    text: str
    unquoted: str
    blanks: bool
    stray: bool
    """Marks stand in between that belong to neither: `alice>@x.test`."""
    borrowed: bool
    """It is the domain of the address before: `a@x.test@y.test`."""
    before: str
    """The character that it follows."""
    adjacent: bool
    """One word, directly before the at sign."""


class Scan:
    """One text, cut into words, blanks, at signs, quoted strings and single marks.

    `within` says what the text is the content of: "" a field, "name" a quoted string, "local part" one before an at
    sign.
    """

    def __init__(self, text: str, within: str = "") -> None:
        self.text = text
        self.within = within
        self.kinds: list[str] = []
        self.begins: list[int] = []
        self.partner: dict[int, int] = {}
        self.done = 0  # where the last address ended
        self._cut()
        self.begins.append(len(text))

    def _cut(self) -> None:
        text, kinds, begins, partner = self.text, self.kinds, self.begins, self.partner
        position, size, quotes, comments = 0, len(text), True, True
        opened: list[int] = []
        while position < size:
            pattern = _TOKEN if quotes and not (opened and comments) else _TOKEN_IN_COMMENT
            token = pattern.match(text, position)
            assert token is not None  # the last alternative takes any character
            kind = token.lastgroup or "mark"
            if kind == "mark":
                kind = text[position]
                if kind == "(":
                    opened.append(len(kinds))
                elif kind == ")" and opened:
                    partner[len(kinds)] = opened.pop()
                    partner[partner[len(kinds)]] = len(kinds)
                elif kind == '"' and pattern is _TOKEN:
                    quotes = False  # it closes nowhere, nor will a later one: looking again each time is quadratic
            kinds.append(kind)
            begins.append(position)
            position = token.end()
            if position == size and opened and comments:
                # A comment that never ends hides nothing: once more from there, this time with quotes in effect.
                comments, first = False, opened[0]
                position = begins[first] + 1
                del kinds[first + 1 :], begins[first + 1 :]
                for index in [index for index in partner if index > first]:
                    del partner[index]
                opened = []

    def holds_at_sign(self, tokens: list[int]) -> bool:
        return any(self.kinds[index] == "at" for index in tokens)

    def token(self, index: int) -> str:
        return self.text[self.begins[index] : self.begins[index + 1]]

    def quoted_texts(self) -> Iterator[tuple[int, str, str]]:
        """Yield the quoted strings that hold an at sign: where each begins, its content, what it is within."""
        for index, kind in enumerate(self.kinds):
            if kind != "quoted":
                continue
            content = self.token(index)[1:-1]
            if not any(mark in content for mark in AT_SIGNS):
                continue
            content = _PAIR.sub(r"\1", content)
            # Clients leave the quotes out: "alice@"x.test reads as an address.
            if content[0] in AT_SIGNS and index and self.kinds[index - 1] == "word":
                content = self.token(index - 1) + content
            if content[-1] in AT_SIGNS and self.kinds[index + 1 : index + 2] == ["word"]:
                content += self.token(index + 1)
            following, _ = self._skip(index + 1, 1)
            yield (
                self.begins[index],
                content,
                "local part" if self.kinds[following : following + 1] == ["at"] else "name",
            )

    def addresses(self) -> Iterator[tuple[int, Found]]:
        """Yield each address with the place of its at sign."""
        depth = 0
        for index, kind in enumerate(self.kinds):
            if kind in "()" and index in self.partner:
                depth += 1 if kind == "(" else -1
            elif kind == "at":
                domain = self._domain(index)
                local = domain and self._local(index, domain.end)
                if domain and local and self._is_address(local, domain, in_text=bool(self.within) or depth > 0):
                    self.done = domain.end
                    for name in filter(None, (domain.shorter, domain.text)):
                        yield self.begins[index], _spelled(local, name)

    def _is_address(self, local: _Local, domain: _Domain, *, in_text: bool) -> bool:
        if local.stray and self.text[domain.end : domain.end + 1] in (":", ","):
            return False  # a route: Alice<@relay.test:alice@x.test>
        if self.within == "local part" and (local.unquoted[-1:] in _DOTS or domain.dotted):
            return False  # "very.@.unusual"@x.test: odd, but no second address
        if domain.strong:
            return not ((local.blanks or domain.blanks) and in_text and local.before != "<")
        if local.blanks or domain.blanks or local.stray or local.borrowed or local.before in AT_SIGNS:
            return False
        if not (local.text.startswith('"') or any(map(str.isalnum, local.unquoted))):
            return False
        return not in_text or (local.adjacent and _CLEAN_END.match(self.text, domain.end) is not None)

    def _skip(self, index: int, step: int) -> tuple[int, bool]:
        """Go over blanks, comments and backslashes; return where that ends, and whether there were blanks."""
        kinds, blanks = self.kinds, False
        while 0 <= index < len(kinds):
            kind = kinds[index]
            if kind == "blank":
                blanks = True
            elif kind == (")" if step < 0 else "(") and index in self.partner:
                index = self.partner[index]
            elif kind != "backslash":
                break
            index += step
        return index, blanks

    # -- to the right of an at sign

    def _domain(self, at: int) -> _Domain | None:
        index, blanks = self._skip(at + 1, 1)
        kind = self.kinds[index] if index < len(self.kinds) else ""
        if kind == "word":
            name = _DOMAIN.match(self.text, self.begins[index], self.begins[index + 1])
            return name and self._joined(index, name, blanks)
        if kind == "[":
            literal = _LITERAL.match(self.text, self.begins[index])
            return literal and _Domain(literal[0], literal.end(), True, blanks, False, "")
        bracketed = _DOMAIN_IN_BRACKETS.match(self.text, self.begins[at + 1])
        return bracketed and _Domain(bracketed[1].rstrip("-_"), bracketed.end(), True, False, False, "")

    def _joined(self, index: int, name: re.Match[str], blanks: bool) -> _Domain | None:
        """Join the labels of `machine(comment). example`, obsolete but legal, to one domain."""
        text, end, shorter = name[1], name.end(), ""
        dotted_first = name.start(1) > name.start()
        while not self.text[end : self.begins[index + 1]].strip(_DOTS):
            dotted = end < self.begins[index + 1]
            following, apart = self._skip(index + 1, 1)
            if self.kinds[following : following + 1] == ["word"] and not self.token(following).strip(_DOTS):
                following, more = self._skip(following + 1, 1)  # a dot that stands alone
                dotted, apart = True, apart or more
            if following >= len(self.kinds) or self.kinds[following] != "word":
                break
            begin, stop = self.begins[following], self.begins[following + 1]
            if not (dotted or self.text[begin] in _DOTS) or self.kinds[following + 1 : following + 2] == ["at"]:
                break
            label = _DOMAIN.match(self.text, begin, stop)
            if label is None:
                break
            if apart and not shorter and _DOT.search(text):
                shorter = text
            text, end, index = f"{text}.{label[1]}", label.end(), following
        trimmed = text.rstrip("-_" + _JOINERS)
        if not trimmed:
            return None
        return _Domain(
            trimmed, end - (len(text) - len(trimmed)), bool(_DOT.search(trimmed)), blanks, dotted_first, shorter
        )

    # -- to the left of an at sign

    def _local(self, at: int, domain_end: int) -> _Local | None:
        index, blanks = self._skip(at - 1, -1)
        stray = False
        while index >= 0 and self.kinds[index] not in ("word", "quoted"):
            if blanks or self.kinds[index] in ("at", "blank", ",", ";", ":"):
                return None
            stray = True
            index -= 1
        if index < 0:
            return None
        adjacent = index == at - 1
        if self.begins[index] < self.done:
            left = self.text[self.done : self.begins[index + 1]].lstrip("!#$%&'*+/=?^_`{|}~.-")
            if not left and blanks:
                return None
            word = left or self.token(index)
            return _Local(word, word, blanks, stray, not left, "\n", adjacent)
        first = self._first_word(index)
        before = self.text[self.begins[first] - 1] if first else "\n"
        if first == index and self.kinds[index] == "word":
            word = _unwrapped(self.token(index), self.text[domain_end : domain_end + 1])
            return _Local(word, word, blanks, stray, False, before, adjacent) if word else None
        words = [each for each in range(first, index + 1) if self.kinds[each] in ("word", "quoted", "backslash")]
        unquoted = "".join(map(self.unquoted, words))
        if len(words) == 1:
            text = self.token(index).replace("\r", "").replace("\n", "")
        else:
            text = unquoted if _ATOMS.fullmatch(unquoted) else '"' + _TO_ESCAPE.sub(r"\\\g<0>", unquoted) + '"'
        return _Local(text, unquoted, blanks, stray, False, before, False)

    def _first_word(self, last: int) -> int:
        """Go left over the words of an obsolete local part: `pete . (x) "smith"`, `a."b c"`."""
        first = last
        while first > 0:
            index, _ = self._skip(first - 1, -1)
            if index < 0 or self.kinds[index] not in ("word", "quoted") or self.begins[index] < self.done:
                break
            dotted = self.text[self.begins[first]] == "." or self.text[self.begins[index + 1] - 1] == "."
            between = set(self.kinds[index + 1 : first])
            glued = between == {"backslash"} or (not between and self.kinds[last] == "quoted")
            if not (dotted or glued):
                break
            first = index
        return first

    def unquoted(self, index: int) -> str:
        token = self.token(index)
        if self.kinds[index] != "quoted":
            return token
        return _PAIR.sub(r"\1", token[1:-1]).replace("\r", "").replace("\n", "")


def _unwrapped(word: str, follower: str) -> str:
    """Take off what was written around the address: 'a@x', *a@x*."""
    word = word.strip(_JOINERS)
    bare = word.lstrip(_APOSTROPHES)
    if bare != word:
        return bare.rstrip(_APOSTROPHES)
    if len(word) > 1 and follower and _CLOSING.get(word[0]) == follower:
        return word[1:]
    return word


def _spelled(local: _Local, domain: str) -> Found:
    name = local.unquoted.casefold()
    if not name.isascii() and len(name) <= LONGEST_NAME:  # normalising is quadratic in a run of combining marks
        name = unicodedata.normalize("NFC", name)
    return f"{local.text}@{domain}", name, to_ascii(domain)
