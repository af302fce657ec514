"""One Postfix configuration directory: what is asked of it, and what is written to it.

The only place that runs postconf(1) and the only one that reads or writes the directory. postconf does the editing, on
a copy: run on main.cf itself it makes a symbolic link a file, forgets owner and mode, and joins what it appends to a
last line that has no line end (seen with 3.7).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from undisclosed.postfix import master_cf
from undisclosed.postfix.model import Service, Settings

RECORD = "undisclosed-attach.json"
LOCK_SECONDS = 10.0
SBIN = "/usr/sbin:/usr/local/sbin"

PARAMETERS = (
    "smtpd_milters",
    "non_smtpd_milters",
    "enable_long_queue_ids",
    "cleanup_service_name",
    "compatibility_level",
    "content_filter",
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
    "smtpd_recipient_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_restriction_classes",
    "smtpd_sasl_auth_enable",
    "soft_bounce",
)
"""What is read of main.cf, and of each service."""


class PostfixError(Exception):
    """What keeps a command from working on a Postfix: the file or directory, what is wrong, what to do about it."""

    def __init__(self, file: Path, problem: str, fix: str) -> None:
        super().__init__(f"{file}: {problem}; {fix}")
        self.file = file
        self.problem = problem
        self.fix = fix


class Postconf:
    """A Postfix configuration directory. Every method raises PostfixError."""

    def __init__(self, config_dir: Path, *, stands_for: Path | None = None) -> None:
        """`stands_for`: the directory of which this one is a copy; `$config_directory` keeps meaning that one."""
        self.directory = config_dir.absolute()
        self.stands_for = (stands_for or config_dir).absolute()
        self.main_cf = self.directory / "main.cf"
        self.master_cf = self.directory / "master.cf"
        self.files = (self.main_cf, self.master_cf)

    def check(self) -> None:
        """See that this is the configuration of a Postfix that knows groups in milter lists (3.0 and later)."""
        if not self.directory.is_dir():
            raise PostfixError(self.directory, "no such directory", "name the directory of main.cf (--config-dir)")
        for file in self.files:
            try:
                regular = stat.S_ISREG(file.stat().st_mode)
            except OSError as error:
                fix = f"name the directory that holds Postfix's main.cf and master.cf, or put {file.name} there first"
                if isinstance(error, PermissionError):
                    fix = "run the command as root"
                raise PostfixError(file, f"cannot be looked at ({error.strerror})", fix) from error
            if not regular:
                raise PostfixError(file, "is not a file", "name the directory of Postfix's main.cf and master.cf")
        version = self._run("-d", "-h", "mail_version").strip()
        if int(version.partition(".")[0] or 0) < 3:
            raise PostfixError(self.directory, f"Postfix {version} is too old", "use Postfix 3.0 or later")

    def check_writable(self) -> None:
        """See that main.cf and the record can be replaced: both need a writable directory."""
        for directory in {self.directory, self.main_cf.resolve().parent, self.master_cf.resolve().parent}:
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PostfixError(
                    directory, "this user may not write here", "run the command as root, or with --dry-run"
                )

    # -- asking ----------------------------------------------------------------------------------------------------

    def raw(self, names: Iterable[str]) -> dict[str, str]:
        """The values that main.cf itself gives to some parameters, variables as they are written."""
        wanted, values = set(names), _pairs(self._run("-n"))
        return {name: value for name, value in values.items() if name in wanted}

    def expanded(self, names: Iterable[str], overrides: Mapping[str, str] | None = None) -> dict[str, str]:
        """The values that hold, defaults included and variables replaced, as with `-o` in master.cf."""
        options = [part for name, value in (overrides or {}).items() for part in ("-o", f"{name}={value}")]
        return _pairs(self._run("-x", *options, *names))

    def settings(self) -> Settings:
        """Main.cf and master.cf as the daemons see them, and as they see them under stress where that differs."""
        main = self.expanded(PARAMETERS)
        services = list(self._services(main, {}))
        if b"stress" in self.read() + self._read(self.master_cf):
            # smtpd runs with stress=yes while clients queue for it (STRESS_README): a value may depend on that.
            pairs = zip(self._services(main, {"stress": "yes"}), tuple(services), strict=True)
            services += [replace(busy, stress=True) for busy, calm in pairs if busy.settings != calm.settings]
        return Settings(str(self.stands_for), main, tuple(services))

    def listener(self) -> dict[str, master_cf.Line]:
        """What master.cf says of the services that take released mail."""
        lines = {}
        for name in master_cf.OPTIONS:
            columns = _pairs(self._run("-F", f"{name}/unix"))
            if columns:
                own = _pairs(self._run("-P", f"{name}/unix"))
                fields, options = (
                    {key.rsplit("/", 1)[1]: value for key, value in found.items()} for found in (columns, own)
                )
                lines[name] = master_cf.Line(fields, options)
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
                continue  # it takes released mail only: see `listener`
            if program not in ("smtpd", "pickup", "qmqpd", "cleanup"):
                continue
            own = {**extra, **overrides.get((name, kind), {})}
            values = self.expanded(PARAMETERS, own) if own else dict(main)
            chroot = columns["chroot"] == "y" or (columns["chroot"] == "-" and _chroot_default(values))
            yield Service(name, kind, program, chroot, values, frozenset(overrides.get((name, kind), {})))

    def read(self) -> bytes:
        """The bytes of main.cf."""
        return self._read(self.main_cf)

    def read_master(self) -> bytes:
        """The bytes of master.cf."""
        return self._read(self.master_cf)

    def _read(self, file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            raise PostfixError(file, f"cannot be read ({error.strerror})", "run the command as root") from error

    def _run(self, *arguments: str) -> str:
        command = shutil.which("postconf", path=f"{os.environ.get('PATH', '')}:{SBIN}")
        if command is None:
            raise PostfixError(
                self.directory, "postconf is not on this host", "install Postfix, or run this where it is"
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
            said = _said(done.stderr).replace(str(self.directory), str(self.stands_for))
            raise PostfixError(self.stands_for, f"postconf says: {said}", "mend the configuration (see: postfix check)")
        return done.stdout

    # -- editing ---------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self, main_cf: bytes, master_cf: bytes) -> Iterator[Postconf]:
        """A copy of the directory in a temporary place, with these texts as its files, to try edits on."""
        with tempfile.TemporaryDirectory(prefix="undisclosed-") as name:
            copy = Postconf(Path(name), stands_for=self.stands_for)
            copy.main_cf.write_bytes(main_cf if main_cf.endswith(b"\n") or not main_cf else main_cf + b"\n")
            copy.master_cf.write_bytes(master_cf)
            copy._age()
            yield copy

    def edit(self, values: Mapping[str, str | None]) -> None:
        """Set parameters, or take them out (None), with postconf. Only for a draft: see the module."""
        for name, value in values.items():
            if value is None:
                self._run("-X", name)
            else:
                self._run("-e", f"{name}={value}")
        self._age()

    def _age(self) -> None:
        """Let a draft look old: Postfix waits a second or more over a file that is as new as that (dict_load_file)."""
        past = time.time() - 10
        os.utime(self.main_cf, (past, past))

    def record(self) -> bytes | None:
        """What attach has written down beside main.cf, if it has."""
        file = self.directory / RECORD
        return self._read(file) if file.exists() else None

    @contextmanager
    def locked(self, file: Path) -> Iterator[Writer]:
        """The right to write main.cf or master.cf. Keeps out every other program that edits by Postfix's own protocol.

        The lock is the one of postconf(1): an flock on main.cf.tmp, which then replaces main.cf (edit_file.c). So what
        is read under it cannot change before it is replaced, and the file is whole at every moment.
        """
        self.check_writable()
        target = file.resolve()
        temporary = target.with_name(target.name + ".tmp")
        try:
            fd = _own(temporary)
            writer = Writer(target, temporary, fd, self.directory / RECORD)
            try:
                yield writer
            finally:
                if not writer.replaced:
                    temporary.unlink(missing_ok=True)
                os.close(fd)
        except OSError as error:
            file = Path(error.filename or target)
            raise PostfixError(file, f"cannot be written ({error.strerror})", "run the command as root") from error


class Writer:
    """The right to replace a file once, and to keep or drop the record of it."""

    def __init__(self, target: Path, temporary: Path, fd: int, record: Path) -> None:
        self._target = target
        self._temporary = temporary
        self._fd = fd
        self._record = record
        self.replaced = False

    def replace(self, text: bytes) -> None:
        """Put a new file in the old one's place: same owner, group, mode and attributes, whole at every moment."""
        old = self._target.stat()
        _write(self._fd, text)
        os.fchown(self._fd, old.st_uid, old.st_gid)
        shutil.copystat(self._target, self._temporary)
        os.utime(self._temporary)
        os.fsync(self._fd)
        self._temporary.replace(self._target)
        self.replaced = True
        _sync(self._target.parent)

    def keep(self, record: bytes) -> None:
        """Write the record, as private as main.cf. Before main.cf: one too many is harmless, one too few is not."""
        old = self._target.stat()
        temporary = self._record.with_name(self._record.name + ".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            _write(fd, record)
            os.fchown(fd, old.st_uid, old.st_gid)
            os.fchmod(fd, stat.S_IMODE(old.st_mode) & 0o666)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(self._record)
        _sync(self._record.parent)

    def drop(self) -> None:
        """Remove the record, if there is one."""
        self._record.unlink(missing_ok=True)
        _sync(self._record.parent)


def _own(temporary: Path) -> int:
    """Open and lock main.cf.tmp as edit_file_open() of Postfix does; what a crash left there is emptied and used."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(fd)
            with suppress(FileNotFoundError):
                here = temporary.stat()
                if (mine.st_dev, mine.st_ino) == (here.st_dev, here.st_ino):
                    if stat.S_ISREG(mine.st_mode) and mine.st_nlink == 1 and stat.S_IMODE(mine.st_mode) == 0o600:
                        os.ftruncate(fd, 0)
                        return fd
                    temporary.unlink()
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                fix = "wait for the other postconf or attach to end, then run the command again"
                raise PostfixError(temporary, "another program is editing main.cf", fix) from None
            time.sleep(0.02)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _write(fd: int, content: bytes) -> None:
    with os.fdopen(os.dup(fd), "wb") as stream:
        stream.write(content)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _said(errors: str) -> str:
    """What postconf ended with, and the warning before it, which often names the parameter."""
    lines = [line.partition("postconf: ")[2] or line for line in errors.strip().splitlines()]
    told = [line for line in lines if not re.search(r"unused parameter|unknown parameter", line)]
    return "; ".join(line.removeprefix("fatal: ").removeprefix("warning: ") for line in told[-2:]) or "no reason given"


def _pairs(output: str) -> dict[str, str]:
    lines = (line.partition("=") for line in output.split("\n") if "=" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


def _chroot_default(values: Mapping[str, str]) -> bool:
    """What `-` means in the chroot column: yes before compatibility level 1, no from there on (master(5))."""
    level = values.get("compatibility_level", "0").partition(".")[0]
    return not level.isdigit() or int(level) < 1
