"""This host's name in the journal."""

from __future__ import annotations

import socket
from pathlib import Path

from undisclosed.incidents.records import clean
from undisclosed.policy import Policy
from undisclosed.policy.sections import PostfixSection

DEFAULT_CONFIG_DIR: Path = PostfixSection().config_dir


def gateway_name(policy: Policy) -> str:
    """The name that milter and steward of one Postfix instance share: queue ids are unique within it.

    The host's own name, without asking DNS; for another Postfix instance on the host, its configuration directory too.
    In the form in which the journal records text: the steward looks for copies by this name.
    """
    directory = policy.postfix.config_dir
    name = socket.gethostname()
    return clean(name if directory == DEFAULT_CONFIG_DIR else f"{name}:{directory}")
