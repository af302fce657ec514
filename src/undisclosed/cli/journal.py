"""`undisclosed journal upgrade`."""

from __future__ import annotations

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, Command, ConfigOption, group, opened_journal

app = group(help="The journal: the database in which incidents are recorded.")


@app.command("upgrade", cls=Command)
def upgrade(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Create the journal's tables, or bring them to this version.

    Changes nothing where they are of this version already.
    """
    with opened_journal(config_file, create_key=True) as journal:
        journal.upgrade()
        journal.check()
    typer.echo("the journal is ready")
