"""One held message as the journal has it, and a request to release it."""

from __future__ import annotations

from datetime import UTC, datetime

from undisclosed.incidents.records import Incident, QueueCopy, Request, State
from undisclosed.policy import Action

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COPY = QueueCopy(
    id=1, incident_id=7, gateway="mx1", queue_id="4jXkbq5QPvzJ9sp", message_id="<1@council.test>", client="127.0.0.1",
    recipients=3, recipients_hash="1f", rule="r", action=Action.DELAY, reason="",
    state=State.HELD, arrived=NOW, size=1000,
)  # fmt: skip
INCIDENT = Incident(
    id=7, reference="K7QF-3M2D", identity="1f", at=NOW, sender="clerk@council.test", author="clerk@council.test",
    login="", message_id="<1@council.test>",
    count=12, organisations=12, named=0, per_field={},
    subject=None, automatic=None, copies=(COPY,),
)  # fmt: skip
REQUEST = Request(
    id=1, incident_id=7, copy_id=1, verb="release", mode="bcc", actor="admin", reason="", state="open", answer=None,
    at=NOW, not_before=None,
)  # fmt: skip
