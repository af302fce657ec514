"""Templates of notices: an organisation's own in place of shipped ones, and everything that is refused."""

from __future__ import annotations

import shutil
from email.message import EmailMessage
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.notice_factories import SENT, STATES, content, facts, incident, shipped, text_of, words
from support.paths import PROJECT
from undisclosed import cli, notices
from undisclosed.config.errors import ConfigError
from undisclosed.config.load import load
from undisclosed.incidents.records import Incident, NoticeKind
from undisclosed.notices import compose, variables
from undisclosed.notices.template_files import SHIPPED, check, samples
from undisclosed.notices.templates import TEMPLATES, Block, Templates, blocks
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
    """A configuration with own templates: `en_held="…"` is `words/en/held.txt`, `layout` is the HTML."""
    file = path / "config.toml"
    file.write_text(CONFIG.format(languages=", ".join(f'"{language}"' for language in languages or ("en",))))
    (path / "words").mkdir(exist_ok=True)
    for name, text in templates.items():
        language, _, kind = name.partition("_")
        template = path / "words" / (f"{language}/{kind}.txt" if kind else f"{language}.html")
        template.parent.mkdir(exist_ok=True)
        template.write_text(text)
    return load(file), file


def error_text(path: Path, *languages: str, **templates: str) -> str:
    """The error for these templates, with paths shortened."""
    with pytest.raises(ConfigError) as caught:
        notices.load(*configured(path, *languages, **templates))
    return str(caught.value).replace(f"{path}/", "")


def test_every_shipped_language_has_every_notice() -> None:
    """All of them can be rendered with every sample."""
    languages = tuple(sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()))
    assert languages == ("cy", "en")
    check(shipped(languages))
    for language in languages:
        assert {f"{kind}.txt" for kind in TEMPLATES} <= {file.name for file in (SHIPPED / language).iterdir()}


def test_samples_know_every_variable() -> None:
    """Samples, VARIABLES and the variables of a notice have the same names."""
    policy, file = load(PROJECT / "config.example.toml"), PROJECT / "config.example.toml"
    assert isinstance(notices.load(policy, file), notices.Templates)
    for values in samples():
        assert values.keys() == VARIABLES.keys()
    told = facts(incident(), "held")
    assert variables.variables_of(policy, told, SENT).keys() == VARIABLES.keys()
    assert variables.variables_of_many(policy, [told], SENT).keys() == VARIABLES.keys()


def composed(
    policy: Policy, loaded: Templates, kind: NoticeKind = "held", about: Incident | None = None
) -> EmailMessage:
    """A notice by these templates."""
    told = facts(about or incident(STATES[kind]), kind)
    return compose.render(policy, told, "clerk@council.test", now=SENT, templates=loaded)


def test_an_own_template_replaces_one_notice_only(tmp_path: Path) -> None:
    """Files that shipped templates include can be included and replaced too."""
    policy, file = configured(
        tmp_path,
        en_held="Stopped\n\nSee {{ reference }}: {{ count }}.\n\n{% include 'en/_ending.txt' %}\n",
        en__ending="The mail desk",
    )
    loaded = notices.load(policy, file)
    held, deleted = composed(policy, loaded), composed(policy, loaded, "deleted")
    assert held["Subject"] == "Stopped (K7QF-3M2D)"
    assert content(held, "plain") == "Stopped\n\nSee K7QF-3M2D: 95.\n\nThe mail desk\n"
    assert words(deleted).startswith("Deleted: “School admissions” was on hold Your message “School admissions”")
    assert words(deleted).endswith("The mail desk")


def test_an_own_language(tmp_path: Path) -> None:
    """A directory with all kinds of notices is a language; dates are written in it."""
    policy, file = configured(tmp_path, "de", **{f"de_{kind}": f"{kind}\n\nVom {{{{ sent }}}}." for kind in TEMPLATES})
    message = composed(policy, notices.load(policy, file))
    assert "Vom 19. November 2026, " in words(message)
    assert message["Content-Language"] == "de"


def test_an_own_layout(tmp_path: Path) -> None:
    """`layout.html` surrounds the text; variables are escaped in it."""
    layout = "<body>{% for part in parts %}<i>{{ part.blocks[0].lines[0] }}</i>{% endfor %}"
    policy, file = configured(tmp_path, layout=layout)
    about = incident(subject="<b>&")
    message = composed(policy, notices.load(policy, file), about=about)
    assert content(message, "html").startswith("<body><i>Your message “&lt;b&gt;&amp;” of")
    assert text_of(content(message, "html")).startswith("Your message “<b>&” of")


def test_templates_are_read_once(tmp_path: Path) -> None:
    """A later change of the files has no effect until the next reload."""
    policy, file = configured(tmp_path, en_held="Stopped\n\nFor now.")
    loaded = notices.load(policy, file)
    shutil.rmtree(tmp_path / "words")
    assert "For now." in words(composed(policy, loaded))


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    """A byte order mark and CRLF are ignored; an editor's backup files are not templates."""
    policy, file = configured(tmp_path, en_held="")
    (tmp_path / "words/en/held.txt").write_bytes("\ufeffStopped\r\n\r\nOne.\r\n\r\n- two\r\n- three\r\n".encode())
    (tmp_path / "words/en/held.txt~").write_text("{{")
    (tmp_path / "words/en/.held.txt").write_text("{{")
    (tmp_path / "words/README").write_text("{{")
    message = composed(policy, notices.load(policy, file))
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
    """An empty line ends a paragraph, other line ends do not; entries of a list begin with a dash and a blank."""
    assert list(blocks(text)) == [Block(tuple(one), is_list=isinstance(one, list)) for one in expected]


# -- refused


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    """The error has file and line, the nearest known name, and all names; also for a file that only others include."""
    assert error_text(tmp_path, en_held="Stopped\n\nSee\n{{ refrence }}.", en__extra="{{ visible }}") == (
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
    """The error has the line, although only some incidents would reach it."""
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
def test_a_template_reaches_nothing_but_its_variables(tmp_path: Path, text: str) -> None:
    """jinja2's sandbox refuses attributes that lead into the program."""
    assert "the notice cannot be written" in error_text(tmp_path, en_held=f"Stopped\n\n{text}")


@pytest.mark.parametrize("name", ["range", "lipsum", "cycler", "config", "request", "joiner", "namespace", "dict"])
def test_a_template_has_no_functions(tmp_path: Path, name: str) -> None:
    """jinja2's global functions are removed too."""
    assert f"there is no variable {name}" in error_text(tmp_path, en_held=f"Stopped\n\n{{{{ {name}(3) }}}}")


def test_a_language_without_templates_is_refused(tmp_path: Path) -> None:
    """The error has the line of the configuration."""
    assert error_text(tmp_path, "en", "fr", en_held="Stopped\n\nFor now.") == (
        'config.toml, line 4: organisation.languages = "fr"\n'
        '    4 | languages = ["en", "fr"]\n'
        "  there are no templates for notices in this language\n"
        "  write one of cy, en, or put templates for it into a directory fr in notices.templates"
    )


def test_an_own_language_must_be_complete(tmp_path: Path) -> None:
    """Some senders would otherwise get no notice."""
    most = {f"de_{kind}": "Titel\n\nText" for kind in TEMPLATES if kind not in ("kept", "deleted")}
    assert error_text(tmp_path, "de", **most) == (
        "words/de\n"
        "  there are no templates for these notices: kept.txt, deleted.txt\n"
        "  add these files: senders get a notice of every kind"
    )


def test_only_a_part_may_use_the_variables_of_a_loop(tmp_path: Path) -> None:
    """The template that includes it sets them."""
    loop = "{% for message in groups[0].messages %}{% include 'en/_one.txt' %}{% endfor %}"
    policy, file = configured(tmp_path, en_summary=f"Several\n\n{loop}", en__one="{{ message.reference }}")
    assert isinstance(notices.load(policy, file), Templates)
    assert "there is no variable message" in error_text(tmp_path, en_summary="Several\n\n{{ message.reference }}")


def test_a_file_that_no_notice_uses_is_refused(tmp_path: Path) -> None:
    """Its author believes that it is used."""
    assert error_text(tmp_path, en_releasd="Sent\n\nAt last.") == (
        "words/en/releasd.txt\n"
        "  no notice has this name, so it would never be used\n"
        "  call it released.txt; a part that others include begins with _"
    )


@pytest.mark.parametrize("there", ["nothing", "a file", "an empty directory"])
def test_a_directory_without_templates_is_refused(tmp_path: Path, there: str) -> None:
    """The error has the line of the setting."""
    policy, file = configured(tmp_path)
    if there != "an empty directory":
        (tmp_path / "words").rmdir()
    if there == "a file":
        (tmp_path / "words").write_text("Stopped")
    with pytest.raises(ConfigError) as caught:
        notices.load(policy, file)
    assert (caught.value.file, caught.value.key, caught.value.line) == (file, "notices.templates", 7)


def test_a_template_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """The error has the line."""
    policy, file = configured(tmp_path, en_held="")
    (tmp_path / "words/en/held.txt").write_bytes(b"Stopped\n\n\xff")
    with pytest.raises(ConfigError, match=r"held\.txt, line 3\n  not UTF-8 text"):
        notices.load(policy, file)


def test_check_config_refuses_broken_templates(tmp_path: Path) -> None:
    """The exit status is 2, and the error is printed."""
    _, file = configured(tmp_path, en_held="{{ nobody }}\n\nText")
    result = CliRunner().invoke(cli.app, ["check-config", "--config", str(file)])
    assert result.exit_code == 2
    assert "there is no variable nobody" in result.output
    (tmp_path / "words/en/held.txt").write_text("Stopped\n\nFor now.")
    assert CliRunner().invoke(cli.app, ["check-config", "--config", str(file)]).exit_code == 0


def test_the_page_names_every_variable_and_every_notice() -> None:
    """docs/notices.md documents both for authors of templates."""
    page = (PROJECT / "docs" / "notices.md").read_text()
    for name, meaning in VARIABLES.items():
        assert f"| `{name}` | {meaning} |\n" in page
    for kind in TEMPLATES:
        assert f"| `{kind}` | " in page
