"""The file with the identity of a gateway: of one Postfix instance, whose queue ids are unique within it.

It is made once, beside the key, by the first process that needs it. A host that is renamed stays the same gateway, and
two hosts with one name are two. The file names the machine, so that a copy of it cannot make one gateway of two: each
would close the held mail of the other.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tomllib
from pathlib import Path
from typing import Final

from undisclosed.config.errors import ConfigError, NotPermittedError, Problem
from undisclosed.config.small_file import make_once, read_regular_file
from undisclosed.policy import Policy

MACHINE_ID: Final = Path("/etc/machine-id")
"""The identity of the machine (machine-id(5)): not to be shown, so a hash of it is kept. Containers may have none."""

_SETTING: Final = "journal.key_file"
_MAX_BYTES: Final = 4096


def gateway_file(policy: Policy) -> Path:
    """The file of the Postfix instance that the policy names, in the directory of the key."""
    instance = str(policy.postfix.config_dir).encode("utf-8", "surrogateescape")
    return policy.journal.key_file.with_name(f"gateway-{hashlib.sha256(instance).hexdigest()[:12]}")


def read_gateway(policy: Policy, create: bool) -> str:
    """The identity of this gateway. With `create`, a missing file is made.

    Raises ConfigError when the file cannot be read or made, holds no identity, or was made by another machine.
    """
    path = gateway_file(policy)
    try:
        return _read(path)
    except FileNotFoundError:
        if not create:
            fix = "`undisclosed run` and `undisclosed journal upgrade` make it"
            raise _error(path, "does not exist yet", fix) from None
    except PermissionError as error:
        fix = "only the milter's user, its owner, need read it"
        raise NotPermittedError(_problem(path, "cannot be read: permission denied", fix)) from error
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}", f"remove what {path} is") from error
    try:
        make_once(path, _content(str(policy.postfix.config_dir)), 0o644)
        return _read(path)
    except PermissionError as error:
        fix = f"the milter's user must own the directory {path.parent}"
        raise NotPermittedError(_problem(path, "cannot be made: permission denied", fix)) from error
    except OSError as error:
        fix = f"the directory {path.parent} must exist, with room, and be writable"
        raise _error(path, f"cannot be made: {error.strerror}", fix) from error


def _read(path: Path) -> str:
    content, _ = read_regular_file(path, _MAX_BYTES)
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except ValueError:
        values = {}
    gateway, machine = values.get("gateway"), values.get("machine", "")
    if not isinstance(gateway, str) or not gateway.isalnum() or not gateway.isascii() or not isinstance(machine, str):
        fix = "restore it from a backup; if there is none, remove it: this gateway then gets a new identity"
        raise _error(path, "holds no identity of a gateway", fix)
    here = _machine()
    if here and machine and here != machine:
        raise _error(
            path,
            "another machine made it",
            "if this machine is a copy of that one, remove the file: this gateway then gets an identity of its own; if"
            " this machine replaces that one, with its mail queue, remove the line that begins with `machine`",
        )
    return gateway


def _content(config_dir: str) -> bytes:
    lines = [
        "# The identity of this mail gateway in the journal of undisclosed. Do not copy it to another machine.",
        f"# Postfix's configuration: {config_dir!a}",
        f'gateway = "{secrets.token_hex(8)}"',
    ]
    if machine := _machine():
        lines.append(f'machine = "{machine}"')
    return ("\n".join(lines) + "\n").encode("ascii")


def _machine() -> str:
    """A hash of the machine's identity, as machine-id(5) asks for; empty if it has none."""
    try:
        machine = MACHINE_ID.read_bytes().strip()
    except OSError:
        return ""
    if len(machine) != 32 or not machine.isalnum():  # empty or "uninitialized": an image that has not been booted
        return ""
    return hmac.digest(machine, b"gateway of undisclosed", hashlib.sha256).hex()[:32]


def _error(path: Path, problem: str, fix: str) -> ConfigError:
    return ConfigError(_problem(path, problem, fix))


def _problem(path: Path, problem: str, fix: str) -> Problem:
    return Problem(path, _SETTING, str(path), problem, fix)
