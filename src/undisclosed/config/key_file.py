"""The file with the key of references and hashes: 32 random bytes, made at the first start."""

from __future__ import annotations

import contextlib
import secrets
import stat
from pathlib import Path

from undisclosed.config.errors import ConfigError, NotPermittedError, Problem
from undisclosed.config.small_file import make_once, read_regular_file
from undisclosed.policy import Policy

KEY_BYTES = 32
_SETTING = "journal.key_file"


def read_key(policy: Policy, create: bool) -> bytes:
    """The 32 bytes of `journal.key_file`, which holds them as they are or as 64 hexadecimal digits.

    With `create`, a missing file is made, readable by its owner only. Raises ConfigError when the file cannot be read
    or made, holds no key, or can be read by others: with the key, the log and the journal tell whether a given address
    was among the recipients.
    """
    path = policy.journal.key_file
    try:
        return _read(path)
    except FileNotFoundError:
        if not create:
            raise _error(path, "does not exist yet", _fix_missing(path)) from None
    except PermissionError as error:
        fix = "only the milter's user, its owner, may read it"
        raise NotPermittedError(_problem(path, "cannot be read: permission denied", fix)) from error
    except OSError as error:
        fix = "name a regular file, or one that does not exist: it is made at the first start"
        raise _error(path, f"cannot be read: {error.strerror}", fix) from error
    try:
        make_once(path, secrets.token_hex(KEY_BYTES).encode() + b"\n", 0o600)
        return _read(path)
    except FileNotFoundError as error:
        fix = f"create the directory {path.parent}, owned by the milter's user, or name another file"
        raise _error(path, "cannot be made: its directory does not exist", fix) from error
    except PermissionError as error:
        fix = f"the milter's user must own the directory {path.parent}"
        raise NotPermittedError(_problem(path, "cannot be made: permission denied", fix)) from error
    except OSError as error:
        raise _error(path, f"cannot be made: {error.strerror}", "make room there, or name another file") from error


def _read(path: Path) -> bytes:
    content, found = read_regular_file(path, 4096)
    if found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        fix = f"chmod 600 {path}; if others may have read it, remove it: a new one is made at the next start"
        raise _error(path, f"other users than its owner can read or write it (mode {mode})", fix)
    return _decoded(path, content)


def _decoded(path: Path, content: bytes) -> bytes:
    text = content.strip()
    if len(text) == 2 * KEY_BYTES:
        with contextlib.suppress(ValueError):
            content = bytes.fromhex(text.decode("ascii"))
    if len(content) != KEY_BYTES:
        expected = f"a key has {KEY_BYTES}, or {2 * KEY_BYTES} hexadecimal digits"
        problem = f"not a key: it has {len(content)} bytes; {expected}"
        fix = "copy it again from another gateway; if there is none, remove it: a new one is made at the next start"
        raise _error(path, problem, fix)
    if len(set(content)) == 1:  # left by a crash or a full disk
        raise _error(path, "not a key: all its bytes are the same", "remove it: a new one is made at the next start")
    return content


def _fix_missing(path: Path) -> str:
    return f"`undisclosed journal upgrade` makes it; or copy it from another gateway to {path}"


def _error(path: Path, problem: str, fix: str) -> ConfigError:
    return ConfigError(_problem(path, problem, fix))


def _problem(path: Path, problem: str, fix: str) -> Problem:
    return Problem(path, _SETTING, str(path), problem, fix)
