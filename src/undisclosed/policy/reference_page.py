"""The reference page of the settings, written from the schema.

python -m undisclosed.policy.reference_page > docs/configuration.md
"""

from __future__ import annotations

import sys

from undisclosed.policy.settings_index import SectionInfo, Setting, all_sections, written

_INTRODUCTION = """\
# Configuration

One TOML file, by default `/etc/undisclosed/config.toml`; `--config` or the environment variable `UNDISCLOSED_CONFIG`
name another. [`config.example.toml`](../config.example.toml) is a starting point. `undisclosed check-config` reads the
file and names each error with its line, or prints the policy in plain words.

Two settings and one rule are enough:

```toml
[organisation]
name = "Exampleshire County Council"
internal_domains = ["council.example", ".council.example"]

[[rules]]
name = "too many in sight"
more_than_addresses = 10
action = "reject"
```

A running milter reads the file again on SIGHUP. A message on its way keeps the settings it began with; a file with an
error is refused, its errors are logged, and the old settings stay in force. `[milter]` and `[log]` need a restart.

These are refused: unknown settings and sections, values of the wrong kind, a configuration without internal domains or
without rules, a rule that no message can reach, a list that is missing or empty, and an internal or partner domain
that gives addresses to the public.

<!-- Written by `python -m undisclosed.policy.reference_page` from the schema: change descriptions there. -->
"""


def page() -> str:
    """The page in Markdown, with a table for each section."""
    return _INTRODUCTION + "".join(map(_section, all_sections().values()))


def _section(section: SectionInfo) -> str:
    heading = f"`[[{section.name}]]`" if section.repeated else f"`[{section.name}]`" if section.name else "At the top"
    used = any(setting.used for setting in section.settings.values())
    rows = [("setting", "takes", "default", ""), ("---",) * 4]
    rows += [_row(setting, remark=used) for setting in section.settings.values()]
    table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
    return f"\n## {heading}\n\n{section.description}{'' if used else ' *Not used in this version.*'}\n\n{table}"


def _row(setting: Setting, remark: bool) -> tuple[str, str, str, str]:
    default = "required" if setting.required else "none" if setting.default is None else f"`{written(setting.default)}`"
    unused = " *Not used in this version.*" if remark and not setting.used else ""
    return f"`{setting.key}`", setting.kind, default, setting.description + unused


if __name__ == "__main__":
    sys.stdout.write(page())
