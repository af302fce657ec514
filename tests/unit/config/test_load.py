"""load.py and errors.py: a file becomes a policy, or an error that names the line and the fix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.factories import policy
from support.paths import DATA
from undisclosed.config.errors import ConfigError, NotPermittedError
from undisclosed.config.load import MAX_FILE_SIZE, load
from undisclosed.policy import Action
from undisclosed.policy.settings_index import all_sections

SETTINGS = [(name, key) for name, section in all_sections().items() for key in section.settings]

BAD = sorted((DATA / "bad_configs").iterdir())

SOUND = """\
[organisation]
name = "Exampleshire County Council"
internal_domains = ["council.test"]

[[rules]]
name = "too many in sight"
more_than_addresses = 10
action = "reject"
"""


def write(path: Path, text: str = SOUND) -> Path:
    """A configuration in a directory of its own."""
    file = path / "config.toml"
    file.write_text(text)
    return file


@contextmanager
def without_rights() -> Iterator[None]:
    """Run as a user who may not open our files; root may open all."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_a_bad_configuration_is_refused_with_the_expected_error(folder: Path) -> None:
    """File, line, setting, value, problem and fix, for each error in it."""
    with pytest.raises(ConfigError) as caught:
        load(folder / "config.toml")
    assert (folder / "expected.txt").read_text() == str(caught.value).replace(f"{folder}/", "") + "\n"


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_the_line_named_is_the_line_quoted(folder: Path) -> None:
    """The line with that number is the one that the error quotes; only a missing setting has no line."""
    with pytest.raises(ConfigError) as caught:
        load(folder / "config.toml")
    for problem in caught.value.problems:
        if problem.quote:
            assert problem.line is not None
            assert problem.file.read_text().split("\n")[problem.line - 1] == problem.quote
        else:
            assert problem.line is None or "UTF-8" in problem.problem


def test_the_error_carries_its_parts() -> None:
    """File, key, value, fix and line of the first problem, for programs; all of them in `problems`."""
    folder = next(folder for folder in BAD if folder.name == "reply_that_clients_misread")
    with pytest.raises(ConfigError) as caught:
        load(folder / "config.toml")
    error = caught.value
    assert (error.file, error.key, error.value) == (folder / "config.toml", "reply.code", 552)
    assert (error.fix, error.line) == ("write 550 or 554", 6)
    assert [problem.key for problem in error.problems] == ["reply.code", "reply.enhanced"]


def test_a_sound_file_becomes_a_policy(tmp_path: Path) -> None:
    """Two settings and one rule are enough; all others have defaults."""
    loaded = load(write(tmp_path))
    assert loaded == policy(organisation={"internal_domains": ["council.test"]})
    assert loaded.rules[0].action is Action.REJECT


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_other_systems_are_read(tmp_path: Path, mark: str, end: str) -> None:
    """A byte order mark and CRLF line ends make no difference, neither in the configuration nor in lists."""
    text = SOUND + 'except_senders = ["file:senders.txt"]\n'
    (tmp_path / "config.toml").write_bytes((mark + text.replace("\n", end)).encode())
    (tmp_path / "senders.txt").write_bytes(f"{mark}a@council.test{end}{end}# b@council.test{end}".encode())
    assert load(tmp_path / "config.toml").rules[0].except_senders == ("a@council.test",)


def test_the_entries_of_a_list_replace_its_name(tmp_path: Path) -> None:
    """Paths are relative to the configuration, comments and blank lines are removed, a `#` within an address stays."""
    file = write(
        tmp_path, SOUND + f'senders = ["x@council.test", "file:lists/a", "file:{tmp_path}/b", "y@council.test"]\n'
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a").write_text(
        "# staff\n  one@council.test \n\ttwo@council.test\t# too\n#three@council.test\n\n"
    )
    (tmp_path / "b").write_text("a#b@council.test")
    expected = ("x@council.test", "one@council.test", "two@council.test", "a#b@council.test", "y@council.test")
    assert expected == load(file).rules[0].senders


def test_an_empty_list_of_exceptions_excepts_nobody(tmp_path: Path) -> None:
    """A list of exceptions may be empty; a list of senders may not, since the rule would apply to all senders."""
    (tmp_path / "none").write_text("# nobody at present\n")
    loaded = load(write(tmp_path, SOUND + 'except_senders = ["file:none"]\n'))
    assert loaded.rules[0].concerns("anybody@council.test")


def test_ten_thousand_senders_are_read(tmp_path: Path) -> None:
    """As a directory server writes them: an address is looked up, and not compared with each."""
    (tmp_path / "staff").write_text("".join(f"clerk{number}@council.test\n" for number in range(10_000)))
    rule = load(write(tmp_path, SOUND + 'senders = ["file:staff"]\n')).rules[0]
    assert rule.concerns("Clerk9999@council.test")
    assert not rule.concerns("clerk10000@council.test")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a directory"),
        (os.mkfifo, "cannot be read: not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: not a regular file"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"#" * (MAX_FILE_SIZE + 1)), "is larger than 16 MiB"),
    ],
    ids=["missing", "directory", "pipe", "device", "loop", "huge"],
)
def test_anything_but_a_regular_file_is_refused(tmp_path: Path, make: object, problem: str) -> None:
    """As configuration and as list: the error names the file, and reading neither blocks nor fills the memory."""
    assert callable(make)
    make(tmp_path / "it")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "it")
    assert (tmp_path / "it", problem) == (caught.value.file, caught.value.problems[0].problem)
    assert "--config or UNDISCLOSED_CONFIG" in caught.value.fix

    file = write(tmp_path, SOUND + 'senders = ["file:it"]\n')
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.problems[0].problem == f"the list {tmp_path / 'it'} {problem}"
    assert (caught.value.file, caught.value.key, caught.value.line) == (file, "rules[0].senders", 9)


def test_a_file_that_the_user_may_not_read_is_refused(tmp_path: Path) -> None:
    """The fix names the milter's user, never the user who runs a command."""
    file = write(tmp_path)
    file.chmod(0)
    with without_rights(), pytest.raises(NotPermittedError) as caught:
        load(file)
    assert caught.value.problems[0].problem == "cannot be read: permission denied"
    assert caught.value.fix.startswith("let the milter's user read it")


def test_a_list_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    """The error has the form of all others."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, SOUND + 'senders = ["file:a\\u0000b"]\n'))
    assert caught.value.problems[0].problem.endswith("is not a file name")


def test_lists_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    """The parser's RecursionError becomes an error of the file."""
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(write(tmp_path, "a = " + "[" * 20_000))


ODD = (
    *("0", "-1", "1.5", "nan", "-inf", "true", "1" + "0" * 40, "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00"),
    *('""', '"x"', '"file:"', r'"\u0000"', r'"\r\n"', f'"{"x" * 5000}"', '"{"', '"%s"', '"*"', '"."', '"@"', '"é"'),
    *(
        "[]",
        "[1]",
        "[nan]",
        '[""]',
        '["x"]',
        '["."]',
        '["@"]',
        r'["\u0000"]',
        "[[]]",
        "[{}]",
        "[true, 1.5]",
        "{}",
        "{ a = 1 }",
    ),
)


LIBRARY_WORDS = re.compile("Input should|Value error|pydantic|validation|_type|_error", re.IGNORECASE)


def refusal_of(path: Path, text: str) -> ConfigError | None:
    """The error that refuses a configuration; None where it is sound."""
    try:
        load(write(path, text))
    except ConfigError as error:
        return error
    return None


def with_setting(section: str, key: str, value: str) -> str:
    """A sound configuration with one setting replaced or added."""
    sections = {
        "": "",
        "organisation": 'name = "Exampleshire County Council"\ninternal_domains = ["council.test"]\n',
        "rules": 'name = "too many in sight"\nmore_than_addresses = 10\naction = "reject"\n',
    }
    others = re.sub(rf"(?m)^{key} = .*\n", "", sections.get(section, ""))
    sections[section] = f"{others}{key} = {value}\n"
    return "".join(f"{heading_of(name)}{settings}" for name, settings in sections.items())


def heading_of(section: str) -> str:
    """The line that begins a section."""
    return "" if not section else "[[rules]]\n" if section == "rules" else f"[{section}]\n"


@pytest.mark.parametrize(("section", "key"), SETTINGS, ids=".".join)
def test_a_wrong_value_of_any_setting_is_refused_in_our_words(tmp_path: Path, section: str, key: str) -> None:
    """The error names file, line, key, value and remedy, for values of any type, and never quotes a library."""
    for odd in ODD:
        error = refusal_of(tmp_path, with_setting(section, key, odd))
        for problem in error.problems if error else ():
            assert problem.file == tmp_path / "config.toml"
            assert problem.line is not None
            assert problem.fix
            assert re.match(rf"rules\[0\](\.{key})?$" if section == "rules" else rf"({section}\.)?{key}", problem.key)
            assert problem.quote.startswith(key) or problem.key == "rules[0]"
            assert not LIBRARY_WORDS.search(str(problem).replace(problem.quote, ""))
            assert len(problem.fix) < 200


@pytest.mark.parametrize("odd", ODD)
def test_a_wrong_value_of_every_setting_at_once_is_refused(tmp_path: Path, odd: str) -> None:
    """The same value for every key, or for every section: each error has a remedy and is in our words."""
    sections, settings = [], []
    for name, part in all_sections().items():
        if name:
            sections.append(f"{name} = {odd}")
            settings.append(heading_of(name))
        settings += [f"{key} = {odd}" for key in part.settings]
    for lines in (sections, settings):
        error = refusal_of(tmp_path, "\n".join(lines))
        assert error is not None
        for problem in error.problems:
            assert problem.fix
            assert not LIBRARY_WORDS.search(problem.problem + problem.fix)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40), st.integers(0, len(SOUND)), st.integers(0, 60))
def test_any_text_is_a_policy_or_an_error(text: str, start: int, length: int) -> None:
    """A file with any text in place of any part of it raises nothing but ConfigError."""
    with TemporaryDirectory() as folder, suppress(ConfigError):
        load(write(Path(folder), SOUND[:start] + text + SOUND[start + length :]))
