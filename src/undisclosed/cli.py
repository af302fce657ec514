"""The commands. The only place that exits: 0 done, 1 the answer is no, 2 usage or configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from undisclosed import config

DEFAULT_CONFIG = Path("/etc/undisclosed/config.toml")

app = typer.Typer(
    name="undisclosed",
    help="A milter for Postfix that keeps recipients' addresses out of each other's sight.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
postfix_app = typer.Typer(no_args_is_help=True, help="Attach the milter to Postfix, detach it, see what is in place.")
app.add_typer(postfix_app, name="postfix")

ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="UNDISCLOSED_CONFIG", help="The configuration file.", metavar="FILE")
]
ConfigDirOption = Annotated[
    Path | None,
    typer.Option(
        "--config-dir", help="Postfix's configuration directory, instead of postfix.config_dir.", metavar="DIR"
    ),
]


def main() -> None:
    """Run the command line."""
    app()


def _fail(message: object, status: int = 2) -> NoReturn:
    typer.echo(f"undisclosed: {message}", err=True)
    raise typer.Exit(status)


@contextmanager
def _told() -> Iterator[None]:
    """Tell what is wrong with the configuration in its own words, and end with status 2."""
    try:
        yield
    except config.ConfigError as error:
        _fail(error)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"undisclosed {version('undisclosed')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the milter in the foreground, as a service manager wants it. SIGHUP reloads, SIGTERM ends."""
    from undisclosed import describe, log
    from undisclosed.listener import ListenError
    from undisclosed.session import Settings
    from undisclosed.workers import Supervisor

    def load() -> Settings:
        policy = config.load(config_file)
        return Settings(policy, config.key(policy, create=True))

    with _told():
        settings = load()
    policy = settings.policy
    log.configure(policy.log.format)
    logger = log.get()
    logger.info(
        "starting",
        version=version("undisclosed"),
        config=str(config_file),
        mode=policy.mode.value,
        rules=[f"{rule.name}: {rule.action.value}" for rule in policy.rules],
    )
    for warning in describe.warnings(policy):
        logger.warning("note", text=warning)
    if os.geteuid() == 0:
        logger.warning("note", text="running as root, which the milter does not need: give it a user of its own")
    try:
        Supervisor(settings, load, logger).run()
    except ListenError as error:
        logger.error("cannot_listen", reason=str(error))
        _fail(error)


@app.command("check-config")
def check_config(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Load and validate the configuration, and print what it means in words."""
    from undisclosed import describe

    with _told():
        policy = config.load(config_file)
    typer.echo(describe.describe(policy))
