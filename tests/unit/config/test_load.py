"""config.py and keyfile.py: a file becomes a policy, or an error that says which line to mend, and how."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.factories import policy
from support.paths import DATA
from undisclosed.config.errors import ConfigError
from undisclosed.config.key_file import read_key
from undisclosed.config.load import LARGEST_FILE, load
from undisclosed.policy import Action, Policy
from undisclosed.policy.settings_index import all_sections

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
    """As a user who may open nothing of ours; root may open everything."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_a_bad_configuration_is_refused_in_these_words(folder: Path) -> None:
    """File, line, setting, value, what is wrong and what to write instead, for everything wrong with it."""
    with pytest.raises(ConfigError) as caught:
        load(folder / "config.toml")
    assert (folder / "expected.txt").read_text() == str(caught.value).replace(f"{folder}/", "") + "\n"


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_the_line_named_is_the_line_quoted(folder: Path) -> None:
    """An editor that is sent to the line shows what the error shows; only what is missing has no line."""
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
    """Two settings and one rule are enough; all else has its default."""
    loaded = load(write(tmp_path))
    assert loaded == policy(organisation={"internal_domains": ["council.test"]})
    assert loaded.rules[0].action is Action.REJECT


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_other_systems_are_read(tmp_path: Path, mark: str, end: str) -> None:
    """A byte order mark and line ends of Windows make no difference, in lists as in the configuration."""
    text = SOUND + 'except_senders = ["file:senders.txt"]\n'
    (tmp_path / "config.toml").write_bytes((mark + text.replace("\n", end)).encode())
    (tmp_path / "senders.txt").write_bytes(f"{mark}a@council.test{end}{end}# b@council.test{end}".encode())
    assert load(tmp_path / "config.toml").rules[0].except_senders == ("a@council.test",)


def test_lists_stand_where_the_rule_names_them(tmp_path: Path) -> None:
    """Paths are relative to the configuration, comments and blank lines go, and a `#` within an address stays."""
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
    """A list of exceptions may run empty; one of senders may not, for the rule would name everybody."""
    (tmp_path / "none").write_text("# nobody at present\n")
    loaded = load(write(tmp_path, SOUND + 'except_senders = ["file:none"]\n'))
    assert loaded.rules[0].concerns("anybody@council.test")


def test_ten_thousand_senders_are_read_and_found(tmp_path: Path) -> None:
    """A list as a directory server writes it is no burden: addresses are looked up, not tried one by one."""
    (tmp_path / "staff").write_text("".join(f"clerk{number}@council.test\n" for number in range(10_000)))
    rule = load(write(tmp_path, SOUND + 'senders = ["file:staff"]\n')).rules[0]
    assert rule.concerns("Clerk9999@council.test")
    assert not rule.concerns("clerk10000@council.test")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a directory"),
        (os.mkfifo, "cannot be read: not a plain file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: not a plain file"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"#" * (LARGEST_FILE + 1)), "is larger than 16 MiB"),
    ],
    ids=["missing", "directory", "pipe", "device", "loop", "huge"],
)
def test_what_is_no_file_is_refused_as_configuration_and_as_list(tmp_path: Path, make: object, problem: str) -> None:
    """Whatever stands in a file's place: an error that names it, without waiting and without filling the memory."""
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


def test_a_file_that_must_not_be_read_is_refused(tmp_path: Path) -> None:
    """Without the right to read it, the error says who has to get it."""
    file = write(tmp_path)
    file.chmod(0)
    with without_rights(), pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.problems[0].problem == "cannot be read: permission denied"
    assert caught.value.fix.startswith("let uid ")


def test_a_list_whose_name_is_none_is_refused(tmp_path: Path) -> None:
    """A NUL in the path is no reason to fail in other words."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, SOUND + 'senders = ["file:a\\u0000b"]\n'))
    assert caught.value.problems[0].problem.endswith("is no file name")


def test_lists_in_lists_without_end_are_refused(tmp_path: Path) -> None:
    """What exhausts the parser is an error of the file, not of ours."""
    with pytest.raises(ConfigError, match="lists in lists without end"):
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


@pytest.mark.parametrize("odd", ODD)
def test_no_value_of_any_setting_is_more_than_an_error(tmp_path: Path, odd: str) -> None:
    """Whatever stands behind any key, or in any section's place: an error in our words, each with a remedy."""
    sections, settings = [], []
    for name, part in all_sections().items():
        if name:
            sections.append(f"{name} = {odd}")
            settings.append(f"[[{name}]]" if part.repeated else f"[{name}]")
        settings += [f"{key} = {odd}" for key in part.settings]
    for lines in (sections, settings):
        with pytest.raises(ConfigError) as caught:
            load(write(tmp_path, "\n".join(lines)))
        for problem in caught.value.problems:
            assert problem.fix
            assert not re.search("Input should|Value error|validation", str(problem))


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40), st.integers(0, len(SOUND)), st.integers(0, 60))
def test_no_text_is_more_than_an_error(text: str, start: int, length: int) -> None:
    """A file with anything in place of any part of it is a policy or an error in words."""
    with TemporaryDirectory() as folder, suppress(ConfigError):
        load(write(Path(folder), SOUND[:start] + text + SOUND[start + length :]))


def keyed(path: Path) -> Policy:
    """A policy whose key is there."""
    return policy(journal={"key_file": str(path)})


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """At first start 32 random bytes in hexadecimal digits, mode 0600; afterwards the same; nothing else is left."""
    file = tmp_path / "key"
    was = os.umask(0)
    try:
        made = read_key(keyed(file), create=True)
    finally:
        os.umask(was)
    assert len(made) == 32
    assert made.hex() + "\n" == file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made == read_key(keyed(file), create=True) == read_key(keyed(file), create=False)
    assert [file] == list(tmp_path.iterdir())
    assert made != read_key(keyed(tmp_path / "another"), create=True)


def test_supervisors_that_start_together_have_one_key(tmp_path: Path) -> None:
    """Whoever comes second takes the key of the first, and never half of one."""
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: read_key(keyed(tmp_path / "key"), create=True), range(32)))
    assert {keys[0]} == set(keys)
    assert [tmp_path / "key"] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(32)),
        bytes(range(31)) + b"\n",
        bytes(range(32)).hex().encode(),
        bytes(range(32)).hex().upper().encode() + b"\r\n",
        b" " + bytes(range(32)).hex().encode() + b"\n\n",
    ],
)
def test_a_key_is_read_raw_or_in_hexadecimal_digits(tmp_path: Path, content: bytes) -> None:
    """As a random source or a person wrote it; raw bytes stay as they are, also at their ends."""
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    expected = content if len(content) == 32 else bytes(range(32))
    assert expected == read_key(keyed(file), create=False)


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"", 0o600, "not a key: 0 bytes"),
        (b"secret\n", 0o600, "not a key: 7 bytes"),
        (bytes(range(33)), 0o600, "not a key: 33 bytes"),
        (b"g" * 64, 0o600, "not a key: 64 bytes"),
        (bytes(32), 0o600, "not a key: all its bytes are the same"),
        (b"0" * 64 + b"\n", 0o600, "not a key: all its bytes are the same"),
        (bytes(range(32)), 0o640, "others than its owner can read or write it (mode 0640)"),
        (bytes(range(32)), 0o604, "others than its owner can read or write it (mode 0604)"),
    ],
)
def test_what_is_no_secret_key_is_refused(tmp_path: Path, content: bytes, mode: int, problem: str) -> None:
    """Too short, too long, what a crash leaves, and what others can read: never used, never overwritten."""
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read_key(keyed(file), create=True)
    assert caught.value.problems[0].problem.startswith(problem)
    assert (file, "journal.key_file", str(file)) == (caught.value.file, caught.value.key, caught.value.value)
    assert content == file.read_bytes()
    assert caught.value.fix


@pytest.mark.parametrize(
    ("make", "create", "problem"),
    [
        (lambda path: None, False, "there is no such file yet"),
        (lambda path: path.parent.rmdir(), True, "cannot be made: its directory does not exist"),
        (lambda path: path.mkdir(), True, "cannot be read: a directory"),
        (os.mkfifo, True, "cannot be read: not a plain file"),
        (lambda path: path.symlink_to(path.parent / "away" / "key"), True, "cannot be made"),
    ],
    ids=["missing", "no directory", "directory", "pipe", "dangling link"],
)
def test_a_key_that_cannot_be_is_refused(tmp_path: Path, make: object, create: bool, problem: str) -> None:
    """The error names journal.key_file and says what to do; nothing is left behind."""
    file = tmp_path / "state" / "key"
    file.parent.mkdir()
    assert callable(make)
    make(file)
    with pytest.raises(ConfigError) as caught:
        read_key(keyed(file), create=create)
    assert caught.value.problems[0].problem.startswith(problem)
    assert "journal.key_file" in str(caught.value)
    assert not list(tmp_path.glob("state/.key*"))


def test_a_key_in_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    """Without the right to write there, the error says who needs it."""
    tmp_path.chmod(0o555)
    try:
        with without_rights(), pytest.raises(ConfigError) as caught:
            read_key(keyed(tmp_path / "key"), create=True)
    finally:
        tmp_path.chmod(0o755)
    assert "ermission denied" in caught.value.problems[0].problem
    assert f"uid {65534 if os.geteuid() == 0 else os.geteuid()}" in caught.value.fix
