"""Released mail that comes back on hold: a content filter hands it to a listener that has this milter as well.

The same message to the same recipients, on hold again within a minute of its release. While a filter works on it, the
answer to a person's request waits: otherwise the command would say "released" of mail that nobody gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from undisclosed.incidents.records import CLOCK_ERROR, OPEN, Incident, QueueCopy, Request
from undisclosed.journal.journal import Journal
from undisclosed.steward.context import Context

RECOGNISED_WITHIN: Final = timedelta(minutes=1)
"""The time after a release in which a held copy of the message is taken for the released one."""

ANSWERED_AFTER: Final = timedelta(seconds=10)
"""The time for which the answer to a person waits while a content filter has the message."""


@dataclass(frozen=True, slots=True)
class Released:
    """A copy that was released, by this request."""

    request: Request
    incident: Incident
    copy: QueueCopy
    at: datetime
    listener_filter: str
    """The content filter that it was given to; empty for none."""
    why: str
    """The answer, if it does not come back."""

    def why_again(self, copy: QueueCopy) -> str:
        """The answer when it is on hold again as this copy."""
        text = f"it was released as {self.request.mode}, and is on hold again as {copy.queue_id}"
        if not self.listener_filter:
            return text
        return (
            f"{text}: the content filter {self.listener_filter} gives mail to a listener that has this milter too;"
            " `undisclosed postfix status` names it"
        )


class PutBack:
    """Looks for released copies that are on hold again, and knows the answers that wait for that."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._released: dict[int, Released] = {}
        self._waiting: set[int] = set()

    def watch(self, released: Released, *, answer_waits: bool) -> None:
        """Look for this copy from now on."""
        self._released[released.request.id] = released
        if answer_waits:
            self._waiting.add(released.request.id)

    def waits(self, request_id: int) -> bool:
        """Whether the answer to a request waits."""
        return request_id in self._waiting

    @property
    def any_waits(self) -> bool:
        """Whether an answer waits."""
        return bool(self._waiting)

    def found(self, context: Context, now: datetime) -> Iterator[tuple[Released, QueueCopy]]:
        """The released copies that are on hold again; each is found once."""
        if not self._released:
            return
        copies = self._journal.incidents.copies(gateway=context.gateway, states=OPEN)
        for request_id, released in list(self._released.items()):
            again = next((copy for copy in copies if self._is_again(released, copy)), None)
            if again is not None:
                yield released, again
                # After the answer: where it cannot be recorded, the next round finds the copy again. The answer to a
                # person would otherwise wait for ever.
                del self._released[request_id]
            elif request_id not in self._waiting and abs(now - released.at) > RECOGNISED_WITHIN:
                del self._released[request_id]

    def due(self, now: datetime) -> Iterator[Released]:
        """The releases whose answer need not wait any longer."""
        for request_id in list(self._waiting & self._released.keys()):
            if abs(now - self._released[request_id].at) >= ANSWERED_AFTER:
                yield self._released[request_id]

    def answered(self, request_id: int) -> None:
        """The request has its answer."""
        self._waiting.discard(request_id)

    def _is_again(self, released: Released, copy: QueueCopy) -> bool:
        before = released.copy
        return (
            copy.id > before.id
            and copy.message_id == before.message_id
            and copy.recipients_hash == before.recipients_hash
            and copy.arrived >= released.at - CLOCK_ERROR
            and self._journal.incidents.get(copy.incident_id).identity == released.incident.identity
        )
