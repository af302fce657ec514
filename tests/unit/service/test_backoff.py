"""Pauses between attempts."""

from __future__ import annotations

from undisclosed.service.backoff import Backoff


def test_each_pause_is_twice_as_long_as_the_one_before_up_to_the_longest() -> None:
    """A process that fails at every start does not load the machine."""
    pauses = Backoff(0.1, 0.5)
    assert [pauses.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_a_reset_begins_with_the_first_pause_again() -> None:
    """After an attempt that succeeded the next failure is retried soon."""
    pauses = Backoff(1.0, 30.0)
    pauses.next()
    pauses.next()
    pauses.reset()
    assert pauses.next() == 1.0
