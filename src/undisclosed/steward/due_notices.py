"""Adds notices to the journal. notices/dispatch.py sends them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from undisclosed.incidents.records import Incident, NoticeKind, QueueCopy, State
from undisclosed.journal.journal import Journal
from undisclosed.policy import Policy
from undisclosed.steward.context import Context

FIRST_LOOK_BACK: Final = timedelta(days=1)
"""The age of delivered messages that still get a notice when the steward starts."""

LOOK_BACK: Final = timedelta(minutes=10)
"""The same in all later rounds."""


class DueNotices:
    """Adds each kind of notice once for each incident.

    Remembers what was added, so that a round need not ask the journal about every held message.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._added: set[tuple[int, NoticeKind]] = set()
        self._looked_back = False

    def add(self, policy: Policy, incident: Incident, kind: NoticeKind, now: datetime) -> None:
        """Add a notice, if the policy wants notices after the incident's action."""
        if incident.action in policy.notices.after:
            self._journal.notices.add(incident.id, kind, now)
        self._added.add((incident.id, kind))

    def add_for_copy(self, policy: Policy, copy: QueueCopy, kind: NoticeKind, now: datetime) -> None:
        """The same for the incident of a copy, unless it was added before."""
        if (copy.incident_id, kind) not in self._added:
            self.add(policy, self._journal.incidents.get(copy.incident_id), kind, now)

    def add_for_delivered(self, context: Context, now: datetime) -> None:
        """Add the notices about messages that were delivered, rewritten or with a warning."""
        since = now - (LOOK_BACK if self._looked_back else FIRST_LOOK_BACK)
        for incident in self._journal.incidents.search(since=since, states=[State.DELIVERED]):
            kind = incident.action.effect.notice_when("delivered")
            if kind and (incident.id, kind) not in self._added and _is_first_gateway(context, incident):
                self.add(context.policy, incident, kind, now)
        self._looked_back = True

    def forget(self) -> None:
        """Empty the memory, so that it does not grow for ever: the journal refuses a second notice of one kind."""
        self._added.clear()


def _is_first_gateway(context: Context, incident: Incident) -> bool:
    """Whether this gateway recorded the message first: only that one adds the notice."""
    return min(incident.copies, key=lambda copy: copy.id).gateway == context.gateway
