"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from undisclosed.journal.tables import UtcDateTime

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Upgrade to this version."""
    ${upgrades if upgrades else "pass"}
