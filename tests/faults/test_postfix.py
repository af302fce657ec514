"""Postfix itself reloaded and restarted, under load."""

from __future__ import annotations

from faults.trial import Trial


def test_postfix_is_reloaded(trial: Trial) -> None:
    """Three times: each message is decided, and as usual."""
    with trial.load(per_session=4) as load:
        for _ in range(3):
            load.go_on(8)
            trial.stage.postfix.reload()
        trial.recover()
    assert {250, 550} <= set(trial.codes()) <= {250, 451, 550}
    trial.report("Postfix reloaded, three times", "nothing to do")


def test_postfix_is_restarted(trial: Trial) -> None:
    """Sessions break; a message without an answer is in one place or in none."""
    with trial.load(per_session=4) as load:
        load.go_on(12)
        trial.stage.postfix.restart()
        trial.recover()
        load.go_on(8)
    trial.report("Postfix restarted", "by itself")
