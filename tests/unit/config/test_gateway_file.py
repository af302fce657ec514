"""gateway_file.py: the identity of a gateway is made once, and refused on another machine."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from support.factories import policy
from undisclosed.config import gateway_file
from undisclosed.config.errors import ConfigError
from undisclosed.config.gateway_file import read_gateway
from undisclosed.policy import Policy

ONE, TWO = "0123456789abcdef" * 2, "fedcba9876543210" * 2


def kept_in(directory: Path, **postfix: str) -> Policy:
    """A policy whose key, and so its identity, is in this directory."""
    return policy(journal={"key_file": str(directory / "key")}, postfix=postfix)


def on_machine(monkeypatch: pytest.MonkeyPatch, directory: Path, machine_id: str | None) -> None:
    """Let this machine have this id; None: a container without one."""
    file = directory / "machine-id"
    if machine_id is not None:
        file.write_text(machine_id + "\n")
    else:
        file.unlink(missing_ok=True)
    monkeypatch.setattr(gateway_file, "MACHINE_ID", file)


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    """Later reads return the same; the file can be read by all users, and no other file is left."""
    was = os.umask(0o077)
    try:
        made = read_gateway(kept_in(tmp_path), create=True)
    finally:
        os.umask(was)
    [file] = tmp_path.iterdir()
    assert made == read_gateway(kept_in(tmp_path), create=True) == read_gateway(kept_in(tmp_path), create=False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert made in file.read_text()


def test_each_postfix_instance_has_an_identity_of_its_own(tmp_path: Path) -> None:
    """Queue ids are unique within one; another directory of state makes another gateway too."""
    (tmp_path / "other").mkdir()
    instances = [
        kept_in(tmp_path),
        kept_in(tmp_path, config_dir="/srv/caf\udce9/" + "x" * 300),
        kept_in(tmp_path / "other"),
    ]
    assert len({read_gateway(instance, create=True) for instance in instances}) == 3


def _read(directory: Path) -> str:
    return read_gateway(kept_in(directory), create=True)


def test_processes_that_start_together_get_one_identity(tmp_path: Path) -> None:
    """`run`, `steward` and `journal upgrade` may all be the first."""
    with ProcessPoolExecutor(8) as pool:
        assert len(set(pool.map(_read, [tmp_path] * 64))) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_made_by_root_it_belongs_to_the_services_user(tmp_path: Path) -> None:
    """`journal upgrade` is run by root, and the directory belongs to the milter's user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(tmp_path, 65534, 65534)
    read_gateway(kept_in(tmp_path), create=True)
    [file] = tmp_path.iterdir()
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)


def test_another_machine_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-mail review, finding 16: of two hosts with one identity each would close the other's held mail.

    The error names both remedies, and both work.
    """
    state = tmp_path / "state"
    state.mkdir()
    on_machine(monkeypatch, tmp_path, ONE)
    made = read_gateway(kept_in(state), create=True)
    [file] = state.iterdir()
    assert ONE not in file.read_text()
    on_machine(monkeypatch, tmp_path, TWO)
    with pytest.raises(ConfigError, match="another machine made it") as caught:
        read_gateway(kept_in(state), create=True)
    assert str(file) in str(caught.value)
    assert "remove the line that begins with `machine`" in caught.value.fix
    text = file.read_text()
    file.write_text("".join(line for line in text.splitlines(True) if not line.startswith("machine")))
    assert read_gateway(kept_in(state), create=True) == made
    file.write_text(text)
    file.unlink()
    assert read_gateway(kept_in(state), create=True) != made


@pytest.mark.parametrize("unbooted", [None, "", "uninitialized"])
def test_a_container_without_a_machine_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbooted: str | None
) -> None:
    """It keeps its identity, and so does a machine whose file was made before it had an id."""
    state = tmp_path / "state"
    state.mkdir()
    on_machine(monkeypatch, tmp_path, unbooted)
    made = read_gateway(kept_in(state), create=True)
    assert "\nmachine" not in next(state.iterdir()).read_text()
    assert read_gateway(kept_in(state), create=False) == made
    on_machine(monkeypatch, tmp_path, ONE)
    assert read_gateway(kept_in(state), create=False) == made


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"gateway = 1\n", b'gateway = ""\n', b'gateway = "a b"\n', b'machine = "ab"\n', b"[gateway]\n"],
)
def test_a_damaged_file_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    """With a new identity the held mail of this gateway would be stranded: a person decides."""
    read_gateway(kept_in(tmp_path), create=True)
    [file] = tmp_path.iterdir()
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no identity"):
        read_gateway(kept_in(tmp_path), create=True)
    assert file.read_bytes() == content


def test_a_missing_file_is_made_at_a_start_only(tmp_path: Path) -> None:
    """A reload and a command do not make it; without its directory it cannot be made."""
    with pytest.raises(ConfigError, match="does not exist yet"):
        read_gateway(kept_in(tmp_path), create=False)
    with pytest.raises(ConfigError, match="cannot be made"):
        read_gateway(kept_in(tmp_path / "missing"), create=True)
