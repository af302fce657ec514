"""The answers of the milter at each stage of the protocol, to an independent client (miltertest)."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import struct

import pytest
from miltertest import MilterError, constants

from support.factories import rule, strangers
from wire.mta import Mta
from wire.running import Running, Start

MANY = ", ".join(strangers(11))
HEADER = (("From", "clerk@council.test"), ("To", MANY), ("Subject", "School places"))
ORDINARY = (("From", "clerk@council.test"), ("To", "parent@family.test"), ("Subject", "Your place"))


@pytest.fixture
def running(start: Start) -> Running:
    """A milter that rejects, rewrites or holds, depending on the sender."""
    return start(
        rules=[
            rule(name="rewritten", senders=["rewrite@*"], action="rewrite"),
            rule(name="held", senders=["hold@*"], action="quarantine"),
            rule(name="refused"),
        ]
    )


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_a_message_that_passes_is_accepted_at_the_end_of_its_header(start: Start, kind: str) -> None:
    """No body is asked for; a message over the limit is refused there too, with its reply."""
    with Mta(start(kind).address).connect() as mta:
        passed, refused = mta.send(ORDINARY), mta.send(HEADER)
    assert (passed.word, passed.stage) == ("accept", "eoh")
    assert (refused.word, refused.stage) == ("reject", "eoh")
    assert refused.reply.startswith("550-5.7.0 ")
    assert "Everyone would have seen 11 outside addresses" in refused.reply


def test_headers_are_not_answered(running: Running) -> None:
    """The negotiation leaves header events without an answer, and DATA with one (else inet waits 40 ms)."""
    with Mta(running.address) as mta:
        assert mta.protocol & constants.SMFIP_NR_HDR
        assert not mta.protocol & (constants.SMFIP_NR_DATA | constants.SMFIP_NODATA)


def test_an_mta_that_wants_every_event_answered_gets_its_answers(running: Running) -> None:
    """Without the no-reply flags on offer each event is answered, and the final answer is the same."""
    old = constants.SMFI_V2_PROT & ~constants.SMFIP_NR_HDR
    with Mta(running.address, protocol=old).connect() as mta:
        assert mta.protocol == constants.SMFIP_NOHELO
        assert mta.send(HEADER).word == "reject"
        held = mta.send(HEADER, sender="hold@council.test", body=b"x" * 200_000)
    assert (held.word, held.body_chunks) == ("hold", 4)


def test_an_mta_that_cannot_quarantine_is_refused(running: Running) -> None:
    """The milter gives no answer that could not be carried out: the connection fails, and Postfix defers the mail."""
    with pytest.raises((MilterError, ConnectionError)):
        Mta(running.address, actions=constants.SMFI_V1_ACTS)
    with Mta(running.address).connect() as mta:
        assert mta.send(ORDINARY).word == "accept"


def test_a_body_is_skipped_but_where_recipients_are_hidden(running: Running) -> None:
    """A hold stops the transfer at the first chunk, a rewrite reads to the end, or to the first obstacle."""
    multipart = (*HEADER, ("MIME-Version", "1.0"), ("Content-Type", "multipart/mixed; boundary=x"))
    megabytes = b"--x\r\n\r\nDear all\r\n" + b"line\r\n" * 400_000
    invitation = b"\r\n--x\r\nContent-Type: text/calendar\r\n\r\n"
    chunks = math.ceil(len(megabytes) / 65_535)
    with Mta(running.address).connect() as mta:
        held = mta.send(HEADER, sender="hold@council.test", body=megabytes)
        plain = mta.send(HEADER, sender="rewrite@council.test", body=megabytes)
        large = mta.send(multipart, sender="rewrite@council.test", body=megabytes)
        last = mta.send(multipart, sender="rewrite@council.test", body=megabytes + invitation)
        first = mta.send(multipart, sender="rewrite@council.test", body=invitation + megabytes)
    assert (held.word, held.body_chunks) == ("hold", 1)
    assert (plain.word, plain.body_chunks) == ("accept", chunks)
    assert (large.word, large.body_chunks) == ("accept", chunks)
    assert (last.word, last.body_chunks) == ("hold", chunks)
    assert (first.word, first.body_chunks) == ("hold", 2)
    assert [arguments for command, arguments in large.edits if command == constants.SMFIR_CHGHEADER]


def test_many_messages_and_rset_anywhere_in_one_session(running: Running) -> None:
    """A transaction that is given up at any stage leaves no state to the next one."""
    with Mta(running.address).connect() as mta:
        for stage in range(5):
            mta.mail("hold@council.test")
            if stage > 0:
                mta.envelope("hold@council.test", ["parent@family.test"])
            if stage > 1:
                mta.header(HEADER[:1])
            if stage > 2:
                mta.header(HEADER[1:])
            if stage > 3:
                assert mta.end_of_header() is None
            mta.abort()
            assert mta.send(ORDINARY, queue_id=f"4dX{stage}").word == "accept"
            assert mta.send(HEADER).word == "reject"
    gone = running.milter.log(event="message", outcome="client_gone")
    assert len(gone) == 1


def test_a_login_makes_mail_from_anywhere_outgoing(running: Running) -> None:
    """The macro of MAIL has the login, for that transaction only."""
    with Mta(running.address).connect("192.0.2.7") as mta:
        assert mta.send(HEADER).word == "accept"
        assert mta.send(HEADER, login="clerk").word == "reject"


def test_sendmail_gets_its_refusal_in_one_line(running: Running) -> None:
    """Port 0 is sendmail(1): its bounce repeats the reply for each recipient, with line ends as underscores."""
    with Mta(running.address).connect("127.0.0.1", 0) as mta:
        reply = mta.send(HEADER).reply
    assert "\n" not in reply.rstrip()
    assert reply.startswith("550 5.7.0 Everyone would have seen 11 outside addresses: use Bcc. Reference: ")


def test_no_character_of_the_organisations_name_breaks_the_reply(start: Start) -> None:
    """A per cent sign is doubled for libmilter and arrives single; other letters are written in ASCII."""
    running = start(organisation={"name": "100% Cyngor Llŷn %s%n", "internal_domains": ["council.test"]})
    with Mta(running.address).connect() as mta:
        reply = mta.send(HEADER).reply
    assert "100% Cyngor Llyn" in reply
    assert reply.isascii()


def test_a_field_of_raw_bytes_is_counted(running: Running) -> None:
    """Latin-1 in a display name reaches the milter as raw bytes, and hides no address."""
    value = b"M\xfcller <m@family.test>, " + MANY.encode()
    with Mta(running.address).connect() as mta:
        mta.envelope("clerk@council.test", ["parent@family.test"])
        mta.packet(b"LTo\0" + value + b"\0")
        final_answer = mta.end_of_header()
    assert final_answer is not None
    assert (final_answer.word, "12 " in final_answer.reply) == ("reject", True)


def test_an_8_bit_field_name_does_not_let_a_message_pass(running: Running) -> None:
    """pymilter raises on an 8-bit name before the callback runs: without an answer Postfix defers the mail.

    Postfix itself ends the header before such a field, so that no mail of it reaches a milter.
    """
    no_answer = (TimeoutError, MilterError, ConnectionError)
    with contextlib.suppress(*no_answer), Mta(running.address, timeout=2).connect() as mta:
        mta.envelope("clerk@council.test", ["parent@family.test"])
        mta.packet(b"LT\xf6\0x@y.test\0")
        mta.header(HEADER)
        final_answer = mta.end_of_header()
        assert final_answer is not None
        assert final_answer.word in ("reject", "tempfail")
    with Mta(running.address).connect() as mta:
        assert mta.send(ORDINARY).word == "accept"
        assert mta.send(HEADER).word == "reject"


def test_a_peer_that_breaks_the_protocol_ends_its_own_connection_only(running: Running) -> None:
    """Random bytes, wrong lengths and a cut packet end their own connection; a session next to them goes on."""
    chance = random.Random(7)
    with Mta(running.address).connect() as mta:
        for junk in (
            chance.randbytes(400),
            struct.pack("!I", 2**31) + b"L",
            struct.pack("!I", 40) + b"Lshort",
            struct.pack("!I", 1) + b"N",
            struct.pack("!I", 1) + b"E",
        ):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(10)
                peer.connect(str(running.path))
                peer.sendall(junk)
                peer.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while peer.recv(4096):
                        pass
            assert mta.send(ORDINARY).word == "accept"
            assert mta.send(HEADER).word == "reject"


def test_the_log_line_of_a_message_has_figures_and_no_addresses(running: Running) -> None:
    """Each transaction has one line."""
    with Mta(running.address).connect() as mta:
        reply = mta.send(HEADER, queue_id="4dX1c23kLmz9Q").reply
    [line] = running.milter.log(event="message")
    assert line["reference"] in reply
    assert {key: line[key] for key in ("queue_id", "sender", "client", "count", "organisations", "rule", "action")} == {
        "queue_id": "4dX1c23kLmz9Q",
        "sender": "clerk@council.test",
        "client": "127.0.0.1",
        "count": 11,
        "organisations": 11,
        "rule": "refused",
        "action": "reject",
    }
    assert line["microseconds"] > 0
    assert "@family" not in running.milter.log_file.read_text()
