"""Asks postconf(1) about a Postfix configuration directory, and has it edit copies of one.

postconf edits a copy only: on main.cf itself it replaces a symbolic link by a file, loses owner and mode, and appends
to a last line that has no line end (seen with 3.7). `config_files.py` then replaces the real file.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from undisclosed.postfix import master_cf, other_holds
from undisclosed.postfix.config_files import PostfixError, read_file
from undisclosed.postfix.model import PostfixConfig, Service

SBIN = "/usr/sbin:/usr/local/sbin"

PARAMETERS = (
    "smtpd_milters",
    "non_smtpd_milters",
    "enable_long_queue_ids",
    "cleanup_service_name",
    "compatibility_level",
    "content_filter",
    *other_holds.CHECKS,
    "internal_mail_filter_classes",
    "mail_owner",
    "milter_default_action",
    "milter_mail_macros",
    "milter_protocol",
    "mynetworks",
    "queue_directory",
    "receive_override_options",
    "smtpd_milter_maps",
    "smtpd_proxy_filter",
    *other_holds.RESTRICTIONS,
    "smtpd_restriction_classes",
    "smtpd_sasl_auth_enable",
    "soft_bounce",
)
"""The parameters that are read from main.cf, and for each service of master.cf."""


class Postconf:
    """A Postfix configuration directory. Every method raises PostfixError."""

    def __init__(self, config_dir: Path, *, stands_for: Path | None = None) -> None:
        """`stands_for`: the directory of which this one is a copy, and which $config_directory means in it."""
        self.directory = config_dir.absolute()
        self.stands_for = (stands_for or config_dir).absolute()
        self.main_cf = self.directory / "main.cf"
        self.master_cf = self.directory / "master.cf"
        self.files = (self.main_cf, self.master_cf)

    def check(self) -> None:
        """Check that this is the configuration of a Postfix that has groups in milter lists (3.0 and later)."""
        if not self.directory.is_dir():
            raise PostfixError(self.directory, "no such directory", "name the directory of main.cf (--config-dir)")
        for file in self.files:
            try:
                regular = stat.S_ISREG(file.stat().st_mode)
            except OSError as error:
                fix = f"name the directory that holds Postfix's main.cf and master.cf, or put {file.name} there first"
                if isinstance(error, PermissionError):
                    fix = "run the command as root"
                raise PostfixError(file, f"cannot be examined ({error.strerror})", fix) from error
            if not regular:
                raise PostfixError(file, "is not a file", "name the directory of Postfix's main.cf and master.cf")
        version = self._run("-d", "-h", "mail_version").strip()
        if int(version.partition(".")[0] or 0) < 3:
            raise PostfixError(self.directory, f"Postfix {version} is too old", "use Postfix 3.0 or later")

    # -- asking --------------------------------------------------------------------------------------------------------

    def raw(self, names: Iterable[str]) -> dict[str, str]:
        """The values that main.cf itself gives to some parameters, with variables as they are written."""
        wanted, values = set(names), _pairs(self._run("-n"))
        return {name: value for name, value in values.items() if name in wanted}

    def expanded(self, names: Iterable[str], overrides: Mapping[str, str] | None = None) -> dict[str, str]:
        """The values in force, defaults included and variables replaced; `overrides` are as `-o` in master.cf."""
        options = [part for name, value in (overrides or {}).items() for part in ("-o", f"{name}={value}")]
        return _pairs(self._run("-x", *options, *names))

    def overrides(self, name: str) -> set[str]:
        """The values that services of master.cf set for a parameter, variables replaced as far as main.cf has them."""
        found = {value for key, value in _pairs(self._run("-P")).items() if key.rpartition("/")[2] == name}
        return {self.expanded([name], {name: value}).get(name, value) for value in found}

    def config(self) -> PostfixConfig:
        """main.cf and master.cf as the daemons read them, and as they do under stress where that differs."""
        main = self.expanded(PARAMETERS)
        if classes := main["smtpd_restriction_classes"].replace(",", " ").split():
            main |= self.expanded(classes)
        services = list(self._services(main, {}))
        if b"stress" in self.read() + self.read_master():
            # smtpd runs with stress=yes while clients queue for it (STRESS_README): a value may depend on that.
            pairs = zip(self._services(main, {"stress": "yes"}), tuple(services), strict=True)
            services += [replace(busy, stress=True) for busy, calm in pairs if busy.settings != calm.settings]
        return PostfixConfig(str(self.stands_for), main, tuple(services))

    def release_services(self) -> dict[str, master_cf.MasterLine]:
        """The lines of master.cf for the services that take released mail."""
        lines = {}
        for name in master_cf.OPTIONS:
            columns = _pairs(self._run("-F", f"{name}/unix"))
            if columns:
                own = _pairs(self._run("-P", f"{name}/unix"))
                fields, options = (
                    {key.rsplit("/", 1)[1]: value for key, value in found.items()} for found in (columns, own)
                )
                lines[name] = master_cf.MasterLine(fields, options)
        return lines

    def _services(self, main: Mapping[str, str], extra: Mapping[str, str]) -> Iterator[Service]:
        fields: dict[tuple[str, str], dict[str, str]] = {}
        for key, value in _pairs(self._run("-F")).items():
            name, kind, field = key.rsplit("/", 2)
            fields.setdefault((name, kind), {})[field] = value
        overrides: dict[tuple[str, str], dict[str, str]] = {}
        for key, value in _pairs(self._run("-P")).items():
            name, kind, parameter = key.rsplit("/", 2)
            overrides.setdefault((name, kind), {})[parameter] = value
        for (name, kind), columns in fields.items():
            program = columns["command"].split()[0].rpartition("/")[2]
            if name in master_cf.OPTIONS and kind == "unix":
                continue  # it takes released mail only: see `release_services`
            if program not in ("smtpd", "pickup", "qmqpd", "cleanup"):
                continue
            own = {**extra, **overrides.get((name, kind), {})}
            values = self.expanded(main, own) if own else dict(main)
            chroot = columns["chroot"] == "y" or (columns["chroot"] == "-" and _chroot_default(values))
            yield Service(name, kind, program, chroot, values, frozenset(overrides.get((name, kind), {})))

    def read(self) -> bytes:
        """The bytes of main.cf."""
        return read_file(self.main_cf)

    def read_master(self) -> bytes:
        """The bytes of master.cf."""
        return read_file(self.master_cf)

    def _run(self, *arguments: str) -> str:
        command = shutil.which("postconf", path=f"{os.environ.get('PATH', '')}:{SBIN}")
        if command is None:
            raise PostfixError(
                self.directory,
                "postconf is not on this host",
                "install Postfix, or run this command on a host that has it",
            )
        pretend = [] if self.stands_for == self.directory else ["-o", f"config_directory={self.stands_for}"]
        editing = bool({"-e", "-X"} & set(arguments[:1]))
        line = [command, "-c", str(self.directory), *([] if editing else pretend), *arguments]
        done = subprocess.run(  # noqa: S603 - no shell; the arguments are parameter names and values
            [part.encode("utf-8", "surrogateescape") for part in line],
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            encoding="utf-8",
            errors="surrogateescape",
        )
        if done.returncode != 0:
            reason = _reason(done.stderr).replace(str(self.directory), str(self.stands_for))
            raise PostfixError(
                self.stands_for, f"postconf says: {reason}", "correct the configuration (see: postfix check)"
            )
        return done.stdout

    # -- editing -------------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self, main_cf: bytes, master_cf: bytes) -> Iterator[Postconf]:
        """A temporary copy of the directory with these texts as its files, to be edited."""
        with tempfile.TemporaryDirectory(prefix="undisclosed-") as name:
            copy = Postconf(Path(name), stands_for=self.stands_for)
            copy.main_cf.write_bytes(main_cf if main_cf.endswith(b"\n") or not main_cf else main_cf + b"\n")
            copy.master_cf.write_bytes(master_cf)
            copy._backdate()
            yield copy

    def edit(self, values: Mapping[str, str | None]) -> None:
        """Set parameters, or remove them (None), with postconf. For a draft only: see the module's docstring."""
        for name, value in values.items():
            if value is None:
                self._run("-X", name)
            else:
                self._run("-e", f"{name}={value}")
        self._backdate()

    def _backdate(self) -> None:
        """Make main.cf look older: Postfix waits a second or more before it reads a new file (dict_load_file_xt)."""
        past = time.time() - 10
        os.utime(self.main_cf, (past, past))


def _reason(errors: str) -> str:
    """The last two messages of postconf: the error, and the warning before it, which often names the parameter."""
    lines = [line.partition("postconf: ")[2] or line for line in errors.strip().splitlines()]
    messages = [line for line in lines if not re.search(r"unused parameter|unknown parameter", line)]
    return (
        "; ".join(line.removeprefix("fatal: ").removeprefix("warning: ") for line in messages[-2:]) or "no reason given"
    )


def _pairs(output: str) -> dict[str, str]:
    lines = (line.partition("=") for line in output.split("\n") if "=" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


def _chroot_default(values: Mapping[str, str]) -> bool:
    """Whether `-` in the chroot column means yes: it does below compatibility level 1 (master(5))."""
    level = values.get("compatibility_level", "0").partition(".")[0]
    return not level.isdigit() or int(level) < 1
