"""Random malformed headers: after Postfix and the milter no outside address is visible."""

from __future__ import annotations

import base64
import random
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from lab.client import Client
from lab.postfix import PrivatePostfix
from lab.sink import Delivery, Sink
from live_postfix.stage import Stage, attached
from support.delivered_header import RECIPIENT_FIELDS, leaks
from support.factories import rule

MESSAGES = 400
LIMIT = 2
AUTHOR = "agency@work.example"

FIELDS = (
    *("To", "To", "To", "to", "TO", "Cc", "CC", "Bcc", "Bcc", "Reply-To"),
    *("Resent-To", "Resent-Cc", "Resent-Bcc", "Apparently-To", "Mail-Followup-To"),
)
DOMAINS = (
    *("council.test", "council.test", "schools.council.test", "family1.test", "FAMILY2.test", "family3.test"),
    *("family4.test.", "notcouncil.test", "council.test.evil.example", "xn--teulu-mn-b4a.example"),
    *("llŷn.example", "[192.0.2.1]"),
)
LOCALS = ("ann", "bob", "c.d", "e+f", "O'Brien", '"g h"', "siân", "j%k", "=?utf-8?q?z?=")
AUTHORS = (
    "Clerk <clerk@council.test>",
    "clerk@council.test",
    AUTHOR,
    "",
    f'"The, Clerk" <clerk@council.test>, {AUTHOR}',
)
BETWEEN = (", ", ", ", ",", ",\n ", ";", " ", "", ",,", ",\n\t", "\n ")
COLONS = (": ", ": ", ": ", ":", ":  ", ":\t", ":\n ", ": \n\t", " : ", "\t:")
PLAIN = re.compile(rb"(?<![\w.+%'@=?-])[\w.+%']+@([\w.-]+)(?![\w.=?-])")
STRAY = (b" folded", b"no colon here", b"T\xf6: ann@family1.test", b"To", b": ann@family1.test", b"X-Y: a\rTo: b")


@pytest.fixture(scope="module", params=["completed", "as sent"])
def stage(request: pytest.FixtureRequest, installed_postfix: PrivatePostfix, outside: Sink) -> Iterator[Stage]:
    """A rewrite from three addresses on; with a Postfix that rewrites headers itself, and with one that does not."""
    settings = {} if request.param == "completed" else {"local_header_rewrite_clients": "", "message_drop_headers": ""}
    with attached(installed_postfix, outside, **settings) as stage:
        stage.policy("rewrite", rules=[rule(more_than_addresses=LIMIT, action="rewrite")])
        yield stage


def address(chance: random.Random) -> str:
    """An addr-spec, ours or not."""
    return f"{chance.choice(LOCALS)}@{chance.choice(DOMAINS)}"


def entry(chance: random.Random) -> str:
    """An address with something around it that hides it, doubles it or cuts it."""
    one, other = address(chance), address(chance)
    hidden = base64.b64encode(other.encode()).decode()
    names = ("Ann", '"Davies, Bob"', '"\\"x\\" y"', "(c)", "M\udcfcller", '"unterminated', "a(b", other, f'"{other}"')
    name = chance.choice((*names, "=?utf-8?q?Si=C3=A2n?=", f"=?utf-8?b?{hidden}?=", ""))
    forms = (
        f"{name} <{one}>", one, f"<{one}>", f"{one} ({name})", f"{name} <mailto:{one}>", f"'{one}' <{one}>",
        f"<@relay.test:{one}>", f"{name}{one}", f"<{name} {one}", f"{one}>", f"Group: {one};", f"({name}) {one}",
        one.replace("@", " @ "), f"{name}\n <{one}>",
    )  # fmt: skip
    return chance.choice(forms)


def message(number: int) -> bytes:
    """The message of this number, always the same."""
    chance = random.Random(number)
    fields = [("From", chance.choice(AUTHORS)), ("Subject", f"Number {number}")]
    for _ in range(chance.choice((1, 2, 2, 3, 5))):
        entries = [entry(chance) + chance.choice(BETWEEN) for _ in range(chance.choice((0, 1, 1, 2, 3, 5)))]
        fields.append((chance.choice(FIELDS), "".join(entries).strip()))
    chance.shuffle(fields)
    lines = [f"{name}{chance.choice(COLONS)}{value}".encode("utf-8", "surrogateescape") for name, value in fields]
    if chance.random() < 0.15:
        lines.insert(chance.randrange(len(lines)), chance.choice(STRAY))
    return b"\n".join([*lines, b"", b"Dear all", b""])


def test_nobody_is_seen(stage: Stage) -> None:
    """A rewritten message shows no outside address, any other at most the limit; no decision fails."""
    with Client(stage.postfix.port) as session:
        outcomes = [
            session.send(message(number), sender="clerk@council.test", to=["p@family.test"], options=["SMTPUTF8"])
            for number in range(MESSAGES)
        ]
    stage.gateway.settle()
    assert {outcome.final.code for outcome in outcomes} == {250}
    decided = {line["queue_id"]: line["outcome"] for line in stage.gateway.milter.log(event="message")}
    assert not stage.gateway.milter.log(event="message_failed")
    seen = []
    for delivery in stage.sink.deliveries:
        found = re.search(rb"SMTP id (\w+)", delivery.data)
        assert found is not None
        if decided[found[1].decode()] == "rewritten":
            seen += [(leak, delivery.header) for leak in leaks(delivery.header, author=AUTHOR)]
        else:
            # By domains alone: how many people the same domain stands for is the counting's to know.
            shown = domains(delivery)
            seen += [(str(shown), delivery.header)] if len(shown) > LIMIT else []
    assert seen == []
    assert len(stage.sink.deliveries) + len(stage.held()) == MESSAGES
    assert min(Counter(decided.values()).values()) > MESSAGES // 20


def domains(delivery: Delivery) -> set[bytes]:
    """The domains outside of the plainest addresses in recipient fields, without those of the author."""
    values = (value for name in RECIPIENT_FIELDS for value in delivery.values(name))
    found = {match[1].lower().strip(b".") for value in values for match in PLAIN.finditer(value)}
    ours = {domain for domain in found if domain == b"council.test" or domain.endswith(b".council.test")}
    return found - ours - {b"work.example"}
