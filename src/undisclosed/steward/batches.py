"""Batches of messages: starting one of Postfix's tools takes longer than its work, and memory limits the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from undisclosed.steward.privileged import MAX_QUEUE_IDS

MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
"""Bytes of messages that are read at once. A single larger message is a batch of its own."""

T = TypeVar("T")


def batches(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in their order, in lists that one request to the root half can read."""
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and (len(batch) == MAX_QUEUE_IDS or size + size_of(item) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch
