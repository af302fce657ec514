"""The commands for held mail as an administrator types them: with a real Postfix, milter, journal and steward."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from lab.gateway import Gateway
from lab.postfix import PrivatePostfix
from lab.sink import Sink
from lab.steward import Steward
from lab.waiting import until
from live_postfix.office import COLLEAGUE, PARENTS, SENDER, Office, attached, emptied, new_gateway
from support.terminal import Printed, into_pipe, on_terminal
from undisclosed.incidents.records import Incident, State

WITHIN = 40.0
"""Seconds for any one thing that the steward does."""


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Gateway]:
    """A gateway with a rule for each kind of hold; it stays attached for all tests of this file."""
    gateway = new_gateway(installed_postfix, outside)
    with attached(gateway):
        gateway.configure(gateway.policy("quarantine", hold={"delay": "1h"}, rules=RULES))
        gateway.milter.reload()
        yield gateway


RULES = [
    {"name": "wait", "senders": ["later@council.test"], "more_than_addresses": 10, "action": "delay"},
    {"name": "warn", "senders": ["warned@council.test"], "more_than_addresses": 10, "action": "warn"},
    {"name": "hide", "senders": ["hidden@council.test"], "more_than_addresses": 10, "action": "rewrite"},
    {"name": "many strangers", "more_than_addresses": 10, "action": "quarantine"},
]


@pytest.fixture
def office(standing: Gateway) -> Iterator[Office]:
    """The gateway with nothing held and nothing delivered."""
    with emptied(standing) as office:
        yield office


@pytest.fixture
def steward(office: Office) -> Iterator[Steward]:
    """A steward that runs as its unit runs it."""
    with Steward(office.gateway.config, directory=office.gateway.state) as steward:
        yield steward


def piped(office: Office, *words: str) -> Printed:
    """Run a command without a terminal."""
    return into_pipe(*words, "--config", str(office.gateway.config))


def at_terminal(office: Office, *words: str, typed: str = "", width: int = 100) -> Printed:
    """Run a command at a terminal, and type this."""
    printed = on_terminal(width, *words, "--config", str(office.gateway.config), typed=typed)
    return printed._replace(out=re.sub(r"\x1b\[[0-9;]*m", "", printed.out))


