"""Fixtures that tests of several rooms share: databases for the journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lab.postgres import Postgres
from support.journals import KEY, MakeJournal
from undisclosed.journal import migrate
from undisclosed.journal.journal import Journal
from undisclosed.policy.sections import JournalSection

settings.register_profile("any machine", deadline=None)  # how long an example takes decides nothing
settings.load_profile("any machine")

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The one PostgreSQL of the test run. A test that stops or freezes it starts it again."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of either kind: no tables yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/journal.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = f"journal{next(_NUMBERS)}"
    yield server.create(name)
    server.drop(name)


@pytest.fixture
def make_journal(journal_url: str) -> Iterator[MakeJournal]:
    """Makes Journals in one database; the first makes its tables. All are closed after the test."""
    made: list[Journal] = []

    def make(*, key: bytes = KEY, **over: object) -> Journal:
        settings = JournalSection.model_validate({"url": journal_url, **over})
        if not made:
            migrate.upgrade(settings, key)
        journal = Journal(settings, key)
        made.append(journal)
        return journal

    yield make
    for journal in made:
        journal.close()


@pytest.fixture
def journal(make_journal: MakeJournal) -> Journal:
    """An empty journal with the default settings."""
    return make_journal()
