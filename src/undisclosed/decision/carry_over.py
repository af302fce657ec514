"""Decisions of Postfix about a held message that a release cannot carry over.

A release hands the message to Postfix a second time, over SMTP. SMTP carries the envelope and its DSN parameters. Of
the other records in the queue file, REDIRECT is carried over by the steward, and content_filter by the private listener
if it sets the same one. A message with any other decision is not released: it would go where Postfix was told not to
send it, or in a form that its sender did not ask for. docs/held-mail.md has all records.
"""

from __future__ import annotations

from typing import Final

from undisclosed.decision.queue_file import QueuedMessage

_PROBE: Final = 1 << 8 | 1 << 9
"""`trace_flags` of a message that only tests addresses, as `sendmail -bv` makes one (deliver_request.h)."""

_SMTPUTF8: Final = 0b1111
_TLS_NOT_REQUIRED: Final = 1 << 4
"""From the header field TLS-Required, which the listener's cleanup reads again (sendopts.h)."""
_TLS_REQUIRED: Final = 1 << 5

SEND_AGAIN: Final = "delete it, and ask its sender to send it again with the recipients in Bcc"


def needs_listener_filter(queued: QueuedMessage) -> bool:
    """Whether `why_not_released` has to know the listener's content_filter: most messages have none."""
    return bool(queued.content_filter) and queued.redirect_to is None


def why_not_released(queued: QueuedMessage, listener_filter: str | None) -> str | None:
    """The decision of Postfix that a release would drop, and the remedy; None if the message can be released.

    `listener_filter`: the content_filter that the private listener sets; None if it is not known.
    """
    if queued.trace_flags & _PROBE:
        return "it only tests addresses (sendmail -bv), and a release would deliver it: delete it"
    if queued.verp_delimiters and queued.sender:
        return f"each recipient is to get it from an envelope sender of their own (VERP), which is lost: {SEND_AGAIN}"
    if queued.send_options & _TLS_REQUIRED:
        return f"its sender asked for encryption on the whole way (REQUIRETLS), which is lost: {SEND_AGAIN}"
    if queued.send_options & ~(_SMTPUTF8 | _TLS_NOT_REQUIRED | _TLS_REQUIRED):
        return f"it has options that this version does not know ({queued.send_options}): {SEND_AGAIN}"
    if queued.content_inspector:
        return f"Postfix gives it to {queued.content_inspector} (content_inspector), which is lost: {SEND_AGAIN}"
    if needs_listener_filter(queued) and queued.content_filter != listener_filter:
        return _other_filter(queued.content_filter, listener_filter)
    return None


def _other_filter(wanted: str | None, listener_filter: str | None) -> str:
    if listener_filter is None:
        is_now = "the content_filter of released mail cannot be read"
    elif listener_filter:
        is_now = f"released mail goes through {listener_filter}"
    else:
        is_now = "released mail goes through no filter"
    return (
        f"Postfix sends it through {wanted} (FILTER or content_filter), and {is_now}: {SEND_AGAIN}; or, if main.cf"
        " had another content_filter before, set that value until it is released"
    )
