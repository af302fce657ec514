"""The values that all parts of the steward share in a round."""

from __future__ import annotations

from dataclasses import dataclass

from undisclosed.policy import Policy


@dataclass(frozen=True, slots=True)
class Context:
    """The policy in force, the key of references and hashes, and this gateway: its identity and its host's name."""

    policy: Policy
    key: bytes
    gateway: str
    gateway_name: str = ""
