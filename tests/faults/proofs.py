"""The promises about held mail, each with the tests that prove it; `tests/faults/run` writes them into the page."""

from __future__ import annotations

from typing import Final

PROOFS: Final[dict[str, tuple[str, ...]]] = {
    "Nothing expires before a reminder was accepted, a day on hold was seen after it, and two rounds an hour apart"
    " found the time over": (
        "unit/incidents/test_expiry.py::test_nothing_ends_unless_it_was_seen_for_a_day_after_a_reminder",
        "live_postfix/test_expiry.py::test_the_end_of_a_message_that_nobody_decides_about",
        "live_postfix/test_expiry.py::test_a_steward_that_is_started_15_days_late",
        "live_postfix/test_expiry.py::test_a_clock_that_jumps_ahead_by_20_days_for_some_rounds",
    ),
    "Mail that somebody else put on hold never expires by deletion": (
        "live_postfix/test_expiry.py::test_what_somebody_else_put_on_hold_before_the_steward_came",
    ),
    "No record is pruned while the clock may be ahead": (
        "unit/steward/test_pruning.py::test_a_clock_that_is_ahead_at_the_start",
        "unit/steward/test_pruning.py::test_a_clock_that_jumps_ahead_later",
    ),
    "Somebody is told of every held message: its sender, else the administrator": (
        "live_postfix/test_told.py::test_a_person_behind_any_envelope_sender_is_told",
        "live_postfix/test_told.py::test_the_administrator_is_told_of_all_others",
        "live_postfix/test_told.py::test_what_sendmail_takes_from_nobody_is_held_under_reject",
    ),
    "Past 20 notices an hour, and after an absence, the rest is summed up": (
        "live_postfix/test_told.py::test_everything_is_told_past_twenty_an_hour",
        "unit/notices/test_dispatch.py::test_what_is_owed_for_more_than_a_day_is_one_summary",
        "unit/journal/test_journal.py::test_the_first_notice_is_owed_with_the_record",
    ),
    "A Message-ID with raw bytes, of any length, or none, hinders nothing": (
        "live_postfix/test_foreign_bytes.py::test_a_message_id_that_the_journal_cannot_keep",
    ),
    "The steward acts alone only on a message that the milter alone put on hold": (
        "live_postfix/test_held_twice.py::test_what_the_milter_alone_held_is_released",
        "live_postfix/test_held_twice.py::test_what_postfix_held_as_well_waits_for_a_person",
        "live_postfix/test_held_twice.py::test_a_hold_by_hand_during_a_delay_stops_it",
        "live_postfix/test_held_twice.py::test_mail_of_a_stolen_account_that_was_placed_on_hold_is_not_sent",
        "live_postfix/test_held_twice.py::test_without_a_log_the_configuration_decides",
    ),
    "`held keep` stops what the steward would send, and a stolen account is stopped in three commands": (
        "live_postfix/test_commands.py::test_delayed_mail_that_is_kept_does_not_leave",
        "live_postfix/test_commands.py::test_a_stolen_account_is_stopped_in_three_commands",
    ),
    "A release keeps what Postfix had decided, or is refused": (
        "live_postfix/test_queue_records.py::test_redirected_mail_is_released_to_its_one_address",
        "live_postfix/test_queue_records.py::test_what_a_release_cannot_carry_over_is_refused",
        "live_postfix/test_queue_records.py::test_the_content_filter_of_main_cf_is_carried_over",
    ),
    "No attribute of the envelope can forge a record of the queue file": (
        "unit/decision/test_queue_records.py::test_a_line_end_in_any_attribute_is_refused",
        "live_postfix/test_queue_records.py::test_a_message_forged_in_orcpt_can_only_be_deleted",
    ),
    "What cannot be hidden is refused or held at once, under `rewrite`, `split` and `delay`": (
        "live_postfix/test_whole_body.py::test_what_cannot_be_hidden_is_refused",
        "live_postfix/test_whole_body.py::test_what_cannot_be_hidden_is_held_and_told_as_such",
        "live_postfix/test_whole_body.py::test_a_list_in_a_trace_field_is_in_sight",
    ),
    "What the steward cannot carry out is told": (
        "live_postfix/test_whole_body.py::test_a_release_that_fails_for_half_an_hour_is_told",
        "live_postfix/test_queue_records.py::test_a_message_that_the_steward_cannot_release_waits_for_a_person",
    ),
    "The size of a message is no obstacle, and reading it takes less than 2 MB": (
        "live_postfix/test_whole_body.py::test_a_newsletter_with_a_large_attachment_goes_out_hidden",
        "unit/decision/test_body_scan.py::test_any_pieces_give_the_same_answer",
        "unit/decision/test_body_scan.py::test_memory_and_work_are_bounded",
    ),
    "A notice claims that a message was sent only once its queue id was seen": (
        "live_postfix/test_by_hand.py::test_a_message_that_was_delivered_at_once_is_told_when_it_is_queued",
        "live_postfix/test_by_hand.py::test_a_message_that_a_milter_behind_ours_refused_is_not_told",
    ),
    "Other servers' bytes stop nothing, and their answers put no address into log or journal": (
        "live_postfix/test_foreign_bytes.py::test_another_servers_reply_with_a_cut_character",
        "live_postfix/test_foreign_bytes.py::test_no_address_by_way_of_postfixs_answer",
    ),
    "Two texts with one Message-ID are two messages, and nothing decided about one copy holds for another": (
        "live_postfix/test_copies.py::test_two_texts_with_one_message_id_are_two_messages",
        "live_postfix/test_copies.py::test_a_message_that_comes_after_the_end_of_the_first_is_told_of",
        "live_postfix/test_copies.py::test_a_message_sent_again_under_another_rule_is_held_and_told_of",
        "live_postfix/test_copies.py::test_a_delay_counts_from_the_arrival_of_the_copy",
    ),
    "One held file has one open copy, and is sent once": (
        "live_postfix/test_copies.py::test_a_locked_journal_makes_no_second_copy",
        "live_postfix/test_copies.py::test_two_requests_for_one_held_file_send_it_once",
        "live_postfix/test_one_steward.py::test_a_second_steward_refuses_to_start",
        "unit/journal/test_held.py::test_a_request_is_taken_once",
    ),
    "A repeat is counted and sent once": (
        "live_postfix/test_copies.py::test_a_repeat_is_listed_as_such_and_released_once",
        "live_postfix/test_copies.py::test_a_copy_that_only_looks_like_a_repeat_is_sent",
    ),
    "A renamed host is the same gateway, and another machine is not": (
        "live_postfix/test_one_steward.py::test_a_renamed_host_is_the_same_gateway",
        "unit/config/test_gateway_file.py::test_another_machine_refuses_it",
    ),
    "`postfix detach` refuses while mail is held, and renamed queue files are followed": (
        "live_postfix/test_detach.py::test_detach_refuses_while_mail_is_held",
        "live_postfix/test_by_hand.py::test_held_mail_that_postfix_renames_is_followed",
    ),
    "What was done by hand is told apart, and a leak is told to the sender": (
        "live_postfix/test_by_hand.py::test_what_was_done_by_hand_is_told_apart",
    ),
    "The record says whether anybody saw the list": (
        "unit/incidents/test_shown.py::test_the_recipients_who_saw_the_list",
        "live_postfix/test_commands.py::test_the_record_says_whether_anybody_saw_the_list",
    ),
    "A list shows when a delayed message leaves, and a steward that is away": (
        "unit/cli/test_held.py::test_a_delayed_message_shows_when_it_leaves",
        "unit/cli/test_held.py::test_a_steward_that_is_away_is_told_at_once",
    ),
    "A notice offers no choice that would be refused": (
        "live_postfix/test_told.py::test_the_notice_of_an_invitation",
        "live_postfix/test_told.py::test_a_quarantined_message_that_cannot_be_hidden",
        "live_postfix/test_told.py::test_a_quarantined_message_that_cannot_be_released_offers_no_choice",
    ),
    "A refusal is in the organisation's languages and words, and one sentence in a bounce": (
        "live_postfix/test_replies.py::test_own_words",
        "live_postfix/test_replies.py::test_a_bounce_repeats_one_sentence_for_each_recipient",
    ),
    "A command asks before it harms": (
        "live_postfix/test_commands.py::test_a_decision_is_asked_for_and_its_result_told",
        "unit/cli/test_held.py::test_without_a_terminal_what_would_be_asked_is_refused",
        "unit/cli/test_held.py::test_unchanged_needs_a_reason",
        "unit/cli/test_held.py::test_nothing_that_matches_is_said",
    ),
    "A release that a content filter puts back on hold is said": (
        "live_postfix/test_queue_records.py::test_a_release_that_a_content_filter_puts_back_on_hold",
    ),
    "A release takes less than 100 MB with a message of 50 MB": (
        "live_postfix/test_steward_memory.py::test_the_release_of_a_large_message",
        "live_postfix/test_steward_memory.py::test_large_messages_without_a_record",
    ),
    "Random sequences of mail, commands, faults and clock steps keep the four sums at zero": (
        "model/test_model.py::test_random_sequences",
        "live_postfix/test_simulation.py::test_the_simulation_answers_as_postfix",
    ),
}
