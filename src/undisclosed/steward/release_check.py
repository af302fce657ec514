"""Whether a release carries a held message over: asks postconf(1) for the content_filter of the private listener.

smtpd of that listener writes its content_filter into each released message.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from undisclosed.decision import carry_over
from undisclosed.decision.queue_file import QueuedMessage
from undisclosed.policy import Policy
from undisclosed.postfix.config_files import PostfixError
from undisclosed.postfix.master_cf import LISTENER
from undisclosed.postfix.postconf import Postconf

_PARAMETER: Final = "content_filter"


class ReleaseCheck:
    """Finds decisions of Postfix that a release would drop. Remembers the listener's filter until `forget`."""

    def __init__(self) -> None:
        self._filter_of = cache(listener_filter)

    def forget(self) -> None:
        """Ask postconf again. It takes as long as a release, and with content_filter in main.cf all mail has one."""
        self._filter_of = cache(listener_filter)

    def listener_filter(self, policy: Policy) -> str | None:
        """The content_filter of the private listener, empty for none; None if it cannot be read."""
        return self._filter_of(policy.postfix.config_dir)

    def why_not_released(self, policy: Policy, queued: QueuedMessage) -> str | None:
        """The reason, with the remedy; None if the message can be released."""
        is_filtered = carry_over.needs_listener_filter(queued)
        carried = self.listener_filter(policy) if is_filtered else None
        return carry_over.why_not_released(queued, carried)


def listener_filter(config_dir: Path) -> str | None:
    """The value, empty for none; None if it cannot be read."""
    postconf = Postconf(config_dir)
    try:
        line = postconf.release_services().get(LISTENER)
        own = {name: value for name, value in line.options.items() if name == _PARAMETER} if line is not None else {}
        return postconf.expanded([_PARAMETER], own).get(_PARAMETER, "")
    except (PostfixError, OSError):
        return None
