"""Batches of messages by number and size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from undisclosed.steward.batches import MAX_BATCH_BYTES, batches
from undisclosed.steward.privileged import MAX_QUEUE_IDS


@given(st.lists(st.integers(0, 2 * MAX_BATCH_BYTES) | st.integers(0, 100), max_size=200))
def test_no_batch_is_too_large(sizes: list[int]) -> None:
    """Each has at least one message, and more only within both limits. None is left out or moved."""
    made = list(batches(sizes, lambda size: size))
    assert [size for batch in made for size in batch] == sizes
    for batch in made:
        assert 1 <= len(batch) <= MAX_QUEUE_IDS
        assert len(batch) == 1 or sum(batch) <= MAX_BATCH_BYTES


def test_small_messages_are_read_together() -> None:
    """120 small ones take three requests."""
    assert [len(batch) for batch in batches([1000] * 120, lambda size: size)] == [50, 50, 20]
