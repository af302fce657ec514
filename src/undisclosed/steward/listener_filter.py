"""The content_filter of the private listener, by postconf(1): smtpd writes it into each released message."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from undisclosed.postfix.config_files import PostfixError
from undisclosed.postfix.master_cf import LISTENER
from undisclosed.postfix.postconf import Postconf

_PARAMETER: Final = "content_filter"


def listener_filter(config_dir: Path) -> str | None:
    """The value, empty for none; None if it cannot be read."""
    postconf = Postconf(config_dir)
    try:
        line = postconf.release_services().get(LISTENER)
        own = {name: value for name, value in line.options.items() if name == _PARAMETER} if line is not None else {}
        return postconf.expanded([_PARAMETER], own).get(_PARAMETER, "")
    except (PostfixError, OSError):
        return None
