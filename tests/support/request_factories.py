"""One held message as the journal has it, and a request to release it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from undisclosed.incidents.records import Incident, QueueCopy, Request, State
from undisclosed.policy import Action

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COPY = QueueCopy(
    id=1, incident_id=7, gateway="mx1", queue_id="4jXkbq5QPvzJ9sp", message_id="<1@council.test>", client="127.0.0.1",
    recipients=3, state=State.HELD, arrived=NOW - timedelta(hours=1), size=1000,
)  # fmt: skip
INCIDENT = Incident(
    id=7, reference="K7QF-3M2D", at=NOW, sender="clerk@council.test", message_id="<1@council.test>", adopted=False,
    rule="r", action=Action.DELAY, reason="", obstacle=None, obstacle_kind=None,
    count=12, organisations=12, named=0, per_field={},
    subject=None, automatic=False, copies=(COPY,),
)  # fmt: skip
REQUEST = Request(
    id=1, incident_id=7, copy_id=None, verb="release", mode="bcc", actor="admin", reason="", state="open", answer=None,
    at=NOW, not_before=None,
)  # fmt: skip
