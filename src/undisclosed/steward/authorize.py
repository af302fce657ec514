"""Checks requests against the policy. Every program that can write to the journal can add them: none is trusted."""

from __future__ import annotations

from datetime import datetime
from typing import Final, get_args

from undisclosed.incidents.records import STEWARD, Incident, QueueCopy, ReleaseMode, Request
from undisclosed.policy import Policy
from undisclosed.steward.privileged import QUEUE_ID

SENDER: Final = "sender"
"""The first word of the actor of a sender's requests: `sender`, or `sender ADDRESS`."""

MODES: Final[tuple[ReleaseMode, ...]] = get_args(ReleaseMode)


def why_refused(policy: Policy, request: Request, incident: Incident) -> str | None:
    """The reason why a request must not be carried out; None if it may be."""
    if request.incident_id != incident.id:
        return "the request belongs to another incident"
    copy = next((copy for copy in incident.copies if copy.id == request.copy_id), None)
    if copy is None:
        return "the copy belongs to another incident"
    if why := why_copy_refused(copy):
        return why
    if request.verb == "delete" and request.mode is None:
        return _why_not_allowed(policy, request, copy, "delete")
    if request.verb == "release" and request.mode in MODES:
        return _why_not_allowed(policy, request, copy, request.mode)
    return (
        f"{_shown(request.verb)} with the mode {_shown(request.mode)} is not a request:"
        f" only delete, and release as {', '.join(MODES)}"
    )


def _why_not_allowed(policy: Policy, request: Request, copy: QueueCopy, choice: str) -> str | None:
    actor = request.actor.partition(" ")[0]
    if not request.actor.strip():
        return "the request names no actor"
    if actor == SENDER and choice not in policy.hold.sender_may:
        return f"hold.sender_may does not allow senders to choose {choice}"
    if choice == "unchanged" and actor != SENDER and not request.reason.strip():
        return "a release as unchanged shows the list, and needs a reason"
    if actor == STEWARD and copy.action.effect.release_mode != choice:
        return f"no rule asks for {choice}"
    if actor == STEWARD and copy.waits is not None:
        return f"it waits for a person: {copy.waits}"
    return None


def not_before(policy: Policy, request: Request, copy: QueueCopy) -> datetime | None:
    """The earliest time to carry out a request; None: at once.

    Delayed mail waits for `hold.delay` at least, even if the steward's own request in the journal has an earlier time.
    """
    times = (release_time(policy, copy) if request.actor == STEWARD else None, request.not_before)
    return max(filter(None, times), default=None)


def release_time(policy: Policy, copy: QueueCopy) -> datetime | None:
    """The earliest time of the release that the copy's rule asks for; None: at once."""
    return copy.arrived + policy.hold.delay if copy.action.effect.waits else None


def why_copy_refused(copy: QueueCopy) -> str | None:
    """The reason why nothing can be done to a copy; None if there is none."""
    if not QUEUE_ID.fullmatch(copy.queue_id):
        return f"{_shown(copy.queue_id)} is not a queue id"
    return None


def _shown(value: object) -> str:
    """A value from the journal, shortened and in ASCII."""
    return ascii(value)[:60] if value is not None else "none"
