"""The journal's two kinds of database: how each is opened so that no transaction can wait for long.

SQLite: one file in WAL mode, opened only if it exists. PostgreSQL: a deadline on our side for every transaction, since
neither the server's timeouts nor TCP's end the wait for a frozen server (its kernel still acknowledges our packets).
"""

from __future__ import annotations

import os
import select
import sqlite3
import stat
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event, pool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from undisclosed.incidents.records import JournalError, UnusableError, WrongVersionError

LOCK_TIMEOUT: Final = 2.0
"""Seconds for which a transaction may wait for a lock; in PostgreSQL, those that it may take in all."""

POSTGRES: Final = "postgresql+psycopg"

CHANNEL: Final = "undisclosed"
"""The PostgreSQL channel of notifications about new work."""

ERRORS: Final = (sa.exc.SQLAlchemyError, sqlite3.Error, OSError)
"""The errors of a database that cannot be used."""


def engine(url: str) -> sa.Engine:
    """An engine that has not connected yet. Raises UnusableError for a URL that cannot be a journal's."""
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername=POSTGRES)
        if parsed.drivername == "sqlite":
            return _sqlite(sqlite_path(url))
        if parsed.drivername == POSTGRES:
            return _postgres(parsed)
    except sa.exc.ArgumentError as error:
        raise UnusableError(f"journal.url cannot be read: {error}") from error
    except ModuleNotFoundError as error:
        raise UnusableError(
            f"journal.url names PostgreSQL, and its driver is not installed: pip install 'undisclosed[postgres]'"
            f" ({error})"
        ) from error
    raise UnusableError(f'journal.url must begin with "sqlite:///" or "{POSTGRES}://"')


def is_sqlite(url: str) -> bool:
    """Whether a URL means an SQLite file."""
    return url.startswith("sqlite:")


def sqlite_path(url: str) -> Path:
    """The file of an SQLite URL. Raises UnusableError for a database in memory: no other process could read it."""
    database = sa.make_url(url).database
    if not database or not database.startswith("/"):
        raise UnusableError(
            'journal.url must name a file by its whole path: "sqlite:////var/lib/undisclosed/journal.db"'
        )
    return Path(database)


def make_file(path: Path) -> None:
    """Make an empty database file that its directory's owner can write, also if root makes it. Raises OSError.

    SQLite gives `-wal` and `-shm` the owner and mode of the file itself (unixOpenSharedMemory and findCreateFileMode
    in its os_unix.c), so that a command run by root leaves no file that the milter's user could not write.
    """
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        directory = path.parent.stat()
        if os.geteuid() == 0:
            os.fchown(fd, directory.st_uid, directory.st_gid)
        os.fchmod(fd, 0o600 | stat.S_IMODE(directory.st_mode) & 0o060)  # not by umask
    finally:
        os.close(fd)


def connect_sqlite(path: Path, *, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time; transactions are begun and ended by hand.

    Only with FULL is a commit on the disk when it returns (sqlite.org/pragma.html#pragma_synchronous). Raises
    sqlite3.Error, also where there is no such file: only `journal upgrade` makes one.
    """
    address = f"file:{quote(str(path))}?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


class PlainSqlite(SQLiteDialect_pysqlite):
    """SQLite without the SQL functions that SQLAlchemy adds in Python (see sqlite_writes.py).

    They are destroyed with their connection, on any thread on which the garbage collector runs.
    """

    supports_statement_cache = True

    def on_connect(self) -> Callable[[Any], None]:
        """Adds no SQL functions."""
        return lambda _connection: None


registry.register("sqlite.plain", __name__, PlainSqlite.__name__)


def _sqlite(path: Path) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        return connect_sqlite(path, synchronous="FULL")  # the steward's records survive a power loss

    made = sa.create_engine("sqlite+plain://", creator=connect, poolclass=pool.QueuePool, pool_timeout=LOCK_TIMEOUT)

    @event.listens_for(made, "connect")
    def _remember(_connection: Any, record: Any) -> None:
        record.info["file"] = file_identity(path)

    @event.listens_for(made, "checkout")
    def _same_file(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get("file") != file_identity(path):  # moved away or put back from a backup
            raise sa.exc.DisconnectionError

    @event.listens_for(made, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes then could fail without waiting (SQLITE_BUSY_SNAPSHOT).
        writes = connection.get_execution_options().get("writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


FileIdentity = tuple[int, int] | None
"""The device and inode number of a file; None if there is none."""


def file_identity(path: Path) -> FileIdentity:
    """The identity of the file that the path names now. Raises OSError, except for a missing file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _postgres(url: sa.URL) -> sa.Engine:
    import psycopg  # noqa: F401  fails now if it is not installed

    made = sa.create_engine(url, poolclass=pool.QueuePool, pool_timeout=LOCK_TIMEOUT)

    @event.listens_for(made, "do_connect")
    def _connect(_dialect: Any, _record: Any, _args: list[Any], _kwargs: dict[str, Any]) -> Any:
        return connect_postgres(url)

    @event.listens_for(made, "checkout")
    def _alive(connection: Any, _record: Any, _proxy: Any) -> None:
        # An idle connection can be read only if the server has closed it: seen without a round trip to the server.
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if poll.poll(0):
            raise sa.exc.DisconnectionError
        connection.allow(LOCK_TIMEOUT)

    @event.listens_for(made, "begin")
    def _begin(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.allow(connection.get_execution_options().get("seconds", LOCK_TIMEOUT))

    return made


def connect_postgres(url: sa.URL) -> Any:
    """A psycopg connection whose `allow(seconds)` limits the time of all calls that follow, together."""
    import psycopg

    class DeadlineConnection(psycopg.Connection[Any]):
        """A connection that closes itself, with an error, when its calls take longer than they may."""

        deadline = float("inf")

        def allow(self, seconds: float) -> None:
            """Limit the time of all calls that follow, together."""
            self.deadline = time.monotonic() + seconds

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            """Wait for the server, until the deadline at most. Raises psycopg.OperationalError."""
            try:
                return super().wait(_until(gen, self.deadline), *args, **kwargs)
            except TimeoutError:
                self.close()
                raise psycopg.OperationalError("the server did not answer in time") from None

    milliseconds = int(LOCK_TIMEOUT * 1000)
    parameters = {
        "connect_timeout": max(2, int(LOCK_TIMEOUT)),
        "tcp_user_timeout": milliseconds,
        "application_name": "undisclosed",
        "client_encoding": "utf8",
        "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
        f" -c idle_in_transaction_session_timeout={5 * milliseconds} -c timezone=UTC",
        **url.translate_connect_args(database="dbname", username="user"),
        **url.query,
    }
    return DeadlineConnection.connect("", **parameters)


def _until(gen: Any, deadline: float) -> Generator[Any, Any, Any]:
    """A generator of psycopg's waits that raises TimeoutError when the deadline has passed."""
    try:
        state = next(gen)
        while True:
            ready = yield state
            if not ready and time.monotonic() > deadline:
                gen.close()
                raise TimeoutError
            state = gen.send(ready)
    except StopIteration as end:
        return end.value


def translated(error: BaseException, url: str) -> JournalError:
    """A database's error in words for its administrator, without the URL's password."""
    where = sa.make_url(url).render_as_string(hide_password=True)
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if is_missing_table(error):
        return WrongVersionError(f"the journal {where} has no tables yet: run `undisclosed journal upgrade`")
    if "unable to open database file" in text and _is_missing(path := sqlite_path(url)):
        if not path.parent.is_dir():  # a file system that is not mounted yet: a later attempt may succeed
            return JournalError(f"the journal {where} cannot be used: its directory does not exist: make or mount it")
        return WrongVersionError(f"the journal {where} does not exist yet: run `undisclosed journal upgrade`")
    fix = next((fix for words, fix in _FIXES if words in text), "see that the database runs and may be written")
    return JournalError(f"the journal {where} cannot be used ({text}): {fix}")


def is_missing_table(error: BaseException) -> bool:
    """Whether a database's error says that a table does not exist."""
    cause = getattr(error, "orig", None) or error
    return "no such table" in str(cause) or type(cause).__name__ == "UndefinedTable"


def is_missing_column(error: BaseException) -> bool:
    """Whether a database's error says that a column does not exist."""
    cause = getattr(error, "orig", None) or error
    return "no such column" in str(cause) or type(cause).__name__ == "UndefinedColumn"


def _is_missing(path: Path) -> bool:
    """Whether there is no such file. One that may not be looked at is not missing."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


_FIXES: Final = (
    ("readonly database", "let the milter's user write the file, its -wal and -shm, and their directory"),
    ("unable to open", "let the milter's user write the file and its directory"),
    ("is locked", "see what holds it open for writing: `fuser -v` with the file's name"),
    ("is full", "make room on its disk"),
    ("disk I/O error", "see whether its disk is full or failing"),
    ("malformed", "put it back from a backup, or move it away and run `undisclosed journal upgrade`"),
    ("not a database", "put it back from a backup, or move it away and run `undisclosed journal upgrade`"),
    ("authentication failed", "correct user and password in journal.url"),
    ("permission denied", "grant its rights to the user in journal.url"),
)
"""Words of an error's text, and the remedy."""
