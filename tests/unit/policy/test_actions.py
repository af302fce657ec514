"""The table of the effects of each action."""

from __future__ import annotations

import pytest

from support.factories import policy
from undisclosed.policy import Action
from undisclosed.policy.actions import EFFECTS


def test_every_action_has_an_effect() -> None:
    """The table has a row for each action, in the same order."""
    assert list(EFFECTS) == list(Action)


@pytest.mark.parametrize("action", Action)
def test_an_effect_is_consistent(action: Action) -> None:
    """Holding and editing wait for the end of the message; held mail is released by the steward or by a person."""
    effect = action.effect
    assert effect.at_end is (effect.holds or effect.treatment == "rewrite")
    assert effect.holds is (effect.release_mode is not None) or effect.stops
    assert (effect.treatment is None) is (action is Action.ACCEPT)
    assert [effect.holds, effect.delivers, effect.treatment == "reject", action is Action.ACCEPT].count(True) == 1


def test_the_actions_that_hold() -> None:
    """split, delay and quarantine hold; quarantine and reject stop a message."""
    assert [action for action in Action if action.effect.holds] == [Action.SPLIT, Action.DELAY, Action.QUARANTINE]
    assert [action for action in Action if action.effect.stops] == [Action.QUARANTINE, Action.REJECT]


def test_the_default_of_notices_after() -> None:
    """The default names the actions that have a first notice."""
    assert {action for action in Action if action.effect.first_notice} == set(policy().notices.after)
