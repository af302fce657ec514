"""The addresses that a person can still read in a delivered header, by plain expressions, without product code."""

from __future__ import annotations

import re
from collections.abc import Collection
from email.header import decode_header

RECIPIENT_FIELDS = frozenset(
    (
        "to",
        "cc",
        "bcc",
        "resent-to",
        "resent-cc",
        "resent-bcc",
        "apparently-to",
        "reply-to",
        "mail-followup-to",
    )
)
INTERNAL = ("council.test", "city.test")

_ADDRESS = re.compile(r"""([^\s<>()\[\],;:"'@]*)["\s]*@\s*([\w.\[:-]*)""")


def leaks(header: bytes, *, internal: Collection[str] = INTERNAL, author: str = "") -> list[str]:
    """The faults in the header of a message whose recipients were hidden; empty if there are none.

    `internal`: the domains, with all below them, whose addresses may be visible. `author`: an address that may be in
    Reply-To. There must be one To, no Bcc, and no other address in any recipient field, raw or decoded (RFC 2047).
    """
    names = [name for name, _ in _fields(header)]
    found = [] if names.count("to") == 1 else [f"{names.count('to')} To fields"]
    found += [f"a {name} field" for name in names if name in ("bcc", "resent-bcc")]
    for name, value in _fields(header):
        if name in RECIPIENT_FIELDS:
            seen = {pair for text in (value, _decoded(value)) for pair in _ADDRESS.findall(text)}
            found += sorted(
                f"{name}: {local}@{domain}"
                for local, domain in seen
                if not _is_below(domain, internal)
                and not (name == "reply-to" and f"{local}@{domain}".lower() == author.lower())
            )
    return found


def _fields(header: bytes) -> list[tuple[str, str]]:
    lines = (line.partition(":") for line in _unfolded(header).split("\n"))
    return [(name.strip().lower(), value) for name, _, value in lines]


def _unfolded(header: bytes) -> str:
    text = header.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    return re.sub(r"\n([ \t])", r"\1", text.partition("\n\n")[0])


def _decoded(value: str) -> str:
    return "".join(
        part.decode(charset or "latin-1", "replace") if isinstance(part, bytes) else part
        for part, charset in decode_header(value)
    )


def _is_below(domain: str, parents: Collection[str]) -> bool:
    name = domain.strip(".").lower()
    return any(name == parent or name.endswith(f".{parent}") for parent in parents)
