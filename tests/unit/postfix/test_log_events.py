"""Lines of Postfix's log as values, and what they say together. The lines are those of Postfix 3.7.11 and 3.10.13.

tests/live_postfix/test_mail_log.py provokes them.
"""

from __future__ import annotations

import pytest

from undisclosed.postfix.log_events import MAX_QUEUE_IDS, Fate, LogEvents, LogLine, What, parse_line

ID = "4jdbR82RhMzKWq6"
OTHER = "4jdbRC1d9FzKWq7"
STAMP = "Nov 30 20:37:35 mx"

MILTER_HOLD = f"postfix/cleanup[7]: {ID}: milter-hold: END-OF-MESSAGE from c[192.0.2.9]: milter triggers HOLD action; x"
MILTER_HOLD_3_10 = f"postfix/cleanup[7]: {ID}: milter-hold: END-OF-MESSAGE from c[192.0.2.9]: 12 external addresses; x"
CLIENT = f"postfix/smtpd[751]: {ID}: client=c[192.0.2.9]"
ACTIVE = f"postfix/qmgr[746]: {ID}: from=<clerk@council.test>, size=834, nrcpt=2 (queue active)"
SENT = f"postfix/smtp[802]: {ID}: to=<p@family.example>, relay=host[192.0.2.1]:25, delay=2.9, status=sent (250 OK)"
REMOVED = f"postfix/qmgr[746]: {ID}: removed"


def events(*lines: str, keep: tuple[str, ...] = ()) -> LogEvents:
    """The events in these lines of a file."""
    found = LogEvents()
    found.keep(keep)
    found.add(parsed for line in lines if (parsed := parse_line(f"{STAMP} {line}")) is not None)
    return found


# -- lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"Nov 30 20:37:35 mx {REMOVED}", LogLine("postfix", "qmgr", "746", f"{ID}: removed")),
        (f"Nov  1 20:37:35 mx {REMOVED}", LogLine("postfix", "qmgr", "746", f"{ID}: removed")),
        (f"2026-11-30T20:37:35.123456+01:00 mx {REMOVED}", LogLine("postfix", "qmgr", "746", f"{ID}: removed")),
        (f"2026-11-30T20:37:35Z mx.council.test {REMOVED}", LogLine("postfix", "qmgr", "746", f"{ID}: removed")),
        (
            "Nov 30 20:37:35 mx postfix/submission/smtpd[751]: connect from a[192.0.2.1]",
            LogLine("postfix/submission", "smtpd", "751", "connect from a[192.0.2.1]"),
        ),
        ("Nov 30 20:37:35 mx sshd[751]: Accepted", None),
        (f"Nov 30 20:37:35 mx kernel: {MILTER_HOLD}", None),
        (f"Nov 30 20:37:35 mx logger[3]: {MILTER_HOLD}", None),
        (REMOVED, None),
        ("", None),
        ("\ufffd\ufffd\0", None),
    ],
)  # fmt: skip
def test_a_line_has_a_name_a_program_and_a_text(line: str, expected: LogLine | None) -> None:
    """Both kinds of timestamp; a line of another program that repeats one of ours is not one."""
    assert expected == parse_line(line)


def test_a_text_that_a_sender_chose_is_not_read_as_a_line() -> None:
    """A Subject, a HELO name or an answer of another server stands behind the program's name and the queue id."""
    subject = f"hold: header Subject: {OTHER}: milter-hold: END-OF-MESSAGE from x; from=<a@b.example>: header says"
    answer = f"to=<a@b.example>, status=deferred (host said: 451 {OTHER}: placed on hold)"
    found = events(
        f"postfix/cleanup[944]: {ID}: {subject}",
        f"postfix/smtp[944]: {ID}: {answer}",
        f"postfix/smtpd[1]: NOQUEUE: hold: RCPT from c[192.0.2.9]: <{ID}: placed on hold>: x",
        f"postfix/cleanup[944]: {ID}: message-id=<{OTHER}: milter-hold: END-OF-MESSAGE from x>",
    )
    assert (found.is_held_by_milter(OTHER), found.is_held_by_milter(ID)) == (False, False)
    assert not found.is_placed_since(ID)


# -- held by the milter, and by nothing else


@pytest.mark.parametrize("line", [MILTER_HOLD, MILTER_HOLD_3_10], ids=["3.7", "3.10"])
def test_a_milter_held_the_message(line: str) -> None:
    """Postfix 3.10 logs the milter's reason in place of its own words."""
    found = events(CLIENT, line)
    assert (found.is_held_by_milter(ID), found.is_placed_since(ID)) == (True, False)


@pytest.mark.parametrize(
    "line",
    [
        f"postfix/cleanup[944]: {ID}: hold: header Subject: HOLDME from c[192.0.2.9]; x: header says",
        f"postfix/cleanup[944]: {ID}: hold: body HOLDBODY from c[192.0.2.9]; x: body says",
        "postfix/smtpd[972]: NOQUEUE: hold: RCPT from c[192.0.2.9]: <a@b.test>: Sender address access says; x",
        f"postfix/smtpd[26391]: {ID}: hold: DATA from c[192.0.2.9]: <DATA>: Data command by policy; x",
        f"postfix/smtpd[26391]: {ID}: hold: END-OF-MESSAGE from c[192.0.2.9]: <END-OF-MESSAGE>: End-of-data policy; x",
        f"postfix/smtpd[26391]: {ID}: milter-hold: DATA from c[192.0.2.9]: milter triggers HOLD action;",
    ],
    ids=["header_checks", "body_checks", "access table", "policy service at DATA", "at its end", "another milter"],
)  # fmt: skip
def test_another_hold_is_not_the_milters(line: str) -> None:
    """milter-reports 5: cleanup(8) then has no line for our milter."""
    assert not events(CLIENT, line, f"postfix/cleanup[754]: {ID}: message-id=<a@b.test>").is_held_by_milter(ID)


def test_a_queue_id_that_is_used_again_is_another_message() -> None:
    """Short queue ids are used again: what was logged of the message before permits nothing."""
    assert not events(CLIENT, MILTER_HOLD, REMOVED, CLIENT).is_held_by_milter(ID)
    assert not events(MILTER_HOLD, f"postfix/pickup[259]: {ID}: uid=0 from=<clerk@council.test>").is_held_by_milter(ID)


@pytest.mark.parametrize(
    "lines",
    [
        (f"postfix/postsuper[873]: {ID}: placed on hold", "postfix/postsuper[873]: Placed on hold: 1 message"),
        ("postfix/postsuper[767]: Placed on hold: 0 messages",),
        ("postfix/postsuper[767]: Placed on hold: 7 messages",),
        (f"postfix/postsuper[873]: {OTHER}: placed on hold",),
    ],
    ids=["by its id", "on hold already", "ALL", "another one"],
)  # fmt: skip
def test_a_hold_by_hand_after_the_milters(lines: tuple[str, ...]) -> None:
    """hostile-review 5: `postsuper -h ALL` names no queue id, and says 0 for what is on hold already."""
    assert events(CLIENT, MILTER_HOLD, *lines).is_placed_since(ID)
    assert not events(*lines, CLIENT, MILTER_HOLD).is_placed_since(ID)


# -- what became of it


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((f"postfix/postsuper[1]: {ID}: removed", "postfix/postsuper[1]: Deleted: 1 message"), Fate(What.DELETED)),
        (("postfix/postsuper[1]: Deleted: 3 messages",), Fate(What.DELETED)),
        ((f"postfix/postsuper[1]: {ID}: released from hold",), Fate(What.LET_GO)),
        (("postfix/postsuper[1]: Released from hold: 2 messages",), Fate(What.LET_GO)),
        ((ACTIVE, SENT, REMOVED), Fate(What.LET_GO)),
        ((f"postfix/postsuper[1]: {ID}: requeued",), Fate(What.REQUEUED)),
        (("postfix/postsuper[1]: Requeued: 2 messages",), Fate(What.REQUEUED)),
        (
            (
                f"postfix/postsuper[1]: {ID}: requeued",
                f"postfix/pickup[745]: {OTHER}: uid=102 from=<clerk@council.test> orig_id={ID}",
            ),
            Fate(What.REQUEUED, OTHER),
        ),
        (
            (
                f"postfix/postsuper[1]: {ID}: expired",
                f"postfix/postsuper[2]: {ID}: released from hold",
                ACTIVE,
                f"postfix/qmgr[1]: {ID}: from=<clerk@council.test>, status=force-expired, returned to sender",
                REMOVED,
            ),
            Fate(What.EXPIRED),
        ),
        (
            ("postfix/postsuper[1]: Force-expired: 2 messages", "postfix/postsuper[1]: Released from hold: 2 messages"),
            Fate(What.EXPIRED),
        ),
        (("postfix/postsuper[1]: Force-expired: 2 messages", "postfix/postsuper[2]: Deleted: 2 messages"),
         Fate(What.DELETED)),
        # Two acts without ids, or the act on another message only: nobody can tell.
        (("postfix/postsuper[1]: Deleted: 1 message", "postfix/postsuper[2]: Released from hold: 1 message"), None),
        ((f"postfix/postsuper[1]: {OTHER}: removed", "postfix/postsuper[1]: Deleted: 1 message"), None),
        (("postfix/postsuper[1]: Deleted: 0 messages",), None),
        ((), None),
    ],
)  # fmt: skip
def test_the_fate_of_a_message_that_left_the_hold_queue(lines: tuple[str, ...], expected: Fate | None) -> None:
    """milter-reports 29, users-walk 5: a leak by hand and a deletion by hand are told apart, also those of ALL."""
    assert expected == events(CLIENT, MILTER_HOLD, *lines).fate(ID)


def test_an_act_without_ids_before_the_message_came_says_nothing_about_it() -> None:
    """`postsuper -d ALL` of yesterday."""
    assert events("postfix/postsuper[1]: Deleted: 3 messages", CLIENT, MILTER_HOLD).fate(ID) is None


@pytest.mark.parametrize(
    ("line", "queued", "refused"),
    [
        (ACTIVE, True, False),
        (SENT, True, False),
        (f"postfix/cleanup[944]: {ID}: milter-reject: END-OF-MESSAGE from c[192.0.2.9]: 5.7.0 virus", False, True),
        (f"postfix/cleanup[944]: {ID}: milter-discard: END-OF-MESSAGE from c[192.0.2.9]: x", False, True),
        (f"postfix/cleanup[944]: {ID}: message-id=<a@b.test>", False, False),
    ],
)  # fmt: skip
def test_a_message_that_a_later_milter_refused_is_not_queued(line: str, queued: bool, refused: bool) -> None:
    """hostile-review 14: the record was written before the milters behind ours had answered."""
    found = events(CLIENT, line)
    assert (found.is_queued(ID), found.is_refused(ID)) == (queued, refused)


# -- bounds


def test_the_queue_ids_asked_for_are_kept_and_others_forgotten() -> None:
    """A busy host's mail does not fill the memory, nor push out what is held for days."""
    found = events(CLIENT, MILTER_HOLD)
    found.keep([ID])
    ids = [f"BUSY{number:06}" for number in range(MAX_QUEUE_IDS + 1)]
    found.add(LogLine("postfix", "smtp", "1", f"{name}: to=<a@b.example>, status=sent (250 ok)") for name in ids)
    assert found.is_held_by_milter(ID)
    assert (found.is_queued(ids[0]), found.is_queued(ids[1])) == (False, True)
    found.keep([])
    found.add(LogLine("postfix", "smtp", "1", f"MORE{name}: to=<a@b.example>, status=sent (250 ok)") for name in ids)
    assert not found.is_held_by_milter(ID)


def test_a_sender_cannot_hide_by_an_address_that_a_message_was_sent() -> None:
    """The address in a line of qmgr(8) is the sender's own choice; the end of the line is not."""
    address = '"x>, status=expired, returned to sender"@council.test'
    active = f"postfix/qmgr[746]: {ID}: from=<{address}>, size=834, nrcpt=2 (queue active)"
    assert events(MILTER_HOLD, active).fate(ID) == Fate(What.LET_GO)
    bounced = f'postfix/qmgr[746]: {ID}: from=<"a, nrcpt=1 (queue active)"@b.test>, status=expired, returned to sender'
    assert events(MILTER_HOLD, bounced).fate(ID) == Fate(What.EXPIRED)
