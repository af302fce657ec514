"""The modes and the actions of a policy, and the one table of what each action does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

ActionOutcome = Literal["hold", "reject", "rewrite", "warn"]
FirstNotice = Literal["held", "delayed", "rewritten", "split", "warned"]
NoticeTime = Literal["held", "released", "delivered"]
OwnRelease = Literal["bcc", "split"]


class Mode(StrEnum):
    """Whether decisions are carried out, or only recorded."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class Action(StrEnum):
    """What a rule may ask for. `tempfail` is not among them: it answers a failure and is never a policy."""

    ACCEPT = "accept"
    WARN = "warn"
    REWRITE = "rewrite"
    SPLIT = "split"
    DELAY = "delay"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def effect(self) -> Effect:
        """What it does to a message, in enforce mode."""
        return EFFECTS[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an action does to a message in enforce mode."""

    words: str
    """It in words, after "the message is"; `{delay}` and `{reply}` stand for hold.delay and the reply's codes."""
    outcome: ActionOutcome | None = None
    """It as the journal records it. None: nothing is recorded."""
    at_end: bool = False
    """Whether it waits for the end of the message: libmilter takes header edits and a quarantine only there."""
    stops: bool = False
    """Whether the message does not go on unless a person acts."""
    released_as: OwnRelease | None = None
    """How the steward releases the held message by itself. None: it waits for a person, or is not held."""
    first_notice: FirstNotice | None = None
    """The first notice to the sender. None: the sender has the SMTP reply, or there is nothing to tell."""
    told_when: NoticeTime | None = None
    """What must have become of the message before that notice is true."""

    @property
    def holds(self) -> bool:
        """Whether the message goes into Postfix's hold queue, if only for a moment."""
        return self.outcome == "hold"

    def notice_when(self, time: NoticeTime) -> FirstNotice | None:
        """The first notice, if it is due once the message is held, released or delivered."""
        return self.first_notice if self.told_when == time else None


EFFECTS: Final[Mapping[Action, Effect]] = {
    Action.ACCEPT: Effect(words="delivered as it is"),
    Action.WARN: Effect(
        words="delivered as it is",
        outcome="warn",
        first_notice="warned",
        told_when="delivered",
    ),
    Action.REWRITE: Effect(
        words="delivered with the outside addresses hidden",
        outcome="rewrite",
        at_end=True,
        first_notice="rewritten",
        told_when="delivered",
    ),
    Action.SPLIT: Effect(
        words="delivered to each outside recipient as a separate message that shows only their own address",
        outcome="hold",
        at_end=True,
        released_as="split",
        first_notice="split",
        told_when="released",
    ),
    Action.DELAY: Effect(
        words="held for {delay}, then delivered with the outside addresses hidden",
        outcome="hold",
        at_end=True,
        released_as="bcc",
        first_notice="delayed",
        told_when="held",
    ),
    Action.QUARANTINE: Effect(
        words="held until someone decides",
        outcome="hold",
        at_end=True,
        stops=True,
        first_notice="held",
        told_when="held",
    ),
    Action.REJECT: Effect(
        words="refused ({reply})",
        outcome="reject",
        stops=True,
    ),
}
"""What each action does. All other code asks this table; `milter/session.py` alone matches on the action itself."""
