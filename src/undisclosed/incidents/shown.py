"""Whether anybody saw the list: the recipients who got a message with its visible addresses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from undisclosed.incidents.records import AcceptedPart, QueueCopy, State, places_served
from undisclosed.policy import Action


class Shown(NamedTuple):
    """The number of recipients who saw, or may have seen, the list; and the same in words."""

    recipients: int
    words: str


_WITH_LIST: Final = frozenset({State.MONITORED, State.RELEASED_BY_HAND})
"""States of a copy that went out as it was."""


class _Seen(NamedTuple):
    """Numbers of recipients of one copy, or of several: who saw the list, may have seen it, got the message without."""

    shown: int = 0
    perhaps: int = 0
    hidden: int = 0
    recipients: int = 0
    open: int = 0
    """Those of copies that are still held."""


def shown(copies: Iterable[QueueCopy], parts: Mapping[int, Collection[AcceptedPart]]) -> Shown:
    """The recipients who saw the list of an incident, by its copies and the parts of their releases.

    A repeat has the recipients of the copy that it repeats: they are counted once. Where nothing says what became of a
    copy, its recipients may have seen the list.
    """
    groups: dict[int, _Seen] = {}
    for copy in copies:
        seen, first = _seen(copy, parts.get(copy.id, ())), copy.repeat_of or copy.id
        groups[first] = _worse(groups[first], seen) if first in groups else seen
    total = _Seen(*(sum(numbers) for numbers in zip(*groups.values(), strict=True)))
    return Shown(total.shown + total.perhaps, _words(total))


def _seen(copy: QueueCopy, parts: Collection[AcceptedPart]) -> _Seen:
    everybody = copy.recipients
    if copy.state in _WITH_LIST or (copy.state is State.DELIVERED and copy.action is Action.WARN):
        return _Seen(shown=everybody, recipients=everybody)
    if copy.state is State.GONE or (copy.state is State.RELEASED and not parts):
        return _Seen(perhaps=everybody, recipients=everybody)
    if copy.state is State.DELIVERED:
        return _Seen(hidden=everybody, recipients=everybody)
    return _Seen(
        shown=_served(copy, [part for part in parts if part.mode == "unchanged"]),
        hidden=_served(copy, [part for part in parts if part.mode != "unchanged"]),
        recipients=everybody,
        open=everybody if copy.is_open else 0,
    )


def _served(copy: QueueCopy, parts: Collection[AcceptedPart]) -> int:
    """The envelope recipients that these parts went to. The held file may have more, by aliases, or fewer."""
    places, total = len(places_served(parts)), max((part.total for part in parts), default=0)
    return copy.recipients if places == total > 0 else min(places, copy.recipients)


def _worse(one: _Seen, other: _Seen) -> _Seen:
    return max(one, other, key=lambda seen: (seen.shown + seen.perhaps, seen.shown, seen.hidden, seen.open))


def _words(seen: _Seen) -> str:
    if seen.perhaps:
        return f"perhaps shown to {_of(seen.shown + seen.perhaps, seen.recipients)}: nothing says what became of it"
    if seen.shown:
        return f"shown to {_of(seen.shown, seen.recipients)}"
    if seen.hidden:
        return f"hidden from {_of(seen.hidden, seen.recipients)}"
    return "nobody has received it yet" if seen.open else "nobody received it"


def _of(some: int, everybody: int) -> str:
    if some < everybody:
        return f"{some} of its {everybody} recipients"
    return f"its {everybody} recipients" if everybody != 1 else "its recipient"
