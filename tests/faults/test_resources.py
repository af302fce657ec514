"""A worker that gets no more descriptors, or no more memory."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from faults.test_messages import long_field
from faults.trial import Trial
from lab.waiting import until
from live_postfix.load import Load
from support.limits import limited


def descriptors(pid: int) -> int:
    """The lowest limit that a process does not exceed (poll(2) itself fails beyond it)."""
    return max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 1


SURPLUS = 10
"""Peers that wait to be accepted, more than there are clients under load: they get the descriptors that these free."""


@contextmanager
def out_of_descriptors(trial: Trial, workers: Sequence[int]) -> Iterator[None]:
    """Let silent peers connect until each of these workers has no descriptor left."""
    path = str(trial.stage.postfix.queue_dir / "undisclosed" / "milter.sock")
    limits = {worker: descriptors(worker) + 4 for worker in workers}
    with ExitStack() as stack:
        for worker, limit in limits.items():
            stack.enter_context(limited([worker], "nofile", limit))

        def connect() -> None:
            peer = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
            peer.connect(path)

        def full() -> bool:
            connect()
            return all(len(list(Path(f"/proc/{worker}/fd").iterdir())) >= limit for worker, limit in limits.items())

        until(full, what="the workers to have no descriptor left")
        for _ in range(SURPLUS):
            connect()
        yield


def test_a_worker_is_out_of_descriptors(trial: Trial) -> None:
    """That worker accepts no more sessions; the other worker accepts them all."""
    with trial.load(per_session=4) as load:
        load.go_on(8)
        with out_of_descriptors(trial, trial.milter.workers()[:1]):
            load.go_on(24)
        trial.recover()
    assert set(trial.codes()) <= {250, 451, 550}  # 451 where the journal could not be opened
    trial.report("One worker out of file descriptors", "nothing to do: the other worker takes the sessions")


def test_all_workers_are_out_of_descriptors(trial: Trial) -> None:
    """New sessions wait until there are descriptors again, and are then answered as usual."""
    with trial.load(per_session=4) as load:
        load.go_on(8)
        with out_of_descriptors(trial, trial.milter.workers()):
            until(lambda: stalled(load), what="sessions to wait")
        trial.recover()
    trial.report("All workers out of file descriptors", "by itself, once there are some again")


def stalled(load: Load) -> bool:
    """Whether no answer has come for half a second."""
    before, moment = len(load.answers), time.monotonic()
    until(lambda: len(load.answers) > before or time.monotonic() > moment + 0.5, within=2, what="an answer, or none")
    return len(load.answers) == before


ENOUGH = 400
"""Answers after which a worker manages with the memory that it has: it usually fails after one to twenty."""


def test_a_worker_is_out_of_memory(trial: Trial) -> None:
    """Messages that it cannot decide are deferred; once it is replaced or has memory, all are decided as usual."""
    [worker, _] = trial.milter.workers()
    trial.letter = long_field
    with trial.load(per_session=4) as load:
        load.go_on(8)
        with limited([worker], "as", size(worker)), trial.load(per_session=4, clients=8) as more:

            def over() -> bool:
                failed = more.codes()[451] or trial.logged(event="worker_died")
                return bool(failed) or len(more.answers) >= ENOUGH

            until(over, what="the worker to fail, or to do with the memory that it has")
        trial.recover()
    trial.report("One worker out of memory (`RLIMIT_AS`)", "by itself, once there is memory again")


def size(pid: int) -> int:
    """Bytes of a process' address space."""
    [kilobytes] = re.findall(r"^VmSize:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024
