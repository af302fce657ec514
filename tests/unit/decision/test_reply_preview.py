"""The replies as `check-config` prints them."""

from __future__ import annotations

from support.factories import policy, rule
from undisclosed.decision.reply_preview import replies

REJECT = """\
Replies, as staff will read them
  Refused by a rule:
    550-5.7.0 Not sent. Please put your own address in To, all others in Bcc, and send it again.
    550-5.7.0 A mail merge is safer still. For a few people, send one message each.
    550-5.7.0 For help, ask the service desk (Exampleshire County Council).
    550 5.7.0 Everyone would have seen 95 outside addresses: use Bcc. Reference: K7QF-3M2D
  The same for mail by sendmail(1), whose bounce repeats it for each recipient:
    550 5.7.0 Everyone would have seen 95 outside addresses: use Bcc. Reference: K7QF-3M2D
  Refused because its header is larger than 1 MiB:
    550-5.3.4 Not sent. Please put your own address in To, all others in Bcc, and send it again.
    550-5.3.4 The list of recipients and the other header lines are too long to be checked.
    550-5.3.4 For help, ask the service desk (Exampleshire County Council).
    550 5.3.4 Its header is too long to be checked: use Bcc. Queue id: 4dX1c23kLmz9Q
  Refused for now after a failure of the milter:
    451-4.3.0 Not sent yet, and not your fault: our mail system failed while checking it.
    451-4.3.0 Nothing was sent and nothing is lost. Please try again in a few minutes.
    451-4.3.0 If it happens again, ask the service desk (Exampleshire County Council).
    451 4.3.0 Not sent yet, not your fault: please try again shortly. Queue id: 4dX1c23kLmz9Q
  95 addresses, the reference and the queue id are examples."""


def test_every_reply_of_a_policy_that_refuses() -> None:
    """The replies stand there whole, with the codes as on the wire (users-walk, 11)."""
    assert replies(policy(organisation={"help": "the service desk"})) == REJECT


def test_a_reply_for_each_obstacle_with_words_of_its_own() -> None:
    """Each kind of message that cannot be hidden, where `when_unsafe` refuses it; alike ones are printed once."""
    for action in ("rewrite", "split", "delay"):
        told = replies(policy(rules=[rule(action=action)], rewrite={"when_unsafe": "reject"}))
        for words in (
            "Refused by `when_unsafe` (an invitation):\n    550-5.7.0 Not sent. Please write an ordinary message",
            "Refused by `when_unsafe` (in Outlook's Rich Text format):\n    550-5.7.0 Not sent. Please choose HTML",
            "Refused by `when_unsafe` (signed or encrypted):\n",
            "(with the addresses also in its text):\n    550-5.7.0 Not sent. Please take the addresses out of its text",
            "Refused by `when_unsafe` (unsafe to rewrite for another reason):\n",
        ):
            assert words in told
        assert "by a rule" not in told
    bilingual = policy(
        organisation={"languages": ["cy", "en"]},
        rules=[rule(), rule(name="b", action="rewrite", more_than_addresses=5)],
        rewrite={"when_unsafe": "reject"},
    )
    assert (
        "Refused by a rule or `when_unsafe` (signed or encrypted) or `when_unsafe` (unsafe to rewrite for another"
        " reason):\n    550-5.7.0 Heb ei hanfon."
    ) in replies(bilingual)


def test_a_policy_that_refuses_nothing() -> None:
    """Only the replies to what cannot be decided are left."""
    assert "5.7.0" not in replies(policy(rules=[rule(action="quarantine")]))


def test_the_end_of_a_long_contact() -> None:
    """The text says that it is cut, and what is missing (users-walk, 11)."""
    desk = "the Information Governance and Digital Service Desk at County Hall, telephone 01234 567890"
    told = replies(policy(organisation={"help": desk}))
    assert "For help, ask the Information Governance and Digital Service Desk at County Hall...\n" in told
    assert "organisation.help is cut: staff will not read its end, 'telephone 01234 567890'." in told
    assert "is cut" not in replies(policy(organisation={"help": "the service desk"}))


def test_own_words_are_shown() -> None:
    """The organisation's own words stand in place of the program's, for sendmail(1) their last lines."""
    own = policy().with_own_replies({"": (("Na.", "Cyfeirnod {reference}"), ("No: {count}.", "Ref. {reference}"))})
    assert replies(own).startswith(
        "Replies, as staff will read them\n"
        "  Refused by a rule:\n"
        "    550-5.7.0 Na.\n    550-5.7.0 Cyfeirnod K7QF-3M2D\n    550-5.7.0 No: 95.\n    550 5.7.0 Ref. K7QF-3M2D\n"
        "  The same for mail by sendmail(1), whose bounce repeats it for each recipient:\n"
        "    550 5.7.0 Cyfeirnod K7QF-3M2D / Ref. K7QF-3M2D\n"
    )


def test_a_narrow_terminal() -> None:
    """Lines are wrapped at blanks, and what belongs to a line is indented below it."""
    assert max(map(len, replies(policy(), 60).splitlines())) <= 60
