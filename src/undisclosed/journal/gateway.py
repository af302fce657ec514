"""The name of a gateway, for people: the journal knows gateways by the identity in their state directory."""

from __future__ import annotations

import socket
from pathlib import Path

from undisclosed.incidents.records import clean
from undisclosed.policy import Policy
from undisclosed.policy.sections import PostfixSection

DEFAULT_CONFIG_DIR: Path = PostfixSection().config_dir


def gateway_name(policy: Policy) -> str:
    """The host's own name, without asking DNS; for another Postfix instance on it, its configuration directory too."""
    directory = policy.postfix.config_dir
    name = socket.gethostname()
    return clean(name if directory == DEFAULT_CONFIG_DIR else f"{name}:{directory}")
