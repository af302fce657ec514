"""The documents name every setting and every command."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from support.paths import PROJECT
from undisclosed import cli
from undisclosed.cli.incidents import CSV_COLUMNS
from undisclosed.config.load import load
from undisclosed.policy import Policy, reference_page
from undisclosed.policy.lint import not_used
from undisclosed.policy.settings_index import Setting, all_sections, written

EXAMPLE = PROJECT / "config.example.toml"
SETTINGS = [(part.name, setting) for part in all_sections().values() for setting in part.settings.values()]
IDS = [f"{section}.{setting.key}".lstrip(".") for section, setting in SETTINGS]

UNCOMMENTED = re.sub(r"(?m)^#(?=[a-z_]+ = )", "", EXAMPLE.read_text())
"""The example with every setting that it shows with its default put in force."""


def example(section: str) -> dict[str, Any]:
    """The settings of a section in the example, commented ones included; those of all rules together."""
    shown: dict[str, Any] = tomllib.loads(UNCOMMENTED)
    if section == "rules":
        return {key: value for rule in shown["rules"] for key, value in rule.items()}
    found = shown[section] if section else shown
    assert isinstance(found, dict)
    return found


def commands(command: Any, words: tuple[str, ...] = ("undisclosed",)) -> Iterator[str]:
    """Every command for people; hidden ones are for the systemd units. `command` is click's, or typer's copy of it."""
    if below := getattr(command, "commands", {}):
        for name, one in below.items():
            yield from commands(one, (*words, name))
    elif not command.hidden:
        yield " ".join(words)


def test_the_example_is_a_sound_configuration() -> None:
    """The example loads as it is, and each of its settings has an effect."""
    assert not_used(load(EXAMPLE)) == []


def test_the_example_with_all_it_shows_is_one_too(tmp_path: Path) -> None:
    """Any line may lose its `#`: all of them together are the same policy, but for the limit shown as an example."""
    whole = tmp_path / "config.toml"
    whole.write_text(UNCOMMENTED.replace("more_than_organisations", "#more_than_organisations"))
    assert load(EXAMPLE) == load(whole)
    whole.write_text(UNCOMMENTED)
    load(whole)


@pytest.mark.parametrize(("section", "setting"), SETTINGS, ids=IDS)
def test_the_example_shows_every_setting_with_its_default(section: str, setting: Setting) -> None:
    """Commented out where there is a default; a setting that has none is set."""
    shown = example(section)[setting.key]
    commented = re.search(rf"(?m)^#{re.escape(setting.key)} = {re.escape(written(shown))}$", EXAMPLE.read_text())
    if setting.required:
        assert commented is None
    elif setting.default is not None and section != "rules":
        assert written(setting.default) == written(shown)
        assert commented is not None


@pytest.mark.parametrize(("section", "setting"), SETTINGS, ids=IDS)
def test_the_reference_says_something_of_every_setting(section: str, setting: Setting) -> None:
    """A description that is a sentence, in the section's table."""
    page = (PROJECT / "docs" / "configuration.md").read_text()
    heading = f"## `[[{section}]]`\n" if section == "rules" else f"## `[{section}]`\n" if section else "## At the top\n"
    table = page.partition(heading)[2].partition("\n## ")[0]
    assert setting.description.endswith(".")
    assert re.search(rf"(?m)^\| `{setting.key}` \| .+ \| .+ \| {re.escape(setting.description)}", table)


def test_the_reference_is_what_the_schema_says() -> None:
    """Otherwise: `python -m undisclosed.policy.reference_page > docs/configuration.md`."""
    assert reference_page.page() == (PROJECT / "docs" / "configuration.md").read_text()


def test_the_reference_begins_with_a_configuration_that_works(tmp_path: Path) -> None:
    """The example at the top of the page is a complete configuration."""
    file = tmp_path / "config.toml"
    file.write_text(reference_page.page().partition("```toml\n")[2].partition("```")[0])
    assert isinstance(load(file), Policy)


@pytest.mark.parametrize("command", sorted(commands(typer.main.get_command(cli.app))))
def test_readme_names_every_command(command: str) -> None:
    """As it is typed: `undisclosed postfix attach`, or `undisclosed postfix attach | detach | status` together."""
    readme = (PROJECT / "README.md").read_text()
    *words, last = command.split()
    together = rf"{re.escape(' '.join(words))} (?:[\w-]+ \| )*{re.escape(last)}\b"
    assert re.search(together, readme)


def test_the_columns_of_the_csv_are_documented_in_order() -> None:
    """Spreadsheets and scripts depend on them."""
    page = (PROJECT / "docs" / "held-mail.md").read_text()
    sentence = page.partition("The columns of `incidents list --csv`:")[2].partition("\n\n")[0]
    assert [name for name in re.findall(r"`(\w+)`", sentence) if name != "hand"] == list(CSV_COLUMNS)
