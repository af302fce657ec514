"""line_numbers.py: the line of each key, in every form of TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from undisclosed.config.line_numbers import Path, key_lines

DOCUMENT = """\
mode = "x" # [not] a section

[organisation]
"na\\u006De" = "text with ] and \\" and # in it"
internal_domains = [ # a comment with ]
    "a.test",
    \"\"\"b]
[rules]
.test\"\"\", 'c"]#',

    ["d.test"], { e = 1,  f.g = [2, 3] }
]
[[rules]]
name = 'one'
[rules.limits]
addresses = 1_0.5
[[rules]]
name = '''
two'''
[[rules.more]]
[[rules.more]]
when = 1979-05-27 07:32:00Z
"""


def paths(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The path and the value of each entry that tomllib reads."""
    if path:
        yield path, value
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(one, (*path, name))


def test_each_key_and_entry_has_its_line() -> None:
    """Sections, repeated ones, dotted and quoted keys, lists over lines, tables in lists, all kinds of strings."""
    expected = {
        ("mode",): 1,
        ("organisation",): 3,
        ("organisation", "name"): 4,
        ("organisation", "internal_domains"): 5,
        ("organisation", "internal_domains", 0): 6,
        ("organisation", "internal_domains", 1): 7,
        ("organisation", "internal_domains", 2): 9,
        ("organisation", "internal_domains", 3): 11,
        ("organisation", "internal_domains", 3, 0): 11,
        ("organisation", "internal_domains", 4): 11,
        ("organisation", "internal_domains", 4, "e"): 11,
        ("organisation", "internal_domains", 4, "f"): 11,
        ("organisation", "internal_domains", 4, "f", "g"): 11,
        ("organisation", "internal_domains", 4, "f", "g", 0): 11,
        ("organisation", "internal_domains", 4, "f", "g", 1): 11,
        ("rules",): 13,
        ("rules", 0): 13,
        ("rules", 0, "name"): 14,
        ("rules", 0, "limits"): 15,
        ("rules", 0, "limits", "addresses"): 16,
        ("rules", 1): 17,
        ("rules", 1, "name"): 18,
        ("rules", 1, "more"): 20,
        ("rules", 1, "more", 0): 20,
        ("rules", 1, "more", 1): 21,
        ("rules", 1, "more", 1, "when"): 22,
    }
    assert expected == key_lines(DOCUMENT)


def test_a_file_without_keys_has_no_lines() -> None:
    """A file of comments, or an empty one."""
    assert {} == key_lines("") == key_lines("# mode = 1\n\n")


class Writer:
    """Writes a random TOML document in which each value contains a number of its own."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.count = 0

    def number(self) -> int:
        self.count += 1
        return 1000 + self.count

    def key(self, serial: int) -> str:
        shapes = ("k@", "'k [@] # ='", '"k\\u00e9\\t\\U0001F4E7\\".@"', "@", "-@_", "a@.b.'c.@'")
        return self.draw(st.sampled_from(shapes)).replace("@", str(serial))

    def value(self, depth: int = 0, inline: bool = False) -> str:
        kind = self.draw(st.sampled_from(["scalar"] * 4 + ([] if depth > 2 else ["list", "table"])))
        if kind == "scalar":
            return self.scalar(inline)
        size = self.draw(st.integers(0, 3))
        if kind == "table":
            pairs = [f"{self.key(place)} = {self.value(depth + 1, inline=True)}" for place in range(size)]
            return "{ " + ", ".join(pairs) + " }"
        gap = "" if inline else self.draw(st.sampled_from(["", " ", "\n", " # ]\n\n\t"]))
        entries = [self.value(depth + 1, inline) for _ in range(size)]
        return "[" + gap + f"{gap},{gap}".join(entries) + gap + ("," if entries and gap else "") + "]"

    def scalar(self, inline: bool) -> str:
        shapes = ["@", "-@", "@.5e3", "0x@", "@-01-01 10:00:00.5Z", r'"x@\\"', r'"\"] # @"', "'@\"\\'", '""" "" @"""""']
        if not inline:
            shapes += ['"""@\n]] # \\" \'\'\'\n[x]"""', "'''@ \n\"\"\" } '''''", '"""@\\\n  \n"""""']
        return self.draw(st.sampled_from(shapes)).replace("@", str(self.number()))

    def document(self) -> str:
        lines = []
        for section in range(self.draw(st.integers(0, 5))):
            header = self.draw(st.sampled_from(["[s{0}]", "[ s{0} . 't.[u]' ] # x", "[[r]]", "[[r]]\n[r.s]\n[[r.t]]"]))
            if section:
                lines.append(header.format(section))
            for serial in range(self.draw(st.integers(0, 4))):
                lines += [""] * self.draw(st.integers(0, 1))
                lines.append(f"{self.key(serial)} = {self.value()}{self.draw(st.sampled_from(['', ' # ] } =']))}")
        return "\n".join(lines)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A TOML document as `Writer` writes it."""
    return Writer(draw).document()


@given(documents())
def test_every_path_has_the_line_of_its_value(text: str) -> None:
    """tomllib gives the paths; the number in a value gives its line."""
    places = dict(paths(tomllib.loads(text)))
    lines = key_lines(text)
    assert set(places) == set(lines)
    shown = text.split("\n")
    for path, value in places.items():
        if not isinstance(value, dict | list):
            shape = f"0x{value:x}" if isinstance(value, int) and f"0x{value:x}" in text else str(value)
            number = re.search(r"1\d\d\d", shape)
            assert number is not None
            assert number[0] in shown[lines[path] - 1]
