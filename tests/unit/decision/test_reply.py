"""The replies to senders: short, ASCII, each line complete in itself, for any configuration."""

from __future__ import annotations

import re

import anyascii
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.factories import policy
from undisclosed.addresses import Address
from undisclosed.decision import obstacles
from undisclosed.decision.exposure import Exposure
from undisclosed.decision.obstacles import Obstacle, ObstacleKind
from undisclosed.decision.reply import (
    REASON_LIMIT,
    Reply,
    fault,
    header_too_large,
    missing_of_help,
    quarantine_reason,
    refusal,
    refusal_of,
)
from undisclosed.decision.rules import Decision, Scope
from undisclosed.policy import Action, Policy
from undisclosed.policy.ascii_text import plain
from undisclosed.policy.own_replies import LINE_LIMIT, LINES_LIMIT

REFERENCE = "K7QF-3M2D"
STRANGER = Address("parent@family.test", "parent", "family.test")

OBSTACLES = [
    obstacles.INVITATION,
    obstacles.TNEF,
    obstacles.PROTECTED,
    obstacles.SMIME,
    obstacles.PGP,
    obstacles.SIGNED,
    obstacles.REPEATED,
    *(Obstacle(f"{words} To, Cc", ObstacleKind.SIGNED) for words in obstacles.SIGNATURES.values()),
]
"""Obstacles that have words of their own."""


def decision(count: int = 95, obstacle: Obstacle | None = None, rule: str = "too many in sight") -> Decision:
    """A rejection of a message that shows this number of addresses."""
    exposure = Exposure(external=(STRANGER,) * count, organisations=count)
    return Decision(Scope.OUTGOING, Action.REJECT, rule, exposure, "", obstacle)


SOUND = policy()
"""Built once for all examples of a property."""


def organisation(name: str = "Exampleshire County Council", help: str = "the service desk") -> Policy:  # noqa: A002  the setting's own name
    """A policy with these texts, unchecked: replies must not depend on the checks of the schema."""
    return SOUND.model_copy(update={"organisation": SOUND.organisation.model_copy(update={"name": name, "help": help})})


LEADS = ("Not sent", "Heb ei hanfon")
"""Beginnings of a first line in each language: they say what happened."""


def check_form(reply: Reply, lines_limit: int = LINES_LIMIT, line_limit: int = LINE_LIMIT) -> None:
    """Check a reply against all limits of SMTP and mail clients."""
    lines = reply.on_the_wire()
    assert 1 < len(lines) <= lines_limit
    assert max(map(len, lines)) <= line_limit
    for line in (*reply.lines, reply.short):
        assert re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", line), line
        assert "  " not in line
        assert not re.match(r"\d\.\d+\.\d+ ", line)
    assert reply.lines[0].startswith(LEADS)
    assert len(reply.short) < 500  # a reply line has at most 512 bytes: RFC 5321, section 4.5.3.1.5


def in_languages(*languages: str, **over: str) -> Policy:
    """A policy of an organisation with these languages."""
    return policy(organisation={"languages": languages, "help": "the service desk", "name": "Cyngor Sir Llŷn", **over})


def test_the_whole_refusal() -> None:
    """Four lines: what to do, then the rest; the advice is given once (users-walk, 24)."""
    reply = refusal(policy(organisation={"name": "Cyngor Sir Llŷn"}), decision(95), REFERENCE)
    assert reply == Reply(
        550,
        "5.7.0",
        (
            "Not sent. Please put your own address in To, all others in Bcc, and send it again.",
            "A mail merge is safer still. For a few people, send one message each.",
            "For help, ask your mail administrator (Cyngor Sir Llyn).",
            "Everyone would have seen 95 outside addresses: use Bcc. Reference: K7QF-3M2D",
        ),
        "Everyone would have seen 95 outside addresses: use Bcc. Reference: K7QF-3M2D",
    )


def test_the_whole_refusal_in_welsh_and_english() -> None:
    """Both languages in five lines, each with what to do and why; Welsh letters lose their circumflex."""
    assert refusal(in_languages("cy", "en"), decision(95), REFERENCE).on_the_wire() == [
        "550-5.7.0 Heb ei hanfon. Rhowch eich cyfeiriad chi yn To, pawb arall yn Bcc, a'i hanfon eto.",
        "550-5.7.0 Not sent. Please put your own address in To, all others in Bcc, and send it again.",
        "550-5.7.0 Cymorth / Help: the service desk (Cyngor Sir Llyn).",
        "550-5.7.0 Byddai pawb yn gweld 95 o gyfeiriadau allanol: defnyddiwch Bcc. Cyfeirnod: K7QF-3M2D",
        "550 5.7.0 Everyone would have seen 95 outside addresses: use Bcc. Reference: K7QF-3M2D",
    ]


def test_the_whole_refusal_in_welsh() -> None:
    """Welsh alone has four lines, as English has."""
    assert refusal(in_languages("cy"), decision(1), REFERENCE).lines == (
        "Heb ei hanfon. Rhowch eich cyfeiriad chi yn To, pawb arall yn Bcc, a'i hanfon eto.",
        "Mae cyfuno post yn fwy diogel. I ychydig o bobl, anfonwch neges yr un.",
        "Am gymorth, cysylltwch: the service desk (Cyngor Sir Llyn).",
        "Byddai pawb yn gweld un cyfeiriad allanol: defnyddiwch Bcc. Cyfeirnod: K7QF-3M2D",
    )


def test_mail_by_sendmail_gets_one_short_sentence_in_each_language() -> None:
    """Its bounce repeats the reply for each recipient (users-walk, 23)."""
    assert refusal(in_languages("cy", "en"), decision(95), REFERENCE).on_the_wire(in_one_line=True) == [
        "550 5.7.0 Byddai pawb yn gweld 95 o gyfeiriadau allanol: defnyddiwch Bcc. Cyfeirnod: K7QF-3M2D"
        " / Everyone would have seen 95 outside addresses: use Bcc. Reference: K7QF-3M2D"
    ]


@pytest.mark.parametrize(
    ("languages", "first"),
    [
        (["en-GB", "en"], ["Not sent"]),
        (["fr"], ["Not sent"]),
        (["fr", "cy"], ["Heb ei hanfon"]),
        (["en", "cy", "fr"], ["Not sent", "Heb ei hanfon"]),
    ],
)
def test_the_languages_of_a_reply(languages: list[str], first: list[str]) -> None:
    """The first two that come with the program, each once; English if there are none."""
    lines = refusal(in_languages(*languages), decision(), REFERENCE).lines
    assert [line.partition(". ")[0] for line in lines if line.startswith(LEADS)] == first


@pytest.mark.parametrize("languages", [["en"], ["cy"], ["cy", "en"]])
@pytest.mark.parametrize("kind", [None, *ObstacleKind])
def test_every_language_has_words_for_every_case(languages: list[str], kind: ObstacleKind | None) -> None:
    """The form holds in each language for each kind of obstacle, with the longest codes and 1,400 addresses."""
    over = {"reply": {"code": 554, "enhanced": "5.999.999"}, "organisation": {"languages": languages}}
    # 554-5.999.999 is nobody's choice: there the longest lines may be four characters longer.
    check_form(refusal_of(policy(**over), kind, 1400, REFERENCE), line_limit=LINE_LIMIT + 4)
    for reply in (
        refusal_of(in_languages(*languages), kind, 1400, REFERENCE),
        fault(in_languages(*languages), "4dX1c23kLmz9QyyyyyZ"),
        header_too_large(in_languages(*languages), "4dX1c23kLmz9QyyyyyZ"),
    ):
        check_form(reply)


def test_the_whole_fault() -> None:
    """The reply after a failure of ours says that it is not the sender's fault, and to try again."""
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
        "Not sent yet, not your fault: please try again shortly. Queue id: 4dX1c23kLmz9Q",
    )


def test_the_whole_reply_to_a_header_that_is_too_large() -> None:
    """Permanent, with words of its own: another attempt would fail as well."""
    reply = header_too_large(organisation(), "4dX1c23kLmz9Q")
    check_form(reply)
    assert reply.on_the_wire() == [
        "550-5.3.4 Not sent. Please put your own address in To, all others in Bcc, and send it again.",
        "550-5.3.4 The list of recipients and the other header lines are too long to be checked.",
        "550-5.3.4 For help, ask the service desk (Exampleshire County Council).",
        "550 5.3.4 Its header is too long to be checked: use Bcc. Queue id: 4dX1c23kLmz9Q",
    ]


def test_one_address_is_singular() -> None:
    """A rule with threshold 0 refuses a message for one address, and says so in the singular."""
    last = refusal(policy(), decision(1), REFERENCE).lines[-1]
    assert last == "Everyone would have seen 1 outside address: use Bcc. Reference: K7QF-3M2D"


def test_the_limit_is_not_named() -> None:
    """A sender who reads the limit sends in batches just below it."""
    rules = [{"name": "n", "more_than_addresses": 37, "more_than_organisations": 41, "action": "reject"}]
    text = refusal(policy(rules=rules), decision(95), REFERENCE).on_the_wire()
    assert "95" in text[-1]
    assert "37" not in str(text)
    assert "41" not in str(text)


def test_code_and_enhanced_code_are_the_policys() -> None:
    """The configured codes are used, and every line is within the limit even with the longest."""
    reply = refusal(policy(reply={"code": 554, "enhanced": "5.999.999"}), decision(1400), REFERENCE)
    assert (reply.code, reply.enhanced) == (554, "5.999.999")
    check_form(reply)
    assert reply.lines[-1].endswith(REFERENCE)


@pytest.mark.parametrize("nothing", ["", None])
def test_no_reference_is_left_out(nothing: str | None) -> None:
    """Without a reference its label is left out, too."""
    last = refusal(policy(), decision(), nothing).lines[-1]
    assert last == "Everyone would have seen 95 outside addresses: use Bcc."
    assert fault(policy(), nothing).lines[-1] == "Not sent yet, not your fault: please try again shortly."


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_an_obstacle_is_told_in_plain_words(obstacle: Obstacle) -> None:
    """The reply to a message that must not be rewritten has the reason and advice."""
    reply = refusal(policy(), decision(12, obstacle), REFERENCE)
    check_form(reply)
    assert "Bcc" in reply.lines[0]
    assert re.match(
        "It is (digitally signed or encrypted|an invitation), |Outlook's Rich Text format |The text or an attachment ",
        reply.lines[1],
    )
    assert " 12 outside addresses: " in reply.lines[-1]
    assert "Bcc" in reply.lines[-1]
    assert REFERENCE in reply.lines[-1]


def test_an_invitation_is_not_to_be_sent_again_with_bcc() -> None:
    """The invitation itself lists all guests, so the usual advice to use Bcc would be wrong."""
    text = str(refusal(policy(), decision(12, obstacles.INVITATION), REFERENCE))
    assert "Bcc cannot hide them" in text
    assert "send it again" not in text
    assert "ordinary message" in text


def test_an_obstacle_without_words_of_its_own() -> None:
    """Other obstacles have common words, never the technical text."""
    reply = refusal(policy(), decision(12, Obstacle("the name of a To field is irregular")), REFERENCE)
    check_form(reply)
    assert reply.lines[1] == "The addresses could not be hidden for you. A mail merge is safer still."
    assert "irregular" not in str(reply)


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
    """A name is transliterated as far as its readers would recognise it."""
    assert refusal(organisation(name), decision(), None).lines[2] == f"For help, ask the service desk ({spelled})."


def test_german_umlauts_have_a_spelling_of_their_own() -> None:
    """If German is one of the languages of the organisation, ü is ue: Muenchen, not Munchen."""
    own = policy(organisation={"name": "Bürgerbüro Österloh", "languages": ["de", "en"]})
    assert "(Buergerbuero Oesterloh)" in refusal(own, decision(), None).lines[2]


@pytest.mark.parametrize(
    "name", ["東京都教育委員会", "東京 3", "עיריית ירושלים", "بلدية", "☀", "...", "\udc80\udc81", "-"]
)
def test_a_name_of_which_nothing_readable_is_left_is_left_out(name: str) -> None:
    """No name is better than question marks or an unrecognisable spelling."""
    assert refusal(organisation(name), decision(), None).lines[2] == "For help, ask the service desk."
    helped = refusal(organisation(help=name), decision(), None)
    assert helped.lines[2] == "For help, ask your mail administrator (Exampleshire County Council)."


def test_the_contact_may_be_a_telephone_number() -> None:
    """Digits alone are kept: no letter was left out of them."""
    assert "ask 01234 567890 (" in refusal(organisation(help="01234 567890"), decision(), None).lines[2]


def test_long_names_are_cut_at_a_word() -> None:
    """The contact takes precedence over the organisation, and no word is cut: it may be a link or a number."""
    link = "https://intranet.council.test/help/mail"
    both = refusal(
        organisation("Association of " + "Parish Councils " * 12, f"the desk at {link}"), decision(), REFERENCE
    )
    check_form(both)
    assert both.lines[2] == f"For help, ask the desk at {link} (Association of...)."
    long_help = refusal(
        organisation("Council", f"the service desk in {'the old town hall ' * 3}{link}"), decision(), None
    )
    check_form(long_help)
    assert long_help.lines[2].endswith("the old town hall the old town...")
    unbreakable = refusal(organisation("Council", link + "x" * 150), decision(), None)
    assert unbreakable.lines[2] == "For help, ask your mail administrator (Council)."


@pytest.mark.parametrize(
    ("help", "missing"),
    [
        ("the service desk", ""),
        ("your mail administrator", ""),
        ("東京", ""),
        (
            "the Information Governance and Digital Service Desk at County Hall, telephone 01234 567890",
            "telephone 01234 567890",
        ),
        ("https://intranet.council.test/" + "x" * 80, "https://intranet.council.test/" + "x" * 80),
    ],
)
def test_the_end_of_a_contact_that_is_cut(help: str, missing: str) -> None:  # noqa: A002  the setting's own name
    """`check-config` names it: a telephone number was cut off without a warning (users-walk, 11)."""
    assert missing_of_help(organisation(help=help)) == missing


def test_a_percent_sign_is_not_doubled_here() -> None:
    """libmilter needs it doubled, and callbacks.py does that; `explain` would show two of them."""
    assert "100%s %d {0} {whom} {" in refusal(organisation("100%s %d {0} {whom} {"), decision(), None).lines[2]


def test_transliteration_tables_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are files, read at first use; a process without free descriptors must still reply."""

    def out_of_descriptors(*_: object) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(anyascii, "_blocks", {})
    monkeypatch.setattr(anyascii, "read_binary", out_of_descriptors)
    plain.cache_clear()
    try:
        assert "(Cyngor Lln)" in fault(organisation("Cyngor Llŷn"), "4dX1c23kLmz9Q").lines[2]
    finally:
        plain.cache_clear()


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
    """For any configuration the limits hold; the first line has the count, and the last ends with the reference."""
    reply = refusal(organisation(name, help), decision(count, obstacle), reference)
    check_form(reply)
    assert re.search(rf" would (have seen|see) {count} outside address(es)?: ", reply.lines[-1])
    assert reply.lines[-1].endswith(f" Reference: {reference}")
    assert "Bcc" in reply.lines[-1]


@given(name=st.text(max_size=200), help=st.text(max_size=200), queue_id=st.none() | st.text(max_size=100))
@example(name="", help="", queue_id="00000000000Þ 0")  # was cut at a blank
def test_nothing_breaks_a_fault(name: str, help: str, queue_id: str | None) -> None:  # noqa: A002  the setting's name
    """For any configuration and queue id, the reply after a failure of ours is valid."""
    for reply in (fault(organisation(name, help), queue_id), header_too_large(organisation(name, help), queue_id)):
        check_form(reply)
        assert (reply.code, reply.enhanced) in ((451, "4.3.0"), (550, "5.3.4"))


def test_the_longest_queue_id_survives() -> None:
    """Administrators search the log for it: no letter may be missing."""
    assert fault(organisation(), "4dX1c23kLmz9QyyyyyZ").lines[-1].endswith(" Queue id: 4dX1c23kLmz9QyyyyyZ")


def test_the_reason_of_a_held_message() -> None:
    """One line with the number of addresses, the rule, the obstacle and the reference."""
    assert quarantine_reason(decision(95), REFERENCE) == (
        "95 external addresses visible to every recipient; rule too many in sight; reference K7QF-3M2D"
    )
    assert quarantine_reason(decision(1, obstacles.TNEF, "Llŷn"), None) == (
        "1 external address visible to every recipient; rule Llyn;"
        " not hidden: an attachment for Outlook (winmail.dat) lists everyone"
    )


@given(
    count=st.integers(0, 10**6),
    rule=st.text(),
    obstacle=st.none() | st.builds(Obstacle, st.text(), st.sampled_from(ObstacleKind)),
    reference=st.none() | st.text(),
)
def test_nothing_breaks_the_reason(count: int, rule: str, obstacle: Obstacle | None, reference: str | None) -> None:
    """libmilter needs a reason that is not empty; the log needs one short line of ASCII."""
    reason = quarantine_reason(decision(count, obstacle, rule), reference)
    assert re.fullmatch("[ -~]+", reason)
    assert len(reason) <= REASON_LIMIT
    assert reason.startswith(f"{count} external address")
