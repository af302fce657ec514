"""Queue files and listings of every kind, whose mail is released, refused or kept, and never lost."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest

from faults.held import PEOPLE, Held
from lab.waiting import until
from live_postfix.test_foreign_bytes import CUT_SEQUENCE, server_that_says
from undisclosed.incidents.records import ReleaseMode

CATCH_ALL = "catchall@council.test"


class Kind(NamedTuple):
    """Postfix's settings while the message comes, its parameters, and whether it can be released."""

    what: str
    settings: Mapping[str, str] = MappingProxyType({})
    mail: tuple[str, ...] = ()
    rcpt: str = ""
    goes_to: tuple[str, ...] = PEOPLE[:2]
    """The people who get it; nobody if it must not be released."""


DSN = ("SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=a+2Bb")
ARCHIVE = "archive@council.test"

KINDS = (
    Kind(
        "REDIRECT",
        {"smtpd_sender_restrictions": f"check_sender_access static:{{REDIRECT {CATCH_ALL}}}"},
        goes_to=(CATCH_ALL,),
    ),
    Kind("FILTER", {"header_checks": "static:{FILTER smtp:[127.0.0.1]:9}"}, goes_to=()),
    Kind("VERP", {"smtpd_authorized_verp_clients": "127.0.0.1"}, mail=("XVERP=+=",), goes_to=()),
    Kind("all of DSN", mail=DSN, rcpt="NOTIFY=NEVER ORCPT=rfc822;x+20y@x.example"),
    Kind("a line end in ORCPT", rcpt="ORCPT=rfc822;a+0Arecipient:+20victim@elsewhere.example", goes_to=()),
    Kind(
        "a warning time and an archive",
        {"delay_warning_time": "4h", "always_bcc": ARCHIVE},
        goes_to=(*PEOPLE[:2], ARCHIVE),
    ),
    Kind("a content_filter that is gone", {"content_filter": "smtp:[127.0.0.1]:9"}, goes_to=()),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
@pytest.mark.parametrize("mode", ["bcc", "unchanged"])
def test_a_queue_file(held: Held, kind: Kind, mode: ReleaseMode) -> None:
    """It goes where Postfix had decided, or it stays on hold and its sender knows that."""
    postfix = held.stage.postfix
    before = {name: postfix.get(name) for name in kind.settings}
    if before:
        postfix.set(**kind.settings)
    try:
        sent = held.send(mail=kind.mail, rcpt=kind.rcpt)
    finally:
        if before:
            postfix.set(**before)  # the notices are not meant
    held.round()
    request = held.office.ask(held.incident(sent), "release", mode)
    held.rounds()
    if mode == "unchanged":
        held.may_show(sent)
    assert held.office.answer(request)[0] == ("done" if kind.goes_to else "refused")
    held.goes_to(sent, kind.goes_to)
    remedy = "nothing to do" if kind.goes_to else "delete it; its sender sends it again"
    held.report(f"A queue file with {kind.what}, released as {mode}", remedy)


def test_another_servers_bytes_in_the_listing(held: Held) -> None:
    """A deferred message with a reply that is cut within a character: held mail is held, told and released as ever."""
    postfix = held.stage.postfix
    usual = postfix.get("relayhost")
    with server_that_says(CUT_SEQUENCE) as port:
        postfix.set(relayhost=f"[127.0.0.1]:{port}")
        try:
            held.send("ordinary")
            until(lambda: b"451 4.2.0 bo" in held.listing(), what="the reply in the queue")
            sent = held.hold()
            request = held.office.ask(held.incident(sent), "release", "bcc")
            held.rounds()
            assert held.office.answer(request)[0] == "done"
        finally:
            postfix.set(relayhost=usual)
            postfix.run("postqueue", "-f")
    held.report("A reply of another server, cut within a character, in the queue", "nothing to do")


@pytest.mark.parametrize(
    ("what", "message_id"),
    [
        ("with raw bytes", "<caf\udce9@council.test>"),
        ("of 1,100 characters", f"<{'x' * 1100}@council.test>"),
        ("missing", ""),
    ],
    ids=["raw", "long", "none"],
)
@pytest.mark.parametrize("end", ["released", "deleted", "expired"])
def test_a_message_id(held: Held, what: str, message_id: str, end: str) -> None:
    """Any Message-ID, or none: it is told, and can end in each way."""
    sent = held.hold(**{"Message-ID": message_id})
    incident = held.incident(sent)
    match end:
        case "released":
            held.office.ask(incident, "release", "bcc")
        case "deleted":
            held.may_end(sent)
            held.office.ask(incident, "delete")
        case "expired":
            held.about_to_expire(sent)
    held.rounds()
    assert sent.number not in held.queued
    held.report(f"A Message-ID {what}, and the message is {end}", "nothing to do")
