"""`undisclosed journal upgrade`."""

from __future__ import annotations

import typer

from undisclosed.cli.common import DEFAULT_CONFIG, Command, ConfigOption, exit_on_config_error, fail, group

app = group(help="The journal: the database in which incidents are recorded.")


@app.command("upgrade", cls=Command)
def upgrade(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Create the journal's tables, or bring them to this version.

    Changes nothing where they are of this version already.
    """
    from undisclosed.config.gateway_file import read_gateway
    from undisclosed.config.key_file import read_key
    from undisclosed.config.load import load
    from undisclosed.incidents.records import JournalError
    from undisclosed.journal import migrate
    from undisclosed.journal.gateway import gateway_name
    from undisclosed.journal.journal import Journal

    with exit_on_config_error():
        policy = load(config_file)
        key, gateway = read_key(policy, create=True), read_gateway(policy, create=True)
    journal = Journal(policy.journal, key)
    try:
        migrate.upgrade(policy.journal, key)
        journal.gateways.record(gateway, gateway_name(policy))
    except JournalError as error:
        fail(error)
    finally:
        journal.close()
    typer.echo("the journal is ready")
