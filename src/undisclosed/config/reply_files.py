"""Reads the organisation's own words for replies: `LANGUAGE/reply.txt` in the directory of `notices.templates`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from undisclosed.config.errors import ABSENT, ConfigError, Problem
from undisclosed.config.small_file import read_regular_file
from undisclosed.policy import Policy
from undisclosed.policy.own_replies import LINES_LIMIT, REPLY_FILES, OwnReplies, mistakes

MAX_FILE = 64 * 1024
"""Bytes of a file that may have five short lines."""


def read_reply_files(policy: Policy, config_file: Path) -> OwnReplies:
    """The own words of a policy that was read from `config_file`. Raises ConfigError with all problems."""
    if not policy.notices.templates:
        return {}
    directory = config_file.parent / policy.notices.templates
    problems = list(_in_no_language(directory))
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for kind, name in REPLY_FILES.items():
        files = [file for file in _candidates(policy, directory, name) if _exists(file)]
        blocks = []
        for file in files:
            lines, problem = _lines(policy, file)
            problems += problem
            blocks.append(tuple(line for _, line in lines))
        count = sum(map(len, blocks))
        if len(blocks) > 1 and count > LINES_LIMIT:
            others = ", ".join(file.parent.name for file in files[:-1])
            fix = f"shorten them to {LINES_LIMIT} lines together, or take a language out of organisation.languages"
            problems.append(Problem(files[-1], "", ABSENT, f"with {others} the reply has {count} lines", fix))
        if blocks:
            found[kind] = tuple(blocks)
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return found


def _candidates(policy: Policy, directory: Path, name: str) -> list[Path]:
    """The file in each language's folder: the folder of the language, or of the language without its region."""
    folders = []
    for language in policy.organisation.languages:
        tags = dict.fromkeys((language, language.partition("-")[0]))
        folders.append(next((tag for tag in tags if _exists(directory / tag / name)), language))
    return [directory / folder / name for folder in dict.fromkeys(folders)]


def _exists(file: Path) -> bool:
    """Whether there is anything of this name; also if it cannot be looked at, so that reading it names the reason."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _in_no_language(directory: Path) -> Iterator[Problem]:
    for name in REPLY_FILES.values():
        if _exists(directory / name):
            fix = f"put it into a language's folder, such as en/{name}"
            yield Problem(directory / name, "", ABSENT, "it is in no language's folder, so it would not be used", fix)


def _lines(policy: Policy, file: Path) -> tuple[list[tuple[int, str]], list[Problem]]:
    """The lines that are not blank, each with its number from 1, and the problems."""

    def problem(text: str, fix: str, line: int | None = None, quote: str = "") -> Problem:
        return Problem(file, "", ABSENT, text, fix, line, quote)

    try:
        content, _ = read_regular_file(file, MAX_FILE + 1)
    except PermissionError:
        return [], [problem("cannot be read: permission denied", f"allow uid {os.geteuid()} to read it")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return [], [problem(f"cannot be read: {reason}", "put a regular file there, or remove it")]
    if len(content) > MAX_FILE:
        return [], [problem("is larger than 64 KiB", f"write at most {LINES_LIMIT} lines")]
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return [], [problem("not UTF-8 text", "save it as UTF-8, and write it in ASCII", line)]
    every = text.split("\n")
    lines = [(number, line) for number, line in enumerate(every, 1) if line.strip(" ")]
    found = [problem(what, fix, line, every[line - 1] if line else "") for line, what, fix in mistakes(policy, lines)]
    return lines, found
