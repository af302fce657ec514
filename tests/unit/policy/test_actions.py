"""The table of what each action does."""

from __future__ import annotations

import pytest

from undisclosed.policy import Action
from undisclosed.policy.actions import EFFECTS, HOLDING


def test_every_action_has_an_effect() -> None:
    """Code that asks the table never finds a gap."""
    assert list(EFFECTS) == list(Action)


@pytest.mark.parametrize("action", Action)
def test_an_effect_agrees_with_itself(action: Action) -> None:
    """What is held or edited waits for the end of the message; what is held goes on by the steward or by a person."""
    effect = action.effect
    assert effect.at_end is (effect.holds or effect.outcome == "rewrite")
    assert effect.holds is (effect.released_as is not None) or effect.stops
    assert (effect.outcome is None) is (action is Action.ACCEPT)
    assert (effect.first_notice is None) is (effect.told_when is None)
    assert (effect.told_when == "delivered") is (effect.outcome in ("rewrite", "warn"))


def test_the_actions_that_hold() -> None:
    """Three, by three outcomes: a copy each, later, or by a person."""
    assert set(HOLDING) == {Action.SPLIT, Action.DELAY, Action.QUARANTINE}
    assert [action for action in Action if action.effect.stops] == [Action.QUARANTINE, Action.REJECT]


@pytest.mark.parametrize(
    ("action", "held", "released", "delivered"),
    [
        (Action.ACCEPT, None, None, None),
        (Action.WARN, None, None, "warned"),
        (Action.REWRITE, None, None, "rewritten"),
        (Action.SPLIT, None, "split", None),
        (Action.DELAY, "delayed", None, None),
        (Action.QUARANTINE, "held", None, None),
        (Action.REJECT, None, None, None),
    ],
)
def test_the_first_notice_waits_until_it_is_true(
    action: Action, held: str | None, released: str | None, delivered: str | None
) -> None:
    """A rejected message has its SMTP reply; the others are told once what they say has happened."""
    effect = action.effect
    assert effect.notice_when("held") == held
    assert effect.notice_when("released") == released
    assert effect.notice_when("delivered") == delivered
