"""attach and detach in a process of its own (support.children): without rights, or ended in the middle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from support import children
from support.postfix_directories import wanting
from undisclosed import postfix
from undisclosed.policy import Policy
from undisclosed.postfix import PostfixError


def attach_as_nobody(says: Connection, config_dir: Path, dry_run: bool) -> None:
    """attach by a user without rights; says the plan, or the error."""
    children.become_nobody()
    try:
        says.send(str(postfix.attach(wanting(), config_dir, dry_run)))
    except (PostfixError, OSError) as error:
        says.send(str(error))


def die_before(_: Connection, step: int, command: Callable[[Policy, Path], object], config_dir: Path) -> None:
    """attach or detach, which dies before it opens, renames or removes a file of that directory for the nth time."""
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        touching = event in ("os.rename", "os.remove", "os.chmod", "os.utime") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if touching and arguments and str(arguments[0]).startswith(str(config_dir)):
            if count == step:
                children.die()
            count += 1

    sys.addaudithook(watch)
    command(wanting(), config_dir)
