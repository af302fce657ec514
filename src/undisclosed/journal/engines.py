"""The two databases that the journal can live in: how each is opened, so that nothing in it can wait for long.

SQLite: one file in WAL mode, opened only if it exists. PostgreSQL: a deadline on our side for every transaction, since
a frozen server answers neither its own timeouts nor the kernel's (its kernel still acknowledges what we send).
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

PATIENCE: Final = 2.0
"""Seconds that a transaction may wait for a lock, or take altogether in PostgreSQL."""

POSTGRES: Final = "postgresql+psycopg"

CHANNEL: Final = "undisclosed"
"""The PostgreSQL channel on which new work is announced."""

ERRORS: Final = (sa.exc.SQLAlchemyError, sqlite3.Error, OSError)
"""What a database that cannot be used raises."""


def engine(url: str) -> sa.Engine:
    """An engine that has not connected yet. Raises UnusableError for a URL that cannot be one of the journal."""
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
    """The file of an SQLite URL. Raises UnusableError for a database in memory, which nobody else could read."""
    database = sa.make_url(url).database
    if not database or not database.startswith("/"):
        raise UnusableError(
            'journal.url must name a file by its whole path: "sqlite:////var/lib/undisclosed/journal.db"'
        )
    return Path(database)


def make_file(path: Path) -> None:
    """Make an empty database file that its directory's owner can write, whoever we are. Raises OSError.

    SQLite gives `-wal` and `-shm` the owner and mode of the file itself (unixOpenSharedMemory and findCreateFileMode
    in its os_unix.c), so that a command of root's leaves nothing behind that the milter's user could not write.
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
    sqlite3.Error, also where there is no such file: making one is `journal upgrade`'s to do.
    """
    address = f"file:{quote(str(path))}?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


class Plain(SQLiteDialect_pysqlite):
    """SQLite without the SQL functions that SQLAlchemy adds in Python (see `direct`).

    They are destroyed with their connection, on whichever thread the garbage collector finds it.
    """

    supports_statement_cache = True

    def on_connect(self) -> Callable[[Any], None]:
        """Nothing to do."""
        return lambda _connection: None


registry.register("sqlite.plain", __name__, Plain.__name__)


def _sqlite(path: Path) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        return connect_sqlite(path, synchronous="FULL")  # what the steward has done survives a power cut

    made = sa.create_engine("sqlite+plain://", creator=connect, poolclass=pool.QueuePool, pool_timeout=PATIENCE)

    @event.listens_for(made, "connect")
    def _remember(_connection: Any, record: Any) -> None:
        record.info["file"] = identity(path)

    @event.listens_for(made, "checkout")
    def _same_file(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get("file") != identity(path):  # moved away or put back from a backup
            raise sa.exc.DisconnectionError

    @event.listens_for(made, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes then could fail without waiting (SQLITE_BUSY_SNAPSHOT).
        writes = connection.get_execution_options().get("writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


Identity = tuple[int, int] | None
"""Which file a path means: its device and inode number, or None."""


def identity(path: Path) -> Identity:
    """Which file a path means now. Raises OSError, but for a file that is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _postgres(url: sa.URL) -> sa.Engine:
    import psycopg  # noqa: F401  to learn now whether it is there

    made = sa.create_engine(url, poolclass=pool.QueuePool, pool_timeout=PATIENCE)

    @event.listens_for(made, "do_connect")
    def _connect(_dialect: Any, _record: Any, _args: list[Any], _kwargs: dict[str, Any]) -> Any:
        return connect_postgres(url)

    @event.listens_for(made, "checkout")
    def _alive(connection: Any, _record: Any, _proxy: Any) -> None:
        # An idle connection has nothing to say but that the server has ended it: found without asking the server.
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if poll.poll(0):
            raise sa.exc.DisconnectionError
        connection.allow(PATIENCE)

    @event.listens_for(made, "begin")
    def _begin(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.allow(connection.get_execution_options().get("seconds", PATIENCE))

    return made


def connect_postgres(url: sa.URL) -> Any:
    """A psycopg connection whose `allow(seconds)` says how long all that follows may take."""
    import psycopg

    class Punctual(psycopg.Connection[Any]):
        """A connection that gives up, and closes, when what it does takes longer than it may."""

        deadline = float("inf")

        def allow(self, seconds: float) -> None:
            """Let all that follows take so long, together."""
            self.deadline = time.monotonic() + seconds

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            """Wait for the server, until the deadline at most. Raises psycopg.OperationalError."""
            try:
                return super().wait(_until(gen, self.deadline), *args, **kwargs)
            except TimeoutError:
                self.close()
                raise psycopg.OperationalError("the server did not answer in time") from None

    milliseconds = int(PATIENCE * 1000)
    parameters = {
        "connect_timeout": max(2, int(PATIENCE)),
        "tcp_user_timeout": milliseconds,
        "application_name": "undisclosed",
        "client_encoding": "utf8",
        "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
        f" -c idle_in_transaction_session_timeout={5 * milliseconds} -c timezone=UTC",
        **url.translate_connect_args(database="dbname", username="user"),
        **url.query,
    }
    return Punctual.connect("", **parameters)


def _until(gen: Any, deadline: float) -> Generator[Any, Any, Any]:
    """psycopg's generator of waits, ended by TimeoutError when the deadline has passed."""
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


def explained(error: BaseException, url: str) -> JournalError:
    """What went wrong with the database, in words for its administrator, without the URL's password."""
    where = sa.make_url(url).render_as_string(hide_password=True)
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    missing_table = "no such table" in text or type(cause).__name__ == "UndefinedTable"
    if missing_table:
        return WrongVersionError(f"the journal {where} has no tables yet: run `undisclosed journal upgrade`")
    if "unable to open database file" in text and not sqlite_path(url).exists():
        return WrongVersionError(f"the journal {where} does not exist yet: run `undisclosed journal upgrade`")
    fix = next((fix for words, fix in _FIXES if words in text), "see that the database runs and may be written")
    return JournalError(f"the journal {where} cannot be used ({text}): {fix}")


_FIXES: Final = (
    ("readonly database", "let the milter's user write the file, its -wal and -shm, and their directory"),
    ("unable to open", "let the milter's user write the file and its directory"),
    ("is locked", "see what holds it open for writing: `fuser -v` with the file's name"),
    ("is full", "make room on its disk"),
    ("disk I/O error", "see whether its disk is full or failing"),
    ("malformed", "put it back from a backup, or move it away and run `undisclosed journal upgrade`"),
    ("not a database", "put it back from a backup, or move it away and run `undisclosed journal upgrade`"),
    ("authentication failed", "mend user and password in journal.url"),
    ("permission denied", "grant its rights to the user in journal.url"),
)
"""What an error's text says, and what to do."""
