"""The words of notices: an organisation's own, over ours, and every way in which they are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.notice_factories import SENT, content, incident, text_of, words
from support.paths import PROJECT
from undisclosed import cli, notices
from undisclosed.config.errors import ConfigError
from undisclosed.config.load import load
from undisclosed.notices import variables
from undisclosed.notices.template_files import SHIPPED, check, samples, shipped
from undisclosed.notices.templates import KINDS, Block, blocks
from undisclosed.notices.variables import VARIABLES
from undisclosed.policy import Policy

CONFIG = """\
[organisation]
name = "Exampleshire County Council"
internal_domains = ["council.test"]
languages = [{languages}]

[notices]
templates = "words"

[[rules]]
name = "too many in sight"
more_than_addresses = 10
action = "quarantine"
"""


def configured(path: Path, *languages: str, **templates: str) -> tuple[Policy, Path]:
    """A configuration with templates of its own: `en_held="…"` is `words/en/held.txt`, `layout` is the HTML."""
    file = path / "config.toml"
    file.write_text(CONFIG.format(languages=", ".join(f'"{one}"' for one in languages or ("en",))))
    (path / "words").mkdir(exist_ok=True)
    for name, text in templates.items():
        language, _, kind = name.partition("_")
        template = path / "words" / (f"{language}/{kind}.txt" if kind else f"{language}.html")
        template.parent.mkdir(exist_ok=True)
        template.write_text(text)
    return load(file), file


def refusal(path: Path, *languages: str, **templates: str) -> str:
    """What `check-config` says, with the paths shortened."""
    with pytest.raises(ConfigError) as caught:
        notices.load(*configured(path, *languages, **templates))
    return str(caught.value).replace(f"{path}/", "")


def test_every_shipped_language_has_every_notice() -> None:
    """And all of them can be written, whatever the facts."""
    languages = tuple(sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()))
    assert languages == ("cy", "en")
    check(shipped(languages))
    for language in languages:
        assert {f"{kind}.txt" for kind in KINDS} <= {file.name for file in (SHIPPED / language).iterdir()}


def test_samples_know_every_variable() -> None:
    """What templates are tried with, what they may name, and what a notice gives them are the same names."""
    policy, file = load(PROJECT / "config.example.toml"), PROJECT / "config.example.toml"
    assert isinstance(notices.load(policy, file), notices.Words)
    for facts in samples():
        assert facts.keys() == VARIABLES.keys()
    assert variables.facts(policy, incident(), "held").keys() == VARIABLES.keys()


def test_ones_own_words_replace_one_notice_and_leave_the_others(tmp_path: Path) -> None:
    """Only the file that is there; what ours include can be included, too, and replaced."""
    policy, file = configured(
        tmp_path,
        en_held="Stopped\n\nSee {{ reference }}: {{ count }}.\n\n{% include 'en/_ending.txt' %}\n",
        en__ending="The mail desk",
    )
    loaded = notices.load(policy, file)
    held, deleted = (notices.render(policy, incident(), kind, now=SENT, words=loaded) for kind in ("held", "deleted"))
    assert held["Subject"] == "Stopped (K7QF-3M2D)"
    assert content(held, "plain") == "Stopped\n\nSee K7QF-3M2D: 95.\n\nThe mail desk\n"
    assert words(deleted).startswith("Your message on hold has been deleted Your message “School admissions”")
    assert words(deleted).endswith("The mail desk")


def test_ones_own_language(tmp_path: Path) -> None:
    """A directory with all kinds is a language; dates are written in it."""
    policy, file = configured(tmp_path, "de", **{f"de_{kind}": f"{kind}\n\nVom {{{{ sent }}}}." for kind in KINDS})
    message = notices.render(policy, incident(), "held", now=SENT, words=notices.load(policy, file))
    assert "Vom 19. November 2026, " in words(message)
    assert message["Content-Language"] == "de"


def test_ones_own_html(tmp_path: Path) -> None:
    """`layout.html` is all around the words; what it shows is escaped."""
    layout = "<body>{% for part in parts %}<i>{{ part.blocks[0].lines[0] }}</i>{% endfor %}"
    policy, file = configured(tmp_path, layout=layout)
    about = incident(subject="<b>&")
    message = notices.render(policy, about, "held", now=SENT, words=notices.load(policy, file))
    assert content(message, "html").startswith("<body><i>Your message “&lt;b&gt;&amp;” of")
    assert text_of(content(message, "html")).startswith("Your message “<b>&” of")


def test_templates_are_read_once(tmp_path: Path) -> None:
    """A file that is broken afterwards changes nothing until the next reload."""
    policy, file = configured(tmp_path, en_held="Stopped\n\nFor now.")
    loaded = notices.load(policy, file)
    shutil.rmtree(tmp_path / "words")
    assert "For now." in words(notices.render(policy, incident(), "held", now=SENT, words=loaded))


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    """A byte order mark and line ends of Windows make no difference; an editor's copies are no templates."""
    policy, file = configured(tmp_path, en_held="")
    (tmp_path / "words/en/held.txt").write_bytes("\ufeffStopped\r\n\r\nOne.\r\n\r\n- two\r\n- three\r\n".encode())
    (tmp_path / "words/en/held.txt~").write_text("{{")
    (tmp_path / "words/en/.held.txt").write_text("{{")
    (tmp_path / "words/README").write_text("{{")
    message = notices.render(policy, incident(), "held", now=SENT, words=notices.load(policy, file))
    assert content(message, "plain") == "Stopped\n\nOne.\n\n- two\n- three\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n\nthree", [("one two",), ("three",)]),
        ("one\n \n\n\ntwo", [("one",), ("two",)]),
        ("- a\n  b\n- c", [["a b", "c"]]),
        ("lead:\n- a\n\n- b\n\nend", [("lead:",), ["a", "b"], ("end",)]),
        ("a - b\n-c", [("a - b -c",)]),
        ("  ", []),
    ],
)
def test_paragraphs_and_lists(text: str, expected: list[tuple[str, ...] | list[str]]) -> None:
    """Empty lines end a paragraph, other line ends do not; entries of a list begin with a dash and a blank."""
    assert list(blocks(text)) == [Block(tuple(one), is_list=isinstance(one, list)) for one in expected]


# -- refused


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    """With its file and line, the nearest known one, and all of them; in a part that only others include, too."""
    assert refusal(tmp_path, en_held="Stopped\n\nSee\n{{ refrence }}.", en__extra="{{ visible }}") == (
        "words/en/_extra.txt, line 1\n"
        "    1 | {{ visible }}\n"
        "  there is no variable visible\n"
        f"  known are {', '.join(VARIABLES)}\n"
        "words/en/held.txt, line 4\n"
        "    4 | {{ refrence }}.\n"
        "  there is no variable refrence\n"
        f"  write reference; known are {', '.join(VARIABLES)}"
    )


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("Stopped\n\n{{ count", 3, "not a template: unexpected end of template"),
        ("Stopped\n\n{% if count %}\nx", 3, "not a template: Unexpected end of template"),
        ("Stopped\n\n{{ count | shout }}", 3, "not a template: No filter named 'shout'"),
        ("Stopped\n\n{% include 'en/_none.txt' %}", 3, "the notice cannot be written: en/_none.txt"),
        ("Stopped\n\nx\n{% if count %}\n{{ 1 / 0 }}\n{% endif %}", 5, "the notice cannot be written: division by zero"),
        ("Stopped\n\n{{ subject.address }}", 3, "the notice cannot be written: 'str object' has no attribute"),
        ("Stopped\n\n{{ subject + 1 }}", 3, "the notice cannot be written: "),
        ("Stopped\n\nx\n{% if obstacle == 'other' %}\n{{ (1).x }}\n{% endif %}", 5, "the notice cannot be written: "),
        ("Stopped", None, "its subject or its text is empty"),
        ("{% if count > 1 %}Stopped{% endif %}", None, "its subject or its text is empty"),
    ],
)
def test_a_template_that_would_fail_is_refused(tmp_path: Path, text: str, line: int | None, problem: str) -> None:
    """With the line to mend, although only some incidents would have met it."""
    with pytest.raises(ConfigError) as caught:
        notices.load(*configured(tmp_path, en_held=text))
    error = caught.value
    assert error.problems[0].problem.startswith(problem)
    assert (error.file, error.line) == (tmp_path / "words/en/held.txt", line)


@pytest.mark.parametrize(
    "text",
    [
        "{{ subject.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ subject|attr('__class__') }}",
        "{{ '{0.__class__}'.format(subject) }}",
        "{{ [].append(1) }}",
        "{{ self.__init__.__globals__ }}",
    ],
)
def test_a_template_reaches_nothing_but_its_facts(tmp_path: Path, text: str) -> None:
    """jinja2's sandbox: no attribute leads out of a template into the program."""
    assert "the notice cannot be written" in refusal(tmp_path, en_held=f"Stopped\n\n{text}")


@pytest.mark.parametrize("name", ["range", "lipsum", "cycler", "config", "request", "joiner", "namespace", "dict"])
def test_a_template_has_no_functions(tmp_path: Path, name: str) -> None:
    """None of jinja2's own names is there either."""
    assert f"there is no variable {name}" in refusal(tmp_path, en_held=f"Stopped\n\n{{{{ {name}(3) }}}}")


def test_a_language_without_words_is_refused(tmp_path: Path) -> None:
    """With the line of the configuration."""
    assert refusal(tmp_path, "en", "fr", en_held="Stopped\n\nFor now.") == (
        'config.toml, line 4: organisation.languages = "fr"\n'
        '    4 | languages = ["en", "fr"]\n'
        "  there are no words for notices in this language\n"
        "  write one of cy, en, or write its words into a directory fr in notices.templates"
    )


def test_a_language_of_ones_own_is_whole(tmp_path: Path) -> None:
    """What lacks a kind would leave somebody without a notice."""
    most = {f"de_{kind}": "Titel\n\nText" for kind in KINDS if kind not in ("kept", "deleted")}
    assert refusal(tmp_path, "de", **most) == (
        "words/de\n"
        "  there are no words for these notices: kept.txt, deleted.txt\n"
        "  write them too: whatever happens to a message, its sender is to be told"
    )


def test_a_file_that_no_notice_is_made_of_is_refused(tmp_path: Path) -> None:
    """Its writer believes that it is used."""
    assert refusal(tmp_path, en_releasd="Sent\n\nAt last.") == (
        "words/en/releasd.txt\n"
        "  no notice has this name, so it would never be used\n"
        "  call it released.txt; a part that others include begins with _"
    )


@pytest.mark.parametrize("there", ["nothing", "a file", "an empty directory"])
def test_a_directory_without_templates_is_refused(tmp_path: Path, there: str) -> None:
    """With the line of the setting."""
    policy, file = configured(tmp_path)
    if there != "an empty directory":
        (tmp_path / "words").rmdir()
    if there == "a file":
        (tmp_path / "words").write_text("Stopped")
    with pytest.raises(ConfigError) as caught:
        notices.load(policy, file)
    assert (caught.value.file, caught.value.key, caught.value.line) == (file, "notices.templates", 7)


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """With the line in which it is not UTF-8."""
    policy, file = configured(tmp_path, en_held="")
    (tmp_path / "words/en/held.txt").write_bytes(b"Stopped\n\n\xff")
    with pytest.raises(ConfigError, match=r"held\.txt, line 3\n  not UTF-8 text"):
        notices.load(policy, file)


def test_check_config_refuses_them(tmp_path: Path) -> None:
    """Exit status 2, and the words of the refusal."""
    _, file = configured(tmp_path, en_held="{{ nobody }}\n\nText")
    result = CliRunner().invoke(cli.app, ["check-config", "--config", str(file)])
    assert result.exit_code == 2
    assert "there is no variable nobody" in result.output
    (tmp_path / "words/en/held.txt").write_text("Stopped\n\nFor now.")
    assert CliRunner().invoke(cli.app, ["check-config", "--config", str(file)]).exit_code == 0


def test_the_page_names_every_variable_and_every_notice() -> None:
    """docs/notices.md is for who writes words of their own."""
    page = (PROJECT / "docs" / "notices.md").read_text()
    for name, meaning in VARIABLES.items():
        assert f"| `{name}` | {meaning} |\n" in page
    for kind in KINDS:
        assert f"| `{kind}` | " in page
