"""`rewrite.hide` and `rewrite.plan`: any bytes as a header."""

from __future__ import annotations

import contextlib
import re

from fuzz.readers import RECIPIENT_FIELDS, outside
from support.factories import policy
from undisclosed.addresses import addresses
from undisclosed.decision.edits import HeaderDeletion, apply
from undisclosed.decision.exposure import expose
from undisclosed.decision.message import Field, Message
from undisclosed.decision.rewrite import Unsafe, hide, plan
from undisclosed.policy import Policy

POLICIES = (
    policy(),
    policy(rewrite={"keep_internal": False, "to": "undisclosed-recipients:;"}),
    policy(organisation={"partner_domains": ["partner.test"]}, rewrite={"to": "Parents: ;"}),
)

_FIELD = re.compile(r"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_WRITTEN = re.compile(r"[ -~]+(?:\n [ -~]+)*")


def header(data: bytes) -> tuple[Field, ...]:
    """The fields as Postfix passes them: folds as line feed and blank, no leading blank; other lines are left out."""
    text = data.replace(b"\r\n", b"\n").replace(b"\0", b"").decode("utf-8", "surrogateescape")
    lines = re.split(r"\n(?![ \t])", text)
    found = (_FIELD.fullmatch(line) for line in lines)
    return tuple(Field(field[1], field[2].lstrip(" \t")) for field in found if field)


def check(data: bytes) -> None:
    """Rewrite one header. The first byte chooses the policy."""
    if not data:
        return
    rules, fields = POLICIES[data[0] % len(POLICIES)], header(data[1:])
    message = Message("clerk@council.test", (), fields)
    try:
        edits = hide(rules, message)
    except Unsafe:
        return
    with contextlib.suppress(Unsafe):
        planned = plan(rules, message).edits
        assert planned[: len(edits)] == edits
        assert {edit.name.casefold() for edit in planned[len(edits) :]} <= {"dkim-signature"}
    after = apply(fields, edits)
    _shows_nobody(rules, after)
    written = [edit.value for edit in edits if not isinstance(edit, HeaderDeletion)]
    assert all(map(_WRITTEN.fullmatch, written)), "written in something else than ASCII, or folded wrongly"
    assert all(field in fields or field.value in written for field in after), "a field that is not of an edit"
    untouched = [field for field in fields if field.name.casefold() not in RECIPIENT_FIELDS]
    assert untouched == [field for field in after if field.name.casefold() not in RECIPIENT_FIELDS]
    assert hide(rules, Message("clerk@council.test", (), after)) == (), "hiding again changes more"


def _shows_nobody(rules: Policy, after: tuple[Field, ...]) -> None:
    """One To, no Bcc, and in no recipient field an outside address for any of the readers."""
    names = [field.name.casefold() for field in after]
    assert names.count("to") == 1, f"{names.count('to')} To fields"
    assert not {"bcc", "resent-bcc"} & set(names), "a Bcc field"
    left = expose(rules, after)
    assert (left.external, left.partner) == ((), ())
    authors = {one.key for field in after if field.name.casefold() == "from" for one in addresses(field.value)}
    for name, value in after:
        if name.casefold() in RECIPIENT_FIELDS:
            seen = outside(value, exempt=authors if name.casefold() == "reply-to" else ())
            assert not seen, f"{name} still shows {seen}"
