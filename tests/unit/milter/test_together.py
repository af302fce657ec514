"""What many threads want at the same time: done once for all of them, told to each, and never waited for too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from lab.waiting import until
from undisclosed.milter.together import Together

LONG = 20.0


class Job:
    """A job that can be held up, and remembers its rounds."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.late: list[int] = []
        self.may_go = threading.Semaphore(10_000)
        """As many rounds go through."""
        self.fails = False
        self.together = Together[int](self._do, self.late.append)

    def _do(self, numbers: Sequence[int]) -> None:
        self.rounds.append(list(numbers))
        assert self.may_go.acquire(timeout=LONG)
        if self.fails:
            raise OSError("no")

    def hold(self) -> None:
        """Let no round go through until `may_go` is released."""
        self.may_go = threading.Semaphore(0)

    def begin(self, pool: ThreadPoolExecutor, numbers: Sequence[int], within: float = LONG) -> list[Future[None]]:
        """Have threads ask for these, the first one before the others, and return when the job has begun."""
        rounds = len(self.rounds)
        first = pool.submit(self.together.do, numbers[0], LONG)
        until(lambda: len(self.rounds) > rounds, within=LONG, what="the first to begin")
        return [first, *(pool.submit(self.together.do, number, within) for number in numbers[1:])]


@pytest.fixture
def job() -> Job:
    """One that goes at once."""
    return Job()


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    """Threads enough for all."""
    return ThreadPoolExecutor(20)


def _wait_for(job: Job, waiting: int) -> None:
    until(lambda: len(job.together._waiting) == waiting, within=LONG, what=f"{waiting} to wait")


def test_one_by_one_each_is_a_round(job: Job) -> None:
    """Where nobody else is there, nothing is waited for."""
    for number in range(3):
        job.together.do(number, LONG)
    assert job.rounds == [[0], [1], [2]]
    assert not job.together.busy


def test_who_comes_meanwhile_is_in_the_next_round(job: Job, pool: ThreadPoolExecutor) -> None:
    """All in one, by one of them; nothing is done twice or forgotten."""
    job.hold()
    with pool:
        asked = job.begin(pool, range(10))
        _wait_for(job, 9)
        assert job.together.busy
        job.may_go.release(10)
        for one in asked:
            one.result(LONG)
    assert [sorted(numbers) for numbers in job.rounds] == [[0], list(range(1, 10))]
    assert job.late == []
    assert not job.together.busy


def test_in_a_crowd_each_is_done_once(job: Job, pool: ThreadPoolExecutor) -> None:
    """However they meet."""
    with pool:
        list(pool.map(lambda number: job.together.do(number, LONG), range(2000)))
    assert sorted(number for numbers in job.rounds for number in numbers) == list(range(2000))
    assert not job.together.busy


def test_a_failure_is_told_to_all_for_whom_it_failed(job: Job, pool: ThreadPoolExecutor) -> None:
    """And the next round is a new attempt."""
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
    job.together.do(5, LONG)
    assert job.rounds[-1] == [5]


def test_who_waits_too_long_leaves(job: Job, pool: ThreadPoolExecutor) -> None:
    """What was not begun is not done any more."""
    job.hold()
    with pool:
        first, second = job.begin(pool, [1, 2], within=0.05)
        with pytest.raises(TimeoutError):
            second.result(LONG)
        job.may_go.release(10)
        first.result(LONG)
    job.together.do(3, LONG)
    assert job.rounds == [[1], [3]]
    assert job.late == []


def test_what_was_done_too_late_is_told(job: Job, pool: ThreadPoolExecutor) -> None:
    """It was begun, and the one who wanted it has left: somebody has to put it right."""
    job.hold()
    with pool:
        first, second = job.begin(pool, [1, 2])
        third = pool.submit(job.together.do, 3, 3.0)
        _wait_for(job, 2)
        job.may_go.release()
        first.result(LONG)
        until(lambda: len(job.rounds) == 2, within=LONG, what="the second round")
        with pytest.raises(TimeoutError):
            third.result(LONG)
        assert job.late == []
        job.may_go.release()
        second.result(LONG)
    assert job.rounds == [[1], [2, 3]]
    assert job.late == [3]


def test_whoever_does_it_too_late_is_told_too(job: Job, pool: ThreadPoolExecutor) -> None:
    """It is done, but the time is over."""
    job.hold()
    with pool:
        alone = pool.submit(job.together.do, 1, 0.05)
        until(lambda: bool(job.rounds), within=LONG, what="it to begin")
        before = time.monotonic()
        until(lambda: time.monotonic() > before + 0.1, within=LONG, what="the time to be over")
        job.may_go.release()
        with pytest.raises(TimeoutError):
            alone.result(LONG)
    assert job.late == [1]
