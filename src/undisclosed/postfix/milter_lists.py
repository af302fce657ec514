"""Postfix's milter lists: their elements, and a list with our milter first or without it.

Values in, values out. The syntax is that of smtpd_milters (postconf(5), MILTER_README): milters separated by blanks or
commas, each one a bare `inet:HOST:PORT` or `unix:PATH`, or a group `{ inet:HOST:PORT, key=value, ... }`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from undisclosed.policy.types import Socket

TIMEOUTS = ("connect_timeout=10s", "command_timeout=30s", "content_timeout=60s")
"""Attributes that attach writes beside default_action. Our milter answers within milliseconds; with Postfix's own 300 s
a hung one would keep each client waiting for five minutes before it is told to try again later."""

_SEPARATORS = " \t\r\n,"


class ListError(ValueError):
    """A milter list that Postfix could not read either; the text says why."""


class UnwritableSocket(ValueError):
    """A socket that cannot be written in a milter list; the text says why."""


class Milter(NamedTuple):
    """One element of a milter list: its text, where it listens, and the attributes of its group."""

    text: str
    endpoint: str
    attributes: tuple[tuple[str, str], ...] = ()

    def attribute(self, name: str) -> str | None:
        """The last value given to an attribute of the group, which is the one that Postfix takes."""
        return dict(self.attributes).get(name)


class ListEdit(NamedTuple):
    """A new value for a milter list. `written_out`: its variables had to be replaced by their values."""

    value: str
    written_out: bool = False


def milters(value: str) -> list[Milter]:
    """The elements of a milter list, in order. A variable in a value that is not expanded counts as an element.

    Raises ListError where braces do not match or a group is empty.
    """
    return [_milter(text) for text in split(value)]


def split(value: str) -> list[str]:
    """The elements of a list: blanks and commas in braces do not separate. Raises ListError."""
    parts, start, depth = [], -1, 0
    for place, char in enumerate(value):
        if char in _SEPARATORS and depth == 0:
            if start >= 0:
                parts.append(value[start:place])
            start = -1
            continue
        start = place if start < 0 else start
        depth += (char == "{") - (char == "}")
        if depth < 0:
            raise ListError(f"a }} without its {{ in {value!r}")
    if depth:
        raise ListError(f"a {{ without its }} in {value!r}")
    return [*parts, value[start:]] if start >= 0 else parts


def _milter(text: str) -> Milter:
    if not text.startswith("{"):
        return Milter(text, text)
    parts = split(text[1:-1]) if text.endswith("}") else []
    if not parts:
        raise ListError(f"{text!r} names no milter")
    pairs = (part.strip("{} \t").partition("=") for part in parts[1:])
    return Milter(text, parts[0], tuple((name.strip(), value.strip()) for name, _, value in pairs))


def _pair(name: str, value: str) -> str:
    return f"{{ {name} = {value} }}" if re.search(r"[\s,]", value) else f"{name}={value}"


@dataclass(frozen=True)
class OurMilter:
    """Our milter as Postfix knows it.

    `endpoint` is what attach writes; `spellings` are the canonical endpoints that lead to the same socket, and those
    that attach wrote before the socket moved; `default_action` is what Postfix does while our milter does not answer.
    """

    endpoint: str
    spellings: frozenset[str]
    default_action: str

    @property
    def element(self) -> str:
        """The group that attach writes."""
        return f"{{ {', '.join((self.endpoint, f'default_action={self.default_action}', *TIMEOUTS))} }}"

    def matches(self, milter: Milter) -> bool:
        """Whether an element of a list is our milter."""
        return canonical(milter.endpoint) in self.spellings

    def is_current(self, milter: Milter) -> bool:
        """Whether an element has the endpoint and the default_action that attach would write."""
        same_endpoint = canonical(milter.endpoint) == canonical(self.endpoint)
        return same_endpoint and milter.attribute("default_action") == self.default_action

    def corrected(self, milter: Milter) -> str:
        """The element with our endpoint and default_action; its other attributes stay."""
        kept = [_pair(name, value) for name, value in milter.attributes if name != "default_action"]
        if not kept:
            return self.element
        return f"{{ {', '.join((self.endpoint, f'default_action={self.default_action}', *kept))} }}"


def our_milter(
    socket: Socket,
    queue_directories: Iterable[str],
    default_action: str,
    *,
    resolved: str = "",
    formerly: Iterable[str] = (),
) -> OurMilter:
    """Our milter for a socket in libmilter's terms and the queue directory of one Postfix instance.

    A unix socket below the queue directory is written relative to it: smtpd and cleanup run chrooted there or have it
    as their working directory, so that name is right in both (MILTER_README, "unix:pathname"). `queue_directories` and
    `resolved` are names of the queue directory and of the socket, with and without symbolic links; `formerly` are
    earlier endpoints. Raises UnwritableSocket where Postfix has no way to write the name.
    """
    if socket.family == "unix":
        names = _unix_names(str(socket.path), resolved, queue_directories)
    else:
        names = _inet_names(socket)
    if re.search(r"[\s,{}$]", names[0]):
        raise UnwritableSocket(f"{names[0]!r} has a blank, a comma, a brace or a $, which a milter list cannot have")
    return OurMilter(names[0], frozenset(canonical(name) for name in (*names, *formerly)), default_action)


def _unix_names(path: str, resolved: str, queue_directories: Iterable[str]) -> list[str]:
    names = []
    for directory in queue_directories:
        for name in filter(None, (path, resolved)):
            inside = posixpath.relpath(name, directory)
            if not inside.startswith(".."):
                names += [f"unix:{inside}", f"unix:/{inside}"]
    return [*names, f"unix:{path}", *([f"unix:{resolved}"] if resolved else [])]


def _inet_names(socket: Socket) -> list[str]:
    host = socket.host.strip("[]")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - nothing is bound: this reads what an administrator wrote
        host = "::1" if socket.family == "inet6" else "127.0.0.1"
    return [f"inet:[{host}]:{socket.port}" if ":" in host else f"inet:{host}:{socket.port}"]


def canonical(endpoint: str) -> str:
    """An endpoint in one spelling: `local:` is `unix:`, a path has no detours, localhost is 127.0.0.1."""
    family, _, rest = endpoint.partition(":")
    if family in ("unix", "local"):
        return f"unix:{posixpath.normpath(rest)}"
    if family != "inet":
        return endpoint
    host, _, port = rest.rpartition(":")
    host = host.strip("[]").casefold()
    return f"inet:{'127.0.0.1' if host in ('', 'localhost') else host}:{port}"


def with_ours_first(raw: str, expanded: str, ours: OurMilter) -> ListEdit | None:
    """A milter list with our milter first and only once, or None if it is so already.

    `raw` is the value as main.cf has it, `expanded` the same with its variables replaced. Other elements stay as they
    are written, unless a variable brings our milter in at another place: then all variables are replaced by their
    values. Raises ListError.
    """
    now, written = milters(expanded), milters(raw)
    found = [milter for milter in now if ours.matches(milter)]
    if len(found) == 1 and now[0] is found[0] and ours.is_current(now[0]):
        return None
    others = [milter.text for milter in written if not ours.matches(milter)]
    hidden = len(written) - len(others) != len(found)
    if hidden:
        rest = ", ".join(milter.text for milter in now if not ours.matches(milter))
    else:
        rest = ", ".join(others) if found else raw.strip(_SEPARATORS)
    head = ours.corrected(found[0]) if found else ours.element
    return ListEdit(f"{head}, {rest}" if rest else head, written_out=hidden)


def without_ours(raw: str, ours: OurMilter) -> str:
    """A milter list without our milter; the same text if our milter is not in it. Raises ListError."""
    written = milters(raw)
    others = [milter.text for milter in written if not ours.matches(milter)]
    return raw if len(others) == len(written) else ", ".join(others)
