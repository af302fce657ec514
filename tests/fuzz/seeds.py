"""The first inputs of a campaign: the repository's cases and the forms of its property tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from support import casefile
from support.address_forms import FORMS, MARKS, domain_of, local_of

ACTIONS = b"\0\1\2\3\4"
"""The policies of the session's target, and more than those of the rewrite's."""


def write(target: str, folder: Path) -> None:
    """Write the target's seeds as files."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"visible": visible, "rewrite": rewrite, "session": session}
    for number, seed in enumerate(makers[target]()):
        (folder / f"{number:04}").write_bytes(seed)


def visible() -> Iterator[bytes]:
    """A field of each form, and every field of the cases."""
    for number, form in enumerate(FORMS, 1):
        yield _filled(form, number)
    for message in _messages():
        for _, value in casefile.header_events(message):
            yield value


def rewrite() -> Iterator[bytes]:
    """The header of every case, and one of each form in each recipient field, under each policy."""
    for number, message in enumerate(_messages()):
        yield ACTIONS[number % 3 :][:1] + message.partition(b"\n\n")[0]
    for number, form in enumerate(FORMS, 1):
        name = (b"To", b"Cc", b"Bcc", b"Reply-To", b"Resent-To")[number % 5]
        yield ACTIONS[number % 3 :][:1] + b"From: clerk@council.test\n" + name + b": " + _filled(form, number)


def session() -> Iterator[bytes]:
    """The messages of the cases, under each policy; given up and followed by another."""
    for number, message in enumerate(_messages()):
        events = [b"L%s:%s" % pair for pair in casefile.header_events(message)]
        one = [b"M<clerk@council.test>", b"R<ann@family.test>", b"T", *events, b"N4dX1", b"BDear all", b"E"]
        policy = b"P" + ACTIONS[number % 5 :][:1]
        yield b"\0".join([b"\0", policy, *one])
        yield b"\0".join([b"\0", policy, *one[: number % len(one)], b"A", *one, b"Q", *one])


def dictionary(path: Path) -> None:
    """Tokens with a meaning in a header, for libFuzzer to insert (its option -dict)."""
    words = [
        *MARKS,
        "@outside.test",
        "@council.test",
        "\n ",
        "\nTo: ",
        "\nCc: ",
        "\nFrom: ",
        "\0L",
        "\0N",
        "\0M",
        "\0E",
        "\0A",
        "\0Q",
    ]
    lines = ("".join(f"\\x{byte:02x}" for byte in word.encode("utf-8", "surrogateescape")) for word in words)
    path.write_text("".join(f'"{line}"\n' for line in lines))


def _messages() -> Iterable[bytes]:
    return (case.message for case in casefile.every_case() if len(case.message) < 2000)


def _filled(form: str, number: int) -> bytes:
    return form.format(local=local_of(number), domain=domain_of(number), name="Zo\xeb Lee", number=number).encode()
