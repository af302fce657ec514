"""The letters of the model test, and the transactions that Postfix took."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from model.postfix import File
from support.factories import policy
from undisclosed.policy import Action, Policy

LIMIT: Final = 3
CROWD: Final = tuple(f"parent{number}@family{number}.example" for number in range(1, 6))
COLLEAGUE: Final = "head@council.test"
OUTSIDER: Final = "newsletter@outside.example"
ADMINISTRATOR: Final = "postmaster@council.test"

Sign = Literal["", "Precedence: bulk", "List-Id: <a.council.test>", "Auto-Submitted: auto-generated"]
Body = Literal["plain", "encrypted"]


@dataclass(frozen=True, slots=True)
class Letter:
    """One message as its sender wrote it. Its number is in its subject and in its text."""

    number: int
    sender: str
    crowd: bool
    """Whether it shows all of CROWD; else it shows one of them."""
    message_id: int | None
    sign: Sign = ""
    body: Body = "plain"

    @property
    def name(self) -> str:
        """Its subject, by which a notice names it."""
        return f"Letter{self.number:04}x"

    def content(self) -> bytes:
        """Header and body."""
        author = self.sender if self.sender.endswith("@council.test") else "clerk@council.test"
        lines = [
            f"From: The Clerk <{author}>",
            "To: " + ",\n\t".join(CROWD if self.crowd else CROWD[:1]),
            f"Subject: {self.name}",
            "Date: Mon, 02 Feb 2026 09:00:00 +0000",
            *([f"Message-ID: <{self.message_id}@council.test>"] if self.message_id is not None else []),
            *([self.sign] if self.sign else []),
        ]
        text = f"This is {self.name}."
        if self.body == "encrypted":
            lines.append("MIME-Version: 1.0")
            lines.append('Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary="b"')
            text = f"--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n\n--b\n\n{text}\n--b--"
        return "\n".join([*lines, "", text, ""]).encode()


@dataclass(eq=False, slots=True)
class Taken:
    """A transaction that Postfix answered with 250."""

    number: int
    letter: Letter
    recipients: tuple[str, ...]
    file: File
    arrived: datetime
    fate: Literal["accepted", "rewritten", "held"]
    may_show: bool
    """Whether the policy allowed it to leave as it was."""
    stopped: bool
    """Whether the steward must not send it by itself: an administrator or another program put it on hold."""
    warned: bool
    """Whether its sender is owed a warning."""
    recorded: bool
    """Whether the milter could record it."""
    first_id: str = ""
    unchanged: bool = False
    """Whether a person asked to release it unchanged."""
    asked: set[str] = field(default_factory=set)
    """The verbs that a person asked for."""

    @property
    def name(self) -> str:
        """For messages about a failure."""
        return f"transaction {self.number} ({self.letter.name}, {self.file.queue_id})"


RECEIVED: Final = re.compile(rb"^Received: from client(\d+) ", re.MULTILINE)
ADDRESS: Final = re.compile(rb"parent\d+@family\d+\.example")


def transaction_number(content: bytes) -> int | None:
    """The transaction in which the client handed this message over, by its Received field."""
    found = RECEIVED.search(content)
    return int(found[1]) if found else None


def shown(content: bytes) -> set[str]:
    """The outside addresses in the header."""
    return {address.decode() for address in ADDRESS.findall(content.partition(b"\n\n")[0])}


ACTIONS: Final = (Action.QUARANTINE, Action.DELAY, Action.SPLIT, Action.REWRITE, Action.WARN, Action.REJECT)
SENDERS: Final = tuple(f"{action}@council.test" for action in ACTIONS)


def make_policy(turn: int, journal: dict[str, Any], **sections: Any) -> Policy:
    """A policy with a rule for each of SENDERS; `turn` moves the actions on by so many places."""
    rules = [
        {
            "name": f"{sender.partition('@')[0]} {turn}",
            "senders": [sender],
            "more_than_addresses": LIMIT,
            "action": ACTIONS[(place + turn) % len(ACTIONS)],
        }
        for place, sender in enumerate(SENDERS)
    ]
    others = {"name": "others", "more_than_addresses": LIMIT, "action": ("quarantine", "reject", "delay")[turn % 3]}
    return policy(rules=[*rules, others], journal=journal, **sections)


def action_of(policy: Policy, letter: Letter) -> Action:
    """The action of the policy for this letter."""
    if not letter.crowd:
        return Action.ACCEPT
    names = [rule.action for rule in policy.rules if letter.sender in rule.senders]
    return names[0] if names else policy.rules[-1].action
