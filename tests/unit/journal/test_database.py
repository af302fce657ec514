"""The journal's database: made and upgraded in one step, refused with another version or key, given up in time."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from lab.postgres import Postgres
from support import children
from support.factories import transaction
from support.journals import KEY, MakeJournal
from undisclosed.incidents.records import JournalError, UnusableError, WrongKeyError, WrongVersionError
from undisclosed.journal import engines, migrate, tables
from undisclosed.journal.journal import Journal
from undisclosed.policy.sections import JournalSection

SOON = 20.0
"""Seconds within which a journal that cannot be used has to say so: ten times its own limit, for a busy machine."""


def open_journal(url: str, key: bytes = KEY) -> Journal:
    """A Journal in any database, also one that cannot be used."""
    return Journal(JournalSection(url=url), key)


def sqlite_url(path: Path) -> str:
    """A new SQLite journal in a file."""
    url = f"sqlite:///{path}"
    migrate.upgrade(JournalSection(url=url), KEY)
    return url


@contextmanager
def in_time() -> Iterator[None]:
    """Check that the block ends soon."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON


SECOND_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("incident", sa.Column("new", sa.Text()))
"""

# -- versions and keys


def test_a_database_without_tables_names_the_command(journal_url: str) -> None:
    """With a missing file and with an empty database."""
    with closing(open_journal(journal_url)) as journal:
        for attempt in (
            journal.check,
            journal.incidents.search,
            journal.inbox.probe,
            lambda: journal.filing.record(transaction()),
        ):
            with pytest.raises(WrongVersionError, match="run `undisclosed journal upgrade`"):
                attempt()


def test_the_migrations_make_the_tables_of_the_code(make_journal: MakeJournal, journal_url: str) -> None:
    """The migrated schema equals the metadata, and the latest migration is the version that the code checks for."""
    journal = make_journal()
    journal.check()
    with engines.engine(journal_url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    assert ScriptDirectory.from_config(migrate.configuration()).get_heads() == [tables.HEAD]


def test_an_upgrade_of_a_sound_database_changes_nothing(journal: Journal, journal_url: str) -> None:
    """The command may be run at every deployment."""
    journal.filing.record(transaction())
    before = journal.incidents.search()
    migrate.upgrade(JournalSection(url=journal_url), KEY)
    assert journal.incidents.search() == before


@pytest.mark.parametrize(
    ("version", "fix"), [("0000", "journal upgrade"), ("9999", "upgrade undisclosed on this host")]
)
def test_another_version_is_refused(journal: Journal, journal_url: str, version: str, fix: str) -> None:
    """An older one with the upgrade command, a newer one with another remedy; the upgrade refuses a newer one."""
    with engines.engine(journal_url).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    with closing(open_journal(journal_url)) as other, pytest.raises(WrongVersionError, match=fix):
        other.check()
    if version == "9999":
        with pytest.raises(WrongVersionError, match="newer than this undisclosed knows"):
            migrate.upgrade(JournalSection(url=journal_url), KEY)


def old_tables(url: str, version: str) -> None:
    """The tables by which a journal of an unreleased version is recognised: it had no journal_info, but a keeper."""
    if url.startswith("sqlite:"):
        engines.make_file(engines.sqlite_path(url))
    with engines.engine(url).begin() as connection:
        for statement in (
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
            f"INSERT INTO alembic_version VALUES ('{version}')",
            "CREATE TABLE keeper (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL)",
        ):
            connection.exec_driver_sql(statement)


def assert_unreleased(url: str) -> None:
    """Reading, writing and an upgrade refuse the journal, name it, and name the command that makes a new one."""
    where = sa.make_url(url).render_as_string(hide_password=True)
    with closing(open_journal(url)) as journal:
        upgrade = partial(migrate.upgrade, JournalSection(url=url), KEY)
        record = partial(journal.filing.record, transaction())
        for attempt in (journal.check, upgrade, record, lambda: journal.inbox.put([transaction()])):
            with pytest.raises(WrongVersionError, match="unreleased version of undisclosed") as caught:
                attempt()
            assert where in str(caught.value)
            assert str(caught.value).endswith("make a new journal: `undisclosed journal upgrade`")


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_a_journal_of_an_unreleased_version_is_refused(journal_url: str, version: str) -> None:
    """The error is neither that of an empty database nor that of a newer version, and the journal does not change."""
    old_tables(journal_url, version)
    assert_unreleased(journal_url)
    with engines.engine(journal_url).connect() as connection:
        assert sorted(sa.inspect(connection).get_table_names()) == ["alembic_version", "keeper"]


def test_a_journal_with_other_columns_is_refused(journal: Journal, journal_url: str) -> None:
    """Until the first release the version stays 0001 when a column is added: the shape tells them apart."""
    with engines.engine(journal_url).begin() as connection:
        connection.execute(sa.update(tables.journal_info).values(shape="0123456789abcdef"))
    assert_unreleased(journal_url)


def test_a_journal_that_a_later_migration_has_upgraded_can_be_used(
    journal: Journal, journal_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade records the new SHAPE: the journal of a release is not taken for that of an unreleased version."""
    journal.filing.record(transaction())
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "v0002_second.py").write_text(SECOND_MIGRATION)
    configuration = migrate.configuration()
    released = Path(ScriptDirectory.from_config(configuration).versions)
    configuration.set_main_option("version_locations", f"{released}{os.pathsep}{versions}")
    monkeypatch.setattr(migrate, "configuration", lambda: configuration)
    monkeypatch.setattr(tables, "HEAD", "0002")
    monkeypatch.setattr(tables, "SHAPE", "the shape of 0002")
    with closing(open_journal(journal_url)) as later:
        with pytest.raises(WrongVersionError, match=r"version 0001.*run `undisclosed journal upgrade`"):
            later.check()
        migrate.upgrade(JournalSection(url=journal_url), KEY)
        later.check()
        assert len(later.incidents.search()) == 1


def test_the_shape_does_not_depend_on_the_order_of_tables() -> None:
    """SQLAlchemy sorts tables by their foreign keys; another order in a later version must not refuse a journal."""
    turned = sa.MetaData()
    for name in sorted(tables.metadata.tables, reverse=True):
        tables.metadata.tables[name].to_metadata(turned)
    assert tables.shape_of(turned) == tables.SHAPE


def test_a_missing_column_is_not_a_missing_journal(journal: Journal, journal_url: str) -> None:
    """An upgrade does not repair a half-restored database: the error has the column, and may pass."""
    with engines.engine(journal_url).begin() as connection:
        connection.exec_driver_sql("ALTER TABLE incident DROP COLUMN subject")
    with pytest.raises(JournalError, match="subject") as caught:
        journal.incidents.search()
    assert not isinstance(caught.value, UnusableError)


def test_a_journal_in_a_missing_directory_may_come_back(tmp_path: Path) -> None:
    """A file system that is mounted late, or a server that is away: an upgrade is not the remedy."""
    url = f"sqlite:///{tmp_path}/volume/journal.db"
    with closing(open_journal(url)) as away, pytest.raises(JournalError, match=f"{tmp_path}/volume") as caught:
        away.check()
    assert not isinstance(caught.value, UnusableError)


def check_as_nobody(says: Connection, url: str) -> None:
    """Check a journal as a user who may not search its directory."""
    children.become_nobody()
    with closing(open_journal(url)) as other:
        try:
            other.check()
        except JournalError as error:
            says.send(f"{type(error).__name__}: {error}")


def test_a_directory_that_may_not_be_searched_is_named_as_such(tmp_path: Path) -> None:
    """The file may exist: neither an upgrade nor a traceback is the answer."""
    url = sqlite_url(tmp_path / "journal.db")
    tmp_path.chmod(0o700)
    [error], _ = children.run(check_as_nobody, url)
    assert error.startswith("JournalError: ")
    assert "let the milter's user write the file and its directory" in error


def test_the_remedy_for_an_unreleased_journal_works(tmp_path: Path) -> None:
    """The error's own mv command, and then the upgrade, make a journal that can be used."""
    url = f"sqlite:///{tmp_path}/journal.db"
    old_tables(url, "0002")
    with closing(open_journal(url)) as journal, pytest.raises(WrongVersionError) as caught:
        journal.check()
    command = str(caught.value).partition("(mv ")[2].partition(")")[0]
    subprocess.run(["mv", *command.split()], check=True)
    sqlite_url(tmp_path / "journal.db")
    with closing(open_journal(url)) as journal:
        journal.filing.record(transaction())


def test_another_key_is_refused(journal: Journal, journal_url: str) -> None:
    """By reading, writing and an upgrade: one journal never has hashes of two keys."""
    key = b"k" * 32
    upgrade = partial(migrate.upgrade, JournalSection(url=journal_url), key)
    with closing(open_journal(journal_url, key)) as other:
        for attempt in (other.check, upgrade, lambda: other.filing.record(transaction())):
            with pytest.raises(WrongKeyError, match=r"another key than the one in journal\.key_file"):
                attempt()
    assert journal.incidents.search() == []


def test_the_key_is_not_in_the_database(journal: Journal, journal_url: str) -> None:
    """The database has only its fingerprint."""
    with engines.engine(journal_url).connect() as connection:
        kept = connection.scalar(sa.select(tables.journal_info.c.fingerprint))
    assert kept is not None
    assert KEY.hex() not in kept
    assert KEY.decode() not in kept


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///relative.db", "mysql://x/y", "postgresql+psycopg2://x/y"])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    """A database in memory is refused too: each worker would have its own."""
    with pytest.raises(UnusableError, match=r"journal\.url"):
        engines.engine(url)


def test_a_password_is_in_no_error(tmp_path: Path) -> None:
    """Errors are logged and shown on terminals."""
    url = f"postgresql://ann:secret@/x?host={tmp_path}"
    with closing(open_journal(url)) as journal, pytest.raises(JournalError) as caught, in_time():
        journal.check()
    assert "secret" not in str(caught.value)


# -- SQLite's file


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize(("mode", "wanted"), [(0o700, 0o600), (0o750, 0o640), (0o2770, 0o660), (0o755, 0o640)])
def test_roots_commands_leave_files_to_the_milters_user(tmp_path: Path, umask: int, mode: int, wanted: int) -> None:
    """Database, log and shared memory get the owner of the directory, with any umask."""
    owner = 54321 if os.geteuid() == 0 else os.geteuid()
    directory = tmp_path / "state"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, owner, owner)
    directory.chmod(mode)
    before = os.umask(umask)
    try:
        url = sqlite_url(directory / "journal.db")
        with closing(open_journal(url)) as journal:
            journal.filing.record(transaction())
            found = sorted(directory.iterdir())
            assert [path.name for path in found] == ["journal.db", "journal.db-shm", "journal.db-wal"]
            for path in found:
                seen = path.stat()
                assert (seen.st_uid, oct(stat.S_IMODE(seen.st_mode))) == (owner, oct(wanted)), path
    finally:
        os.umask(before)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The directory is not created: its owner would be a guess."""
    missing = pytest.raises(JournalError, match=r"the directory .*/no of journal\.url does not exist")
    with missing:
        migrate.upgrade(JournalSection(url=f"sqlite:///{tmp_path}/no/journal.db"), KEY)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    """A command that only reads leaves no file, which might belong to root."""
    with closing(open_journal(f"sqlite:///{tmp_path}/journal.db")) as journal, pytest.raises(WrongVersionError):
        journal.incidents.search()
    assert list(tmp_path.iterdir()) == []


def test_a_locked_file_is_given_up_after_two_seconds(tmp_path: Path) -> None:
    """Meanwhile the journal can be read."""
    path = tmp_path / "journal.db"
    with closing(open_journal(sqlite_url(path))) as journal, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with in_time(), pytest.raises(JournalError, match="is locked"):
            journal.filing.record(transaction())
        assert journal.incidents.search() == []
        other.rollback()
        journal.filing.record(transaction())


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 20_000])
def test_a_corrupt_file_is_an_error(tmp_path: Path, size: int) -> None:
    """Cut off or overwritten at any place: JournalError, and never an empty journal."""
    path = tmp_path / "journal.db"
    url = sqlite_url(path)
    content = path.read_bytes()
    assert len(content) > size
    path.write_bytes(content[:size] + b"\xa5" * (len(content) - size if size else 0))
    with closing(open_journal(url)) as journal, pytest.raises(JournalError):
        journal.filing.record(transaction())


def test_a_file_that_was_put_back_is_noticed(tmp_path: Path) -> None:
    """A connection to the moved file would write records that no other process reads."""
    path = tmp_path / "journal.db"
    with closing(open_journal(sqlite_url(path))) as journal:
        shutil.copy(path, tmp_path / "backup")
        journal.filing.record(transaction())
        for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
            (tmp_path / name).unlink()
        with pytest.raises(WrongVersionError, match="does not exist"):
            journal.filing.record(transaction())
        shutil.copy(tmp_path / "backup", path)
        journal.filing.record(transaction())
        assert len(journal.incidents.search()) == 1


def test_sqlite_calls_no_python(tmp_path: Path) -> None:
    """A Python function of a connection is destroyed with it: on one of libmilter's threads that crashes the worker."""
    connected = engines.engine(sqlite_url(tmp_path / "journal.db")).connect()
    with connected, pytest.raises(sa.exc.OperationalError, match="no such function"):
        connected.exec_driver_sql("SELECT 'a' REGEXP 'a'")
    connected.engine.dispose()


# -- PostgreSQL's server


@pytest.fixture
def remote(postgres: Postgres) -> Iterator[Journal]:
    """A journal in PostgreSQL, with an open connection."""
    url = postgres.create("failing")
    migrate.upgrade(JournalSection(url=url), KEY)
    with closing(open_journal(url)) as journal:
        journal.inbox.probe()
        yield journal
    postgres.drop("failing")


def test_a_frozen_server_is_given_up_in_time(postgres: Postgres, remote: Journal) -> None:
    """With an open connection and without; once the server goes on, the journal works again."""
    postgres.freeze()
    try:
        for attempt in (lambda: remote.filing.record(transaction()), remote.incidents.search, remote.inbox.probe):
            with in_time(), pytest.raises(JournalError):
                attempt()
    finally:
        postgres.thaw()
    remote.filing.record(transaction())


def test_a_restarted_server_causes_no_error(postgres: Postgres, remote: Journal) -> None:
    """A stopped one is an error at once; after the start the first use succeeds, although all connections are dead."""
    with closing(open_journal(postgres.url("failing"))) as other:
        other.check()
        postgres.stop()
        try:
            with in_time(), pytest.raises(JournalError):
                remote.filing.record(transaction())
        finally:
            postgres.start()
        other.filing.record(transaction())
        remote.filing.record(transaction())


def test_a_lock_is_given_up_in_time(postgres: Postgres, remote: Journal) -> None:
    """Another program's open transaction on the tables does not delay mail."""
    with engines.engine(postgres.url("failing")).begin() as connection:
        connection.execute(sa.text("LOCK TABLE incident"))
        with in_time(), pytest.raises(JournalError):
            remote.filing.record(transaction())
    remote.filing.record(transaction())


def test_waiting_for_work_ends_when_the_server_does(postgres: Postgres, remote: Journal) -> None:
    """The steward gets an error, and can wait again once the server runs."""
    remote.wait(0)
    postgres.stop()
    try:
        with in_time(), pytest.raises(JournalError):
            remote.wait(30)
    finally:
        postgres.start()
    remote.wait(0)
    with in_time():
        remote.wait(0.01)


def test_a_database_that_cannot_hold_every_name_is_refused(postgres: Postgres) -> None:
    """Latin-1 lacks letters of Welsh."""
    url = postgres.create("narrow", "--encoding", "LATIN1", "--template", "template0")
    with pytest.raises(JournalError, match="keeps text as LATIN1"):
        migrate.upgrade(JournalSection(url=url), KEY)
    postgres.drop("narrow")
