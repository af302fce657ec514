"""What stands against a request in the journal. Whoever can write there can wish anything: none is taken on trust."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from undisclosed.incidents.records import Incident, QueueCopy, Request
from undisclosed.policy import Action, Policy
from undisclosed.steward.privileged import QUEUE_ID

STEWARD: Final = "steward"
"""The actor of what a rule asks for."""

SENDER: Final = "sender"
"""The beginning of the actor of what a message's own sender asks for: `sender`, or `sender ADDRESS`."""

WAYS: Final = ("bcc", "split", "unchanged")


def refusal(policy: Policy, request: Request, incident: Incident) -> str | None:
    """Why a request must not be carried out, whatever it means to; None where nothing stands against it."""
    if request.incident_id != incident.id:
        return "the request belongs to another incident"
    if request.copy_id is not None and request.copy_id not in {copy.id for copy in incident.copies}:
        return "the copy that is meant belongs to another incident"
    if request.verb == "delete":
        wanted = "delete"
        if request.mode is not None:
            return "to delete there are no ways"
    elif request.verb == "release" and request.mode in WAYS:
        wanted = request.mode
    else:
        return f"nobody can ask for {_words(request.verb)} {_words(request.mode)}"
    return _not_allowed(policy, request, incident, wanted)


def _not_allowed(policy: Policy, request: Request, incident: Incident, wanted: str) -> str | None:
    actor = request.actor.partition(" ")[0]
    if not request.actor.strip():
        return "nobody is named who asks for it"
    if actor == SENDER and wanted not in policy.hold.sender_may:
        return f"hold.sender_may does not let senders choose {wanted}"
    if actor == STEWARD and incident.action.effect.released_as != wanted:
        return f"no rule asks for {wanted}"
    return None


def not_before(policy: Policy, request: Request, incident: Incident) -> datetime | None:
    """When a request may be carried out; None: at once. What a rule delays waits for hold.delay, whatever it says."""
    if request.actor == STEWARD and incident.action is Action.DELAY:
        earliest = incident.at + policy.hold.delay
        return max(earliest, request.not_before or earliest)
    return request.not_before


def copy_refusal(copy: QueueCopy) -> str | None:
    """Why nothing can be done to a copy; None where nothing stands against it."""
    if not QUEUE_ID.fullmatch(copy.queue_id):
        return f"{_words(copy.queue_id)} is no queue id"
    return None


def _words(value: object) -> str:
    return ascii(value)[:60] if value is not None else "no way"
