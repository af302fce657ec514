"""A policy that is swapped for another while messages are under way."""

from __future__ import annotations

import pytest

from faults.relay import Relay
from faults.trial import RIGHT, Trial
from lab.client import Client
from live_postfix.load import RECIPIENTS, sender

HIDES_ALL = "rewrite"
"""The action of the later policy for all messages over the limit."""


def swap(trial: Trial) -> None:
    """Reload the milter with the later policy."""
    trial.gateway.configure(trial.gateway.policy(HIDES_ALL))
    trial.milter.reload()


def test_the_policy_is_swapped_under_load(trial: Trial) -> None:
    """SIGHUP with a valid file: no session breaks, no message fails, and it decides all messages that begin later."""
    with trial.load(kinds=("reject",), per_session=10**6) as load:
        assert {answer.code for answer in load.go_on(12)} == {550}
        swap(trial)
        later = load.go_on(24)
        # A message begun before the reload ends under the policy it began with: at most one a client.
        assert [answer.code for answer in later].count(550) <= load.clients
    assert load.sessions == load.clients
    assert set(load.codes()) == {250, 550}
    trial.judged = lambda answer: answer._replace(kind=HIDES_ALL) if answer.code == 250 else answer
    trial.report("The policy swapped (`SIGHUP`) under load", "nothing to do")


SLOW = 999
"""The number of the message that is under way meanwhile."""


@pytest.mark.parametrize(
    ("letter", "kind", "stage_of_message"),
    [
        ("L", "reject", "during the header of"),
        ("B", "quarantine", "during the body of"),
        ("E", "quarantine", "at the end of"),
    ],
    ids=["header", "body", "end"],
)
def test_the_policy_is_swapped_in_the_middle_of_a_message(
    relay: Relay, trial: Trial, letter: str, kind: str, stage_of_message: str
) -> None:
    """A transaction keeps the policy under which it began; the next one in the same session gets the new policy."""
    containing = f"{SLOW} {kind}".encode() if letter == "L" else b""
    with trial.load(kinds=("ordinary",)) as load, Client(trial.stage.postfix.port) as session:
        load.go_on(8)
        relay.at_event(letter, lambda: swap(trial), containing=containing)
        codes = [
            session.send(trial.letter(number, kind), sender=sender(kind), to=RECIPIENTS).final.code
            for number in (SLOW, SLOW + 1)
        ]
        load.go_on(8)
    assert relay.has_struck
    assert codes == [RIGHT[kind], 250]
    assert set(load.codes()) == {250}
    trial.took(SLOW, kind, codes[0])
    trial.took(SLOW + 1, HIDES_ALL, codes[1])
    trial.report(f"The policy swapped (`SIGHUP`) {stage_of_message} a message", "nothing to do")
