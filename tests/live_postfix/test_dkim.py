"""A milter that signs behind ours, Debian's OpenDKIM: every message that leaves has a signature that verifies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import dkim
import pytest

from lab import toml
from lab.gateway import Gateway
from lab.opendkim import Key, OpenDkim
from lab.postfix import PrivatePostfix
from lab.sink import Delivery, Sink
from live_postfix.office import COLLEAGUE, PARENTS, SENDER, Office, attached, emptied, letter, new_gateway
from support.delivered_header import leaks
from undisclosed.incidents.records import Incident, ReleaseMode, State

OURS = "council.test"
PARTNER = "partner.example"
EVERYBODY = (*PARENTS[:3], COLLEAGUE)
REWRITTEN = "newsletter@council.test"
"""The sender whose mail is rewritten at once; all other mail is held."""

NUMBERS = count(500000)
"""Of letters that are made here: two of one name would be one incident."""


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    """The published keys by selector: our signer's key, the one that it replaced, and a partner's."""
    made = Key.make(OURS, "lab"), Key.make(OURS, "before"), Key.make(PARTNER, "mail")
    return {key.selector: key for key in made}


@pytest.fixture(scope="module")
def standing(installed_postfix: PrivatePostfix, outside: Sink, keys: dict[str, Key]) -> Iterator[Gateway]:
    """A gateway on which OpenDKIM signed already when our milter was attached."""
    gateway = new_gateway(installed_postfix, outside)
    rules: list[toml.Table] = [
        {"name": "newsletters", "senders": [REWRITTEN], "more_than_addresses": 10, "action": "rewrite"},
        {"name": "many strangers", "more_than_addresses": 10, "action": "quarantine"},
    ]
    gateway.configure(gateway.policy(rules=rules))
    with OpenDkim(keys["lab"]) as signer:
        signers = (f"{name}={signer.endpoint}" for name in ("smtpd_milters", "non_smtpd_milters"))
        installed_postfix.run("postconf", "-e", *signers)
        with attached(gateway):
            yield gateway


@pytest.fixture
def office(standing: Gateway) -> Iterator[Office]:
    """The steward's place, with nothing held and nothing delivered."""
    with emptied(standing) as office:
        yield office


# -- a verifier


def verifications(message: bytes, keys: dict[str, Key]) -> list[tuple[str, str, bool]]:
    """Each signature of a message, from the first one down: its domain, its selector, whether it verifies."""
    records = {key.name: key.record for key in keys.values()}
    fields, _ = dkim.rfc822_parse(message)
    signatures = [value for name, value in fields if name.lower() == b"dkim-signature"]
    found = []
    for index, signature in enumerate(signatures):
        tags = dkim.util.parse_tag_value(signature)
        try:
            verifies = dkim.DKIM(message).verify(
                idx=index, dnsfunc=lambda name, timeout=0: records.get(name.decode(), "").encode()
            )
        except dkim.DKIMException:
            verifies = False
        found.append((tags[b"d"].decode(), tags[b"s"].decode(), verifies))
    return found


def signed(message: bytes, key: Key, *fields: bytes) -> bytes:
    """The message with a signature over these header fields and its body."""
    on_the_wire = message.replace(b"\n", b"\r\n")
    signature: bytes = dkim.sign(
        on_the_wire, key.selector.encode(), key.domain.encode(), key.private, include_headers=[b"from", *fields]
    )
    return signature + on_the_wire


def held(office: Office, key: Key, *fields: bytes) -> tuple[Incident, bytes]:
    """A letter that was signed before it came to us, and is held now; and the letter."""
    number = next(NUMBERS)
    message = signed(letter(number), key, *fields)
    assert verifications(message, {"": key}) == [(key.domain, key.selector, True)]
    assert office.gateway.send(message, sender=SENDER, to=EVERYBODY).accepted
    office.round()
    return office.incident(f"<letter-{number}@council.test>"), message


def released(office: Office, incident: Incident, way: ReleaseMode) -> tuple[Delivery, ...]:
    """The deliveries of a message that was released."""
    request = office.ask(incident, "release", way)
    office.round()
    assert office.answer(request)[0] == "done"
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
    return office.gateway.sink.deliveries


# -- what leaves


def test_attached_before_a_signer_that_signs_released_mail_too(standing: Gateway) -> None:
    """Ours comes first, and nothing is left for an administrator to do."""
    ours, theirs = standing.postfix.get("smtpd_milters").rstrip().rsplit(maxsplit=1)
    assert "undisclosed/milter.sock" in ours
    assert standing.postfix.get("undisclosed_release_milters") == theirs
    status = standing.command("postfix", "status", "--config-dir", str(standing.postfix.config_dir))
    assert status.returncode == 0, status.stdout + status.stderr


@pytest.mark.parametrize(("way", "copies"), [("bcc", 1), ("split", 4), ("unchanged", 1)])
def test_released_mail_is_signed(office: Office, keys: dict[str, Key], way: ReleaseMode, copies: int) -> None:
    """Held mail carries no signature of ours; each copy that is made of it has one, over what it says now."""
    incident = office.held()
    assert "DKIM-Signature" not in office.gateway.postfix.postcat(office.on_hold()[0])
    deliveries = released(office, incident, way)
    assert [verifications(delivery.data, keys) for delivery in deliveries] == [[(OURS, "lab", True)]] * copies


@pytest.mark.parametrize(("way", "copies"), [("bcc", 1), ("split", 4)])
def test_a_signature_of_ours_that_the_release_breaks_is_replaced(
    office: Office, keys: dict[str, Key], way: ReleaseMode, copies: int
) -> None:
    """A receiver may treat mail with a broken signature of the author's own domain as forged."""
    incident, _ = held(office, keys["before"], b"to", b"cc", b"subject")
    deliveries = released(office, incident, way)
    assert [verifications(delivery.data, keys) for delivery in deliveries] == [[(OURS, "lab", True)]] * copies


@pytest.mark.parametrize("way", ["bcc", "split", "unchanged"])
def test_a_signature_of_others_that_stays_true_is_kept(office: Office, keys: dict[str, Key], way: ReleaseMode) -> None:
    """A signature of another domain that covers no edited field stays, and still verifies."""
    incident, _ = held(office, keys["mail"], b"subject")
    for delivery in released(office, incident, way):
        assert sorted(verifications(delivery.data, keys)) == [(OURS, "lab", True), (PARTNER, "mail", True)]


def test_a_signature_of_others_over_the_recipients_is_never_broken(office: Office, keys: dict[str, Key]) -> None:
    """Signed fields are not edited: hiding is refused, and unchanged it verifies beside ours."""
    incident, _ = held(office, keys["mail"], b"to", b"cc")
    ways: tuple[ReleaseMode, ...] = ("bcc", "split")
    for way in ways:
        request = office.ask(incident, "release", way)
        office.round()
        state, why = office.answer(request)
        assert (state, office.state(incident)) == ("refused", State.HELD)
        assert "signed by DKIM over" in why
    [delivery] = released(office, incident, "unchanged")
    assert sorted(verifications(delivery.data, keys)) == [(OURS, "lab", True), (PARTNER, "mail", True)]


def test_a_signature_of_ours_that_stays_true_is_kept(office: Office, keys: dict[str, Key]) -> None:
    """Released unchanged, what an inner server has signed for us verifies beside the gateway's own."""
    incident, _ = held(office, keys["before"], b"to", b"cc", b"subject")
    [delivery] = released(office, incident, "unchanged")
    assert sorted(verifications(delivery.data, keys)) == [(OURS, "before", True), (OURS, "lab", True)]


def test_rewritten_mail_is_signed_as_it_was_rewritten(office: Office, keys: dict[str, Key]) -> None:
    """The signer comes after our milter: it signs the header that the receivers get, without outside addresses."""
    message = letter(next(NUMBERS), From=f"News <{REWRITTEN}>")
    assert office.gateway.send(message, sender=REWRITTEN, to=EVERYBODY).accepted
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
    [delivery] = office.gateway.sink.deliveries
    assert leaks(delivery.header) == []
    assert verifications(delivery.data, keys) == [(OURS, "lab", True)]


def test_a_signature_of_ours_that_a_rewrite_breaks_is_replaced(office: Office, keys: dict[str, Key]) -> None:
    """It is no obstacle: an inner server signed over To, and the signer behind our milter signs anew."""
    message = signed(letter(next(NUMBERS), From=f"News <{REWRITTEN}>"), keys["before"], b"to", b"cc", b"subject")
    assert office.gateway.send(message, sender=REWRITTEN, to=EVERYBODY).accepted
    assert office.received() == dict.fromkeys(EVERYBODY, 1)
    [delivery] = office.gateway.sink.deliveries
    assert leaks(delivery.header) == []
    assert verifications(delivery.data, keys) == [(OURS, "lab", True)]


def test_one_other_byte_breaks_the_signature(office: Office, keys: dict[str, Key]) -> None:
    """The verifier that all tests here trust sees a change of the recipients, of the subject and of the body."""
    [delivery] = released(office, office.held(), "bcc")
    assert verifications(delivery.data, keys) == [(OURS, "lab", True)]
    [to] = delivery.values("To")
    for before, after in (
        (b"To: " + to, b"To: x" + to),
        (b"School places", b"School palces"),
        (b"Dear all", b"dear all"),
    ):
        assert delivery.data.count(before) == 1
        assert verifications(delivery.data.replace(before, after), keys) == [(OURS, "lab", False)]
    another = replace(keys["before"], selector="lab")
    assert verifications(delivery.data, {"": another}) == [(OURS, "lab", False)]
