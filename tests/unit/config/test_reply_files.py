"""The organisation's own words for replies, read and checked with the configuration."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from undisclosed.config.errors import ConfigError
from undisclosed.config.load import load
from undisclosed.decision.obstacles import ObstacleKind
from undisclosed.decision.reply import refusal_of
from undisclosed.policy.own_replies import REPLY_FILES

CONFIG = """\
[organisation]
name = "Cyngor Sir Llŷn"
internal_domains = ["council.test"]
help = "the mail desk"
languages = {languages}
[notices]
templates = "words"
[[rules]]
name = "too many in sight"
more_than_addresses = 10
action = "reject"
"""

GOOD = "Not sent: ring {help}, {organisation}.\n{count} addresses. Reference: {reference}\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration with these files in its directory of words; the result is its path."""

    def write(files: dict[str, str | bytes], languages: str = '["en"]') -> Path:
        for name, content in files.items():
            file = tmp_path / "words" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        config = tmp_path / "config.toml"
        config.write_text(CONFIG.format(languages=languages))
        return config

    return write


def lines(config: Path, kind: ObstacleKind | None = None) -> tuple[str, ...]:
    """The refusal of a message with 95 addresses."""
    return refusal_of(load(config), kind, 95, "K7QF-3M2D").lines


def test_own_words_replace_the_refusal(write: Write) -> None:
    """Each placeholder is filled in; blank lines, a byte order mark and CRLF do not matter."""
    expected = ("Not sent: ring the mail desk, Cyngor Sir Llyn.", "95 addresses. Reference: K7QF-3M2D")
    assert lines(write({"en/reply.txt": GOOD})) == expected
    assert lines(write({"en/reply.txt": "\ufeff\n" + GOOD.replace("\n", "\r\n\r\n")})) == expected


def test_each_language_has_its_own(write: Write) -> None:
    """The files stand in the order of the languages; a region falls back on its language, and nothing comes twice."""
    config = write({"en/reply.txt": GOOD, "cy/reply.txt": "Na.\nCyf. {reference}\n"}, '["cy", "en-GB", "en", "fr"]')
    assert lines(config) == (
        "Na.",
        "Cyf. K7QF-3M2D",
        "Not sent: ring the mail desk, Cyngor Sir Llyn.",
        "95 addresses. Reference: K7QF-3M2D",
    )


def test_a_language_that_is_not_used_is_not_read(write: Write) -> None:
    """Its file stands ready for later, even with a mistake in it."""
    assert lines(write({"cy/reply.txt": "{wrong}"}))[0].startswith("Not sent. Please")


def test_each_obstacle_has_a_file_of_its_own(write: Write) -> None:
    """The advice for usual mail would be wrong for an invitation: without a file for it the program's words stand."""
    config = write({"en/reply.txt": GOOD, "en/reply-signed.txt": "Signed.\nRef. {reference}"})
    assert lines(config, ObstacleKind.SIGNED) == ("Signed.", "Ref. K7QF-3M2D")
    assert lines(config, ObstacleKind.INVITATION)[0].startswith("Not sent. Please write an ordinary message")
    assert set(REPLY_FILES) == {"", *ObstacleKind}


def test_the_worker_gets_them_with_the_policy(write: Write) -> None:
    """A policy is pickled on its way to a worker; its words belong to it."""
    policy = load(write({"en/reply.txt": GOOD}))
    assert pickle.loads(pickle.dumps(policy)).own_replies == policy.own_replies != {}


LAST = "Reference: {reference}\n"


@pytest.mark.parametrize(
    ("content", "line", "problem", "fix"),
    [
        ("Ask {helpp}.\n" + LAST, 1, "there is no placeholder {helpp}", "write {help}; known are {count}, {org"),
        ("Ask {}.\n" + LAST, 1, "there is no placeholder {}", "known are {count}"),
        ("Ask {{help}}.\n" + LAST, 1, "a brace without its pair", "remove it"),
        ("Not sent}\n" + LAST, 1, "a brace without its pair", "remove it"),
        ("1\n2\n\n3\n4\n5\n" + LAST, 7, "more than 5 lines", "shorten it"),
        ("Not sent: " + "x" * 81 + "\n" + LAST, 1, "too long: 91 characters", "shorten it"),
        ("Not sent: {help}" + "x" * 75 + "\n" + LAST, 1, "too long: 98 characters", "break no link"),
        (
            "Heb ei hanfon: ffoniwch swyddfa\N{RIGHT SINGLE QUOTATION MARK}r tŷ.\n" + LAST,
            1,
            "is ASCII",
            "write: Heb ei hanfon: ffoniwch swyddfa'r ty",
        ),
        ("Not\tsent.\n" + LAST, 1, "a control character", "write blanks"),
        ("Not sent.\x1b[2J\n" + LAST, 1, "a control character", "write blanks"),
        ("Not sent.\rSent.\n" + LAST, 1, "a control character", "write blanks"),
        (LAST + "Not sent.\n", 2, "the last line does not quote the reference", "write {reference}"),
        ("\n \n", None, "it has no words", "remove the file"),
        (b"Not sent.\nTy\xff\n", 2, "not UTF-8 text", "ASCII"),
        (b"x" * 70000, None, "is larger than 64 KiB", "at most 5 lines"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    content: str | bytes, line: int | None, problem: str, fix: str, write: Write
) -> None:
    """The error has file, line and remedy, since the first refusal would find it otherwise."""
    config = write({"en/reply.txt": content})
    with pytest.raises(ConfigError) as caught:
        load(config)
    [found] = caught.value.problems
    assert (found.file, found.line) == (config.parent / "words/en/reply.txt", line)
    assert problem in found.problem
    assert fix in found.fix


def test_a_line_has_room_for_the_codes_of_the_policy(write: Write) -> None:
    """A longer enhanced code leaves less of it."""
    config = write({"en/reply.txt": "x" * 90 + "\n" + LAST})
    load(config)
    config.write_text(config.read_text() + '[reply]\nenhanced = "5.999.999"\n')
    with pytest.raises(ConfigError, match="too long: 90 characters once its placeholders are filled in, and 86 fit"):
        load(config)


def test_the_languages_together_have_five_lines(write: Write) -> None:
    """The error names the last file, and the lines that they have together."""
    config = write({"en/reply.txt": "1\n2\n" + LAST, "cy/reply.txt": "1\n2\n" + LAST}, '["cy", "en"]')
    with pytest.raises(ConfigError, match=r"en/reply.txt\n  with cy the reply has 6 lines\n  shorten them to 5"):
        load(config)


def test_a_file_in_no_language_would_not_be_used(write: Write) -> None:
    """Its author would expect it to be."""
    with pytest.raises(ConfigError, match=r"words/reply.txt\n  it is in no language's folder.*\n  put it into .*en/"):
        load(write({"reply.txt": GOOD}))


def test_a_file_that_cannot_be_read(write: Write) -> None:
    """A directory, a pipe or a broken link in its place is an error, not a missing file."""
    config = write({"en/reply.txt/x": ""})
    with pytest.raises(ConfigError, match=r"words/en/reply\.txt\n  cannot be read: "):
        load(config)


def test_a_directory_that_is_missing_is_left_to_the_notices(write: Write) -> None:
    """The milter needs no templates of notices: `check-config` and the steward report the directory."""
    assert lines(write({}))[0].startswith("Not sent. Please")
