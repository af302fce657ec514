"""Addresses in all forms that people and programs write, for properties and fuzzing."""

from __future__ import annotations

MARKS = [
    *"@\"()<>[]{},;:\\.'=?%&!*-_ \n\t\r",
    *("=?utf-8?q?", "=?utf-8?b?", "=?x?q?", "?=", "mailto:", "%40", "=40", "QA==", '\\"', "(a@b.test)", "a@b.test"),
    *(
        "\x00",
        "\xad",
        "\u200b",
        "\u200d",
        "\u202e",
        "\uff20",
        "\ufe6b",
        "\u3002",
        "\uff0e",
        "\xe9",
        "e\u0301",
        "\udcff",
    ),
]

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def local_of(number: int) -> str:
    """A local part that is unique to the number, and no ending of another."""
    return f"{LETTERS[number % 26]}.{number}+{LETTERS[number // 26]}q{number}z"


def domain_of(number: int) -> str:
    """A domain that is unique to the number."""
    return f"{'mail.' * (number % 2)}family{number}.{'test' if number % 3 else 'example'}"


FORMS = [
    "{local}@{domain}",
    "<{local}@{domain}>",
    "{name} <{local}@{domain}>",
    '"{name}, Jr" <{local}@{domain}>',
    '"say \\"hi\\" (x" <{local}@{domain}>',
    "=?utf-8?q?Zo=C3=AB_?= =?utf-8?q?Lee?= <{local}@{domain}>",
    "=?utf-8?b?Wm/Dqw==?= {name} <{local}@{domain}>",
    "Zo\xeb <{local}@{domain}>",
    '{local}@{domain} ({name} (x) 5" y)',
    "({name}) {local}@{domain}",
    "{local}(x)@{domain}",
    "<@relay.test,@mx.test:{local}@{domain}>",
    "'{local}@{domain}' <{local}@{domain}>",
    '"{local}@{domain}" <{local}@{domain}>',
    "{local}@{domain} <mailto:{local}@{domain}>",
    "=?utf-8?q?{local}=40{domain}?= <{local}@{domain}>",
    '"{local} {number}"@{domain}',
    '{name} <"{local} {number}"@{domain}>',
    "{local}@[192.0.2.{number}]",
    "{local}@[IPv6:2001:db8::{number}]",
    "{local}@m\xfc{domain}",
]
