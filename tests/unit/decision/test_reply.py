"""The words that senders read: short, ASCII, each line complete in itself, whatever stands in the configuration."""

from __future__ import annotations

import re

import anyascii
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.factories import policy
from undisclosed.addresses import Address
from undisclosed.decision import obstacles
from undisclosed.decision import reply as reply_words
from undisclosed.decision.exposure import Exposure
from undisclosed.decision.obstacles import Obstacle, ObstacleKind
from undisclosed.decision.reply import LINE_LIMIT, LINES_LIMIT, REASON_LIMIT, Reply, fault, quarantine_reason, refusal
from undisclosed.decision.rules import Decision, Scope
from undisclosed.policy import Action, Policy

REFERENCE = "K7QF-3M2D"
STRANGER = Address("parent@family.test", "parent", "family.test")

OBSTACLES = [
    obstacles.INVITATION,
    obstacles.TNEF,
    obstacles.PROTECTED,
    obstacles.SMIME,
    obstacles.PGP,
    obstacles.SIGNED,
    *(Obstacle(f"{words} To, Cc", ObstacleKind.SIGNED) for words in obstacles.SIGNATURES.values()),
]
"""Obstacles that have words of their own."""


def decision(count: int = 95, obstacle: Obstacle | None = None, rule: str = "too many in sight") -> Decision:
    """A refusal of a message that shows so many addresses."""
    exposure = Exposure(external=(STRANGER,) * count, organisations=count)
    return Decision(Scope.OUTGOING, Action.REJECT, rule, exposure, "", obstacle)


SOUND = policy()
"""Built once: a property is tried on many."""


def organisation(name: str = "Exampleshire County Council", help: str = "the service desk") -> Policy:  # noqa: A002  the setting's own name
    """A policy with these words in it, unchecked: the words must not rely on what the schema refuses."""
    return SOUND.model_copy(update={"organisation": SOUND.organisation.model_copy(update={"name": name, "help": help})})


def on_the_wire(reply: Reply) -> list[str]:
    """The lines as an SMTP client gets them."""
    return [f"{reply.code}-{reply.enhanced} {line}" for line in reply.lines]


def check_form(reply: Reply) -> None:
    """Hold a reply to all limits that the wire and mail clients set."""
    lines = on_the_wire(reply)
    assert 1 < len(lines) <= LINES_LIMIT
    assert max(map(len, lines)) <= LINE_LIMIT
    for line in reply.lines:
        assert re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", line), line
        assert "  " not in line
        assert not re.match(r"\d\.\d+\.\d+ ", line)
    for alone in (reply.lines[0], reply.lines[-1]):
        assert alone.startswith("Not sent")
    assert "\n" not in reply.single()
    assert len(reply.single()) < 500  # a reply line has at most 512 bytes: RFC 5321, section 4.5.3.1.5


def test_the_whole_refusal() -> None:
    """The reply to the message that showed 95 parents to each other, word by word."""
    reply = refusal(policy(organisation={"name": "Cyngor Sir Llŷn"}), decision(95), REFERENCE)
    assert reply == Reply(
        550,
        "5.7.0",
        (
            "Not sent: 95 outside addresses would have been visible to everyone who got it.",
            "Please put your own address in To and all the others in Bcc, then send it again.",
            "A mail merge is safer still. For a few people, send one message each.",
            "For help, ask your mail administrator (Cyngor Sir Llyn).",
            "Not sent: please put the addresses in Bcc and send again. Reference: K7QF-3M2D",
        ),
    )


def test_the_whole_fault() -> None:
    """The reply to a message that we failed on says that nobody but us is to blame, and that trying again helps."""
    reply = fault(organisation(), "4dX1c23kLmz9Q")
    assert reply == Reply(
        451,
        "4.3.0",
        (
            "Not sent yet, and not your fault: our mail system failed while checking it.",
            "Nothing was sent and nothing is lost. Please try again in a few minutes.",
            "If it happens again, ask the service desk (Exampleshire County Council).",
            "Not sent yet, not your fault: please try again shortly. Queue id: 4dX1c23kLmz9Q",
        ),
    )


def test_one_address_is_singular() -> None:
    """A rule with threshold 0 refuses a message for one address, and says so in the singular."""
    first = refusal(policy(), decision(1), REFERENCE).lines[0]
    assert first == "Not sent: 1 outside address would have been visible to everyone who got it."


def test_the_limit_is_not_named() -> None:
    """A sender who reads the limit sends in batches just below it."""
    rules = [{"name": "n", "more_than_addresses": 37, "more_than_organisations": 41, "action": "reject"}]
    text = refusal(policy(rules=rules), decision(95), REFERENCE).single()
    assert "95" in text
    assert "37" not in text
    assert "41" not in text


def test_code_and_enhanced_code_are_the_policys() -> None:
    """The configured codes are used, and the longest of them still leaves every line within the limit."""
    reply = refusal(policy(reply={"code": 554, "enhanced": "5.999.999"}), decision(1400), REFERENCE)
    assert (reply.code, reply.enhanced) == (554, "5.999.999")
    check_form(reply)
    assert reply.lines[-1].endswith(REFERENCE)


@pytest.mark.parametrize("nothing", ["", None])
def test_no_reference_is_left_out(nothing: str | None) -> None:
    """Without a key there is no reference, and no label without one."""
    last = refusal(policy(), decision(), nothing).lines[-1]
    assert last == "Not sent: please put the addresses in Bcc and send again."
    assert fault(policy(), nothing).lines[-1] == "Not sent yet, not your fault: please try again shortly."


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_an_obstacle_is_told_in_plain_words(obstacle: Obstacle) -> None:
    """A message that was to be corrected, and is refused since it must not be, names the reason and a way out."""
    reply = refusal(policy(), decision(12, obstacle), REFERENCE)
    check_form(reply)
    assert reply.lines[0].startswith("Not sent: 12 outside addresses")
    assert re.match(
        "It is (digitally signed or encrypted|an invitation|in Outlook's Rich Text format), ", reply.lines[1]
    )
    assert "Bcc" in reply.lines[2]
    assert REFERENCE in reply.lines[-1]


def test_an_invitation_is_not_to_be_sent_again_with_bcc() -> None:
    """Bcc hides nobody whom the invitation itself lists: the advice must not be the usual one."""
    text = refusal(policy(), decision(12, obstacles.INVITATION), REFERENCE).single()
    assert "Bcc cannot hide them" in text
    assert "put the addresses in Bcc and send again" not in text
    assert "ordinary message" in text


def test_an_obstacle_without_words_of_its_own() -> None:
    """Any other obstacle is told as one, and never by its technical name."""
    reply = refusal(policy(), decision(12, Obstacle("the name of a To field is irregular")), REFERENCE)
    check_form(reply)
    assert reply.lines[1] == "The addresses could not be hidden automatically, so please do that yourself:"
    assert "irregular" not in reply.single()


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("Cyngor Llŷn a Môn", "Cyngor Llyn a Mon"),
        ("Landkreis Groß-Möhringen", "Landkreis Gross-Mohringen"),
        ("Mairie de L\N{RIGHT SINGLE QUOTATION MARK}Haÿ-les-Œillets", "Mairie de L'Hay-les-Oeillets"),
        ("Þróttur, Ærø, Łódź, Đakovo", "Throttur, Aero, Lodz, Dakovo"),
        ("Министерство", "Ministerstvo"),
        ("Δήμος Αθηναίων", "Dimos Athinaion"),
        ("Môn (zerlegt)", "Mon (zerlegt)"),
        ("50 % off\tCouncil\nplc.", "50 % off Council plc"),
        ("Sunny ☀ School 😀", "Sunny School"),
        ("Tokyo 東京", "Tokyo"),
        ("Council\u202e\udc80\u200b", "Council"),
    ],
)
def test_names_are_spelled_in_ascii(name: str, spelled: str) -> None:
    """A name keeps what its readers would know again, in the letters that an SMTP reply may have."""
    assert refusal(organisation(name), decision(), None).lines[3] == f"For help, ask the service desk ({spelled})."


def test_german_umlauts_have_a_spelling_of_their_own() -> None:
    """Where German is one of the organisation's languages, ü is ue: Muenchen, and not Munchen."""
    own = policy(organisation={"name": "Bürgerbüro Österloh", "languages": ["de", "en"]})
    assert "(Buergerbuero Oesterloh)" in refusal(own, decision(), None).single()


@pytest.mark.parametrize(
    "name", ["東京都教育委員会", "東京 3", "עיריית ירושלים", "بلدية", "☀", "...", "\udc80\udc81", "-"]
)
def test_a_name_of_which_nothing_readable_is_left_is_left_out(name: str) -> None:
    """Better no name than question marks or a spelling that nobody knows again."""
    assert refusal(organisation(name), decision(), None).lines[3] == "For help, ask the service desk."
    helped = refusal(organisation(help=name), decision(), None)
    assert helped.lines[3] == "For help, ask your mail administrator (Exampleshire County Council)."


def test_a_telephone_number_is_somebody_to_ask() -> None:
    """Help may be a number alone: no letter is missing from it."""
    assert "ask 01234 567890 (" in refusal(organisation(help="01234 567890"), decision(), None).single()


def test_long_names_are_cut_at_a_word() -> None:
    """Whom to ask comes before whose they are, and neither is cut within a word, lest a link or number be broken."""
    link = "https://intranet.council.test/help/mail"
    both = refusal(
        organisation("Association of " + "Parish Councils " * 12, f"the desk at {link}"), decision(), REFERENCE
    )
    check_form(both)
    assert both.lines[3] == f"For help, ask the desk at {link} (Association of...)."
    long_help = refusal(
        organisation("Council", f"the service desk in {'the old town hall ' * 3}{link}"), decision(), None
    )
    check_form(long_help)
    assert long_help.lines[3].endswith("the old town hall the old town...")
    unbreakable = refusal(organisation("Council", link + "x" * 150), decision(), None)
    assert unbreakable.lines[3] == "For help, ask your mail administrator (Council)."


def test_a_percent_sign_is_not_doubled_here() -> None:
    """Doubling is libmilter's rule and done where it is spoken to; here it would show twice in `explain`."""
    assert "100%s %d {0} {whom} {" in refusal(organisation("100%s %d {0} {whom} {"), decision(), None).lines[3]


def test_a_language_without_words_falls_back() -> None:
    """An organisation that writes Welsh first gets English until there are Welsh words."""
    welsh = policy(organisation={"languages": ["cy"]})
    assert refusal(welsh, decision(), REFERENCE) == refusal(policy(), decision(), REFERENCE)


def test_a_disk_that_fails_does_not_take_the_words_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of letters are files, read at first use; a process out of descriptors must still refuse."""

    def out_of_descriptors(*_: object) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(anyascii, "_blocks", {})
    monkeypatch.setattr(anyascii, "read_binary", out_of_descriptors)
    reply_words._plain.cache_clear()
    try:
        assert "(Cyngor Lln)" in fault(organisation("Cyngor Llŷn"), "4dX1c23kLmz9Q").lines[2]
    finally:
        reply_words._plain.cache_clear()


@given(
    name=st.text(max_size=200),
    help=st.text(max_size=200),
    count=st.integers(1, 10**6),
    reference=st.text("23456789BCDFGHJKMNPQRSTVWXYZ-", min_size=9, max_size=9),
    obstacle=st.none() | st.sampled_from(OBSTACLES) | st.builds(Obstacle, st.text()),
)
def test_nothing_breaks_a_refusal(
    name: str,
    help: str,  # noqa: A002  the setting's own name
    count: int,
    reference: str,
    obstacle: Obstacle | None,
) -> None:
    """Whatever is configured, all limits hold, the count stands in the first line and the reference ends the last."""
    reply = refusal(organisation(name, help), decision(count, obstacle), reference)
    check_form(reply)
    assert re.search(rf"\b{count} outside address(es)? would have been visible", reply.lines[0])
    assert reply.lines[-1].endswith(f" Reference: {reference}")
    assert "Bcc" in reply.lines[-1]


@given(name=st.text(max_size=200), help=st.text(max_size=200), queue_id=st.none() | st.text(max_size=100))
def test_nothing_breaks_a_fault(name: str, help: str, queue_id: str | None) -> None:  # noqa: A002  the setting's name
    """Whatever is configured, and whatever the MTA calls the message, the reply to our own failure is sound."""
    reply = fault(organisation(name, help), queue_id)
    check_form(reply)
    assert (reply.code, reply.enhanced) == (451, "4.3.0")


def test_the_longest_queue_id_survives() -> None:
    """The administrator finds the message in the log by it, so not a letter may be missing."""
    assert fault(organisation(), "4dX1c23kLmz9QyyyyyZ").lines[-1].endswith(" Queue id: 4dX1c23kLmz9QyyyyyZ")


def test_the_reason_of_a_held_message() -> None:
    """The log says in one line how many were shown, by which rule, why it was not corrected, and the reference."""
    assert quarantine_reason(decision(95), REFERENCE) == (
        "95 external addresses visible to every recipient; rule too many in sight; reference K7QF-3M2D"
    )
    assert quarantine_reason(decision(1, obstacles.TNEF, "Llŷn"), None) == (
        "1 external address visible to every recipient; rule Llyn;"
        " not rewritten: an attachment for Outlook (winmail.dat) lists everyone"
    )


@given(
    count=st.integers(0, 10**6),
    rule=st.text(),
    obstacle=st.none() | st.builds(Obstacle, st.text(), st.sampled_from(ObstacleKind)),
    reference=st.none() | st.text(),
)
def test_nothing_breaks_the_reason(count: int, rule: str, obstacle: Obstacle | None, reference: str | None) -> None:
    """libmilter wants a reason that is not empty, and the log one short line of ASCII."""
    reason = quarantine_reason(decision(count, obstacle, rule), reference)
    assert re.fullmatch("[ -~]+", reason)
    assert len(reason) <= REASON_LIMIT
    assert reason.startswith(f"{count} external address")
