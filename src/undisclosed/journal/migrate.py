"""`undisclosed journal upgrade`: make the tables, or bring them to this version. The only file that imports alembic."""

from __future__ import annotations

import os
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from undisclosed.incidents.records import JournalError, WrongKeyError, WrongVersionError
from undisclosed.journal import engines, tables
from undisclosed.journal.database import is_newer, released_version
from undisclosed.journal.journal import fingerprint
from undisclosed.policy.sections import JournalSection

MAX_SECONDS: Final = 600.0
"""Seconds that one step of an upgrade may take in PostgreSQL."""


def configuration() -> Config:
    """Alembic's configuration: the migrations are part of the package, and there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", "undisclosed.journal:migrations")
    config.set_main_option("path_separator", "os")
    return config


def upgrade(settings: JournalSection, key: bytes) -> None:
    """Bring a journal's database to this version, all or nothing, and record the key's fingerprint in a new one.

    Raises JournalError, and then has changed nothing: WrongKeyError for a journal with another key, WrongVersionError
    for one that this version of undisclosed cannot upgrade.
    """
    url = settings.url
    engine = engines.engine(url)
    try:
        _prepare(engine, url)
        with engine.connect() as connection:
            options = connection.execution_options(seconds=MAX_SECONDS)
            with options.begin():
                if engine.dialect.name == "postgresql":
                    _lock_upgrade(options)
                _refuse_unfit(options, url, fingerprint(key))
                config = configuration()
                config.attributes["connection"] = options
                command.upgrade(config, "head")
                _record_shape_and_key(options, fingerprint(key))
    except engines.ERRORS as error:
        raise engines.translated(error, url) from error
    except CommandError as error:
        raise JournalError(f"the journal cannot be brought to version {tables.HEAD}: {error}") from error
    finally:
        engine.dispose()


def _record_shape_and_key(connection: sa.Connection, key_fingerprint: str) -> None:
    """Record the SHAPE that the migrations have made, and in a new journal the key's fingerprint."""
    updated = connection.execute(sa.update(tables.journal_info).values(shape=tables.SHAPE))
    if updated.rowcount == 0:
        values = {"id": 1, "fingerprint": key_fingerprint, "shape": tables.SHAPE, "probe": os.urandom(16)}
        connection.execute(sa.insert(tables.journal_info).values(**values))


def _prepare(engine: sa.Engine, url: str) -> None:
    if engine.dialect.name != "sqlite":
        return
    path = engines.sqlite_path(url)
    try:
        engines.make_file(path)
    except FileNotFoundError as error:
        raise JournalError(f"the directory {path.parent} of journal.url does not exist: make it first") from error
    except OSError as error:
        raise JournalError(f"{path} cannot be made ({error.strerror}): see which users may write there") from error
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA journal_mode = WAL")  # stays with the file; not possible within a transaction


def _lock_upgrade(connection: sa.Connection) -> None:
    """Wait until no other upgrade runs. Raises JournalError for a database that is not in UTF-8."""
    encoding = connection.scalar(sa.text("SHOW server_encoding"))
    if encoding != "UTF8":
        fix = "create it again: createdb --encoding UTF8 --template template0"
        raise JournalError(f"the database keeps text as {encoding}, which cannot hold every name: {fix}")
    connection.execute(sa.text(f"SET LOCAL statement_timeout = '{MAX_SECONDS:g}s'"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('undisclosed upgrade', 0))"))


def _refuse_unfit(connection: sa.Connection, url: str, key_fingerprint: str) -> None:
    """Raises WrongVersionError for tables that cannot be upgraded, WrongKeyError for those of another key."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return
    version = released_version(lambda query: connection.scalar(sa.text(query)), url)
    if is_newer(version):
        raise WrongVersionError(
            f"the journal's tables have version {version}, newer than this undisclosed knows ({tables.HEAD}):"
            " upgrade undisclosed on this host too"
        )
    recorded = connection.scalar(sa.select(tables.journal_info.c.fingerprint))
    if recorded is not None and recorded != key_fingerprint:
        raise WrongKeyError
