"""A configuration or a key that cannot be read, at a reload and at a start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faults.trial import RIGHT, Trial
from lab import toml
from lab.milter import unprivileged_user
from live_postfix.load import Load
from support.factories import rule

BROKEN = {
    "a setting of the wrong type": "rules = 7",
    "a rule with an unknown action": '[[rules]]\nname = "x"\naction = "perhaps"',
    "a NUL byte": "\0",
    "nothing at all": "",
}


def refused(trial: Trial) -> int:
    """The number of refused reloads."""
    return len(trial.logged(event="reload_refused"))


def test_the_configuration_is_broken_at_a_reload(trial: Trial) -> None:
    """SIGHUP with a broken file: the log has the reason, and the old configuration decides every message."""
    sound = trial.gateway.config.read_text()
    twice = toml.dumps(trial.gateway.policy(rules=[rule(), rule()]))
    with trial.load(per_session=10**6) as load:
        load.go_on(8)
        for broken in (*BROKEN.values(), twice):
            trial.gateway.configure(broken)
            trial.milter.reload()
            load.go_on(8)
        trial.gateway.configure(sound)
        trial.milter.reload()
        trial.recover()
    assert refused(trial) == len(BROKEN) + 1
    assert load.sessions == load.clients
    assert {(answer.kind, answer.code) for answer in load.answers} == set(RIGHT.items())
    trial.report(
        "The configuration broken at a reload, in five ways", "the old one stays in force; correct it and reload"
    )


def test_the_configuration_has_vanished_at_a_reload(trial: Trial) -> None:
    """The old one stays in force; a milter that starts without any does not start, and mail waits."""
    config = trial.gateway.config
    away = config.with_name("away.toml")
    with trial.load() as load:
        load.go_on(8)
        config.rename(away)
        trial.milter.reload()
        load.go_on(8)
        assert {(answer.kind, answer.code) for answer in load.answers} == set(RIGHT.items())
        assert refused(trial) == 1
        does_not_start(trial, load, "config.toml")
        away.rename(config)
        trial.start()
        trial.recover()
    trial.report(
        "The configuration removed before a reload, then at a start",
        "the old one stays in force; start it once the file is back",
    )


def does_not_start(trial: Trial, load: Load, reason: str) -> None:
    """Stop the milter, check that it does not start again and prints the reason, and that all mail is deferred."""
    trial.milter.stop()
    with pytest.raises(RuntimeError, match=reason):
        trial.start()
    begun = load.begun
    load.go_on(8)
    assert {answer.code for answer in load.answers if answer.number >= begun} == {451}


def test_the_key_cannot_be_read(trial: Trial) -> None:
    """A key that another user owns, or may read: a reload is refused, a start too."""
    key = trial.gateway.state / "key"
    owner = key.stat()
    with trial.load() as load:
        load.go_on(8)
        spoil(trial, key)
        trial.milter.reload()
        load.go_on(8)
        assert {(answer.kind, answer.code) for answer in load.answers} == set(RIGHT.items())
        [event] = trial.logged(event="reload_refused")
        assert "journal.key_file" in event["reason"]
        does_not_start(trial, load, "journal.key_file")
        os.chown(key, owner.st_uid, owner.st_gid)
        key.chmod(owner.st_mode)
        trial.start()
        trial.recover()
    trial.report(
        "The key file unreadable at a reload, then at a start", "the old one stays in use; start it once it can be read"
    )


def spoil(trial: Trial, key: Path) -> None:
    """As after a restore by root: the milter cannot read it; if the tests' milter is root, readable by others."""
    os.chown(key, 0, 0)
    key.chmod(0o600 if unprivileged_user() else 0o644)
