"""`undisclosed journal upgrade`: make the tables, or bring them to this version. Alone imports alembic."""

from __future__ import annotations

import os
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from undisclosed.incidents.records import JournalError, WrongKeyError, WrongVersionError
from undisclosed.journal import engines, tables
from undisclosed.journal.database import WRONG_KEY

LONGEST: Final = 600.0
"""Seconds that one step of an upgrade may take in PostgreSQL."""


def configuration() -> Config:
    """Alembic's configuration: the migrations are part of the package, and there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", "undisclosed.journal:migrations")
    config.set_main_option("path_separator", "os")
    return config


def upgrade(url: str, fingerprint: str) -> None:
    """Bring the database to this version, all or nothing, and note the key's fingerprint where it has none.

    Raises JournalError; WrongKeyError, and changes nothing, where the fingerprint is another.
    """
    engine = engines.engine(url)
    try:
        _prepare(engine, url)
        with engine.connect() as connection:
            options = connection.execution_options(seconds=LONGEST)
            with options.begin():
                if engine.dialect.name == "postgresql":
                    _forbear(options)
                _refuse_newer(options)
                _refuse_other_key(options, fingerprint)
                config = configuration()
                config.attributes["connection"] = options
                command.upgrade(config, "head")
                if options.scalar(sa.select(sa.func.count()).select_from(tables.keeper)) == 0:
                    values = {"id": 1, "fingerprint": fingerprint, "probe": os.urandom(16)}
                    options.execute(sa.insert(tables.keeper).values(**values))
    except engines.ERRORS as error:
        raise engines.explained(error, url) from error
    except CommandError as error:
        raise JournalError(f"the journal cannot be brought to version {tables.HEAD}: {error}") from error
    finally:
        engine.dispose()


def _prepare(engine: sa.Engine, url: str) -> None:
    if engine.dialect.name != "sqlite":
        return
    path = engines.sqlite_path(url)
    try:
        engines.make_file(path)
    except FileNotFoundError as error:
        raise JournalError(f"the directory {path.parent} of journal.url does not exist: make it first") from error
    except OSError as error:
        raise JournalError(f"{path} cannot be made ({error.strerror}): see who may write to its directory") from error
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA journal_mode = WAL")  # stays with the file; not possible within a transaction


def _forbear(connection: sa.Connection) -> None:
    """Let nobody else upgrade at the same time; and no text would fit into a database that is not in UTF-8."""
    encoding = connection.scalar(sa.text("SHOW server_encoding"))
    if encoding != "UTF8":
        fix = "make it anew: createdb --encoding UTF8 --template template0"
        raise JournalError(f"the database keeps text as {encoding}, which cannot hold every name: {fix}")
    connection.execute(sa.text(f"SET LOCAL statement_timeout = '{LONGEST:g}s'"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('undisclosed upgrade', 0))"))


def _refuse_newer(connection: sa.Connection) -> None:
    if sa.inspect(connection).has_table("alembic_version"):
        version = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if isinstance(version, str) and version > tables.HEAD:
            raise WrongVersionError(
                f"the journal's tables have version {version}, newer than this undisclosed knows ({tables.HEAD}):"
                " upgrade undisclosed on this host too"
            )


def _refuse_other_key(connection: sa.Connection, fingerprint: str) -> None:
    if sa.inspect(connection).has_table(tables.keeper.name):
        kept = connection.scalar(sa.select(tables.keeper.c.fingerprint))
        if kept is not None and kept != fingerprint:
            raise WrongKeyError(WRONG_KEY)
