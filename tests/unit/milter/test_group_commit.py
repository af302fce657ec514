"""Group commit: many items are handled in one round, each thread gets its result, and none waits too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from lab.waiting import until
from undisclosed.milter.group_commit import GroupCommit

LONG = 20.0


class Job:
    """A job that can be held up, and that records its rounds."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.late: list[int] = []
        self.may_go = threading.Semaphore(10_000)
        """The number of rounds that may end."""
        self.fails = False
        self.group = GroupCommit[int](self._do, self.late.append)

    def _do(self, numbers: Sequence[int]) -> None:
        self.rounds.append(list(numbers))
        assert self.may_go.acquire(timeout=LONG)
        if self.fails:
            raise OSError("no")

    def hold(self) -> None:
        """Let no round end until `may_go` is released."""
        self.may_go = threading.Semaphore(0)

    def begin(self, pool: ThreadPoolExecutor, numbers: Sequence[int], within: float = LONG) -> list[Future[None]]:
        """Submit numbers from threads, the first before the others; returns when the job has begun."""
        rounds = len(self.rounds)
        first = pool.submit(self.group.submit, numbers[0], LONG)
        until(lambda: len(self.rounds) > rounds, what="the first to begin")
        return [first, *(pool.submit(self.group.submit, number, within) for number in numbers[1:])]


@pytest.fixture
def job() -> Job:
    """A job that is not held up."""
    return Job()


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    """Enough threads for every test."""
    return ThreadPoolExecutor(20)


def _wait_for(job: Job, waiting: int) -> None:
    until(lambda: len(job.group._waiting) == waiting, what=f"{waiting} to wait")


def test_items_one_by_one_are_a_round_each(job: Job) -> None:
    """A thread that is alone does not wait."""
    for number in range(3):
        job.group.submit(number, LONG)
    assert job.rounds == [[0], [1], [2]]


def test_items_that_come_meanwhile_are_one_round(job: Job, pool: ThreadPoolExecutor) -> None:
    """One thread handles all items; no item is handled twice or lost."""
    job.hold()
    with pool:
        asked = job.begin(pool, range(10))
        _wait_for(job, 9)
        job.may_go.release(10)
        for one in asked:
            one.result(LONG)
    assert [sorted(numbers) for numbers in job.rounds] == [[0], list(range(1, 10))]
    assert job.late == []


def test_every_item_of_many_threads_is_handled_once(job: Job, pool: ThreadPoolExecutor) -> None:
    """In any order of the threads."""
    with pool:
        list(pool.map(lambda number: job.group.submit(number, LONG), range(2000)))
    assert sorted(number for numbers in job.rounds for number in numbers) == list(range(2000))
    job.group.submit(2000, LONG)
    assert job.rounds[-1] == [2000], "the leader of the last round left no successor behind"


def test_an_error_is_raised_by_every_thread_of_the_round(job: Job, pool: ThreadPoolExecutor) -> None:
    """The next round is a new attempt."""
    job.hold()
    job.fails = True
    with pool:
        asked = job.begin(pool, range(5))
        _wait_for(job, 4)
        job.may_go.release(10)
        for one in asked:
            with pytest.raises(OSError, match="no"):
                one.result(LONG)
    job.fails = False
    job.group.submit(5, LONG)
    assert job.rounds[-1] == [5]


def test_an_item_whose_thread_left_is_not_handled(job: Job, pool: ThreadPoolExecutor) -> None:
    """A round that has not begun leaves it out."""
    job.hold()
    with pool:
        first, second = job.begin(pool, [1, 2], within=0.05)
        with pytest.raises(TimeoutError):
            second.result(LONG)
        job.may_go.release(10)
        first.result(LONG)
    job.group.submit(3, LONG)
    assert job.rounds == [[1], [3]]
    assert job.late == []


def test_an_item_handled_after_its_thread_left_is_reported(job: Job, pool: ThreadPoolExecutor) -> None:
    """The round had begun: the caller has to undo the item."""
    job.hold()
    with pool:
        first, second = job.begin(pool, [1, 2])
        third = pool.submit(job.group.submit, 3, 3.0)
        _wait_for(job, 2)
        job.may_go.release()
        first.result(LONG)
        until(lambda: len(job.rounds) == 2, what="the second round")
        with pytest.raises(TimeoutError):
            third.result(LONG)
        assert job.late == []
        job.may_go.release()
        second.result(LONG)
    assert job.rounds == [[1], [2, 3]]
    assert job.late == [3]


def test_the_leader_that_takes_too_long_is_reported_too(job: Job, pool: ThreadPoolExecutor) -> None:
    """The item is handled, but its time was over."""
    job.hold()
    with pool:
        alone = pool.submit(job.group.submit, 1, 0.05)
        until(lambda: bool(job.rounds), what="it to begin")
        before = time.monotonic()
        until(lambda: time.monotonic() > before + 0.1, what="the time to be over")
        job.may_go.release()
        with pytest.raises(TimeoutError):
            alone.result(LONG)
    assert job.late == [1]
