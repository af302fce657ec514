"""The modes and the actions of a policy, and the table of the effects of each action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

ActionTreatment = Literal["hold", "reject", "rewrite", "warn"]
FirstNotice = Literal["held", "delayed", "rewritten", "split", "warned"]
OwnRelease = Literal["bcc", "split"]

DELIVERED_TREATMENTS: Final[frozenset[str]] = frozenset({"rewrite", "warn"})
"""The treatments of messages that are delivered at once, changed or with a warning. A message whose record fails is not
delivered so: it is refused for now."""


class Mode(StrEnum):
    """Whether decisions are carried out, or only recorded."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class Action(StrEnum):
    """The actions that a rule can name. `tempfail` is not among them: it answers a failure and is never a policy."""

    ACCEPT = "accept"
    WARN = "warn"
    REWRITE = "rewrite"
    SPLIT = "split"
    DELAY = "delay"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def effect(self) -> Effect:
        """Its effect on a message in enforce mode."""
        return EFFECTS[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The effect of an action on a message in enforce mode."""

    words: str
    """The effect in words, after "the message is"; `{delay}` is hold.delay, `{reply}` the codes of the reply."""
    treatment: ActionTreatment | None = None
    """The treatment in the journal. None: nothing is recorded."""
    at_end: bool = False
    """Whether it happens at the end of the message: libmilter accepts header edits and quarantine only there."""
    waits: bool = False
    """Whether the steward releases the message only after `hold.delay`."""
    stops: bool = False
    """Whether the message is not delivered unless a person acts."""
    release_mode: OwnRelease | None = None
    """The way in which the steward releases the message by itself. None: it does not."""
    first_notice: FirstNotice | None = None
    """The first notice to the sender. None: the SMTP reply is enough."""

    @property
    def holds(self) -> bool:
        """Whether the message enters Postfix's hold queue, even if only for a moment."""
        return self.treatment == "hold"

    @property
    def delivers(self) -> bool:
        """Whether the message is delivered at once, changed or with a warning: never without a record."""
        return self.treatment in DELIVERED_TREATMENTS

    @property
    def hides(self) -> bool:
        """Whether the recipients are hidden, at once or by the steward: not in a message that must not be changed."""
        return self.treatment == "rewrite" or self.release_mode is not None


EFFECTS: Final[Mapping[Action, Effect]] = {
    Action.ACCEPT: Effect(words="delivered as it is"),
    Action.WARN: Effect(
        words="delivered as it is",
        treatment="warn",
        first_notice="warned",
    ),
    Action.REWRITE: Effect(
        words="delivered with the external addresses hidden",
        treatment="rewrite",
        at_end=True,
        first_notice="rewritten",
    ),
    Action.SPLIT: Effect(
        words="delivered to each external recipient as a separate message that shows only their own address",
        treatment="hold",
        at_end=True,
        release_mode="split",
        first_notice="split",
    ),
    Action.DELAY: Effect(
        words="held for {delay}, then delivered with the external addresses hidden",
        treatment="hold",
        at_end=True,
        waits=True,
        release_mode="bcc",
        first_notice="delayed",
    ),
    Action.QUARANTINE: Effect(
        words="held until someone decides",
        treatment="hold",
        at_end=True,
        stops=True,
        first_notice="held",
    ),
    Action.REJECT: Effect(
        words="refused ({reply})",
        treatment="reject",
        stops=True,
    ),
}
"""The effects of all actions. Other code reads the effect of an action here."""
