"""The body of a worker process: libmilter's callbacks, the recorder, and a loop that listens to the supervisor.

A worker ends in `control_loop`, by `os._exit`: `smfi_stop` would close the sessions whose callbacks end after it, and
lose their answers. So no signal but SIGKILL may end it, and libmilter does not get the main thread: it blocks SIGHUP,
SIGINT and SIGTERM on the thread that runs it, and another thread of its own takes them with sigwait(3) and stops. Linux
discards an ignored signal only where the main thread does not block it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from undisclosed.incidents.records import JournalError, UnusableError
from undisclosed.milter import callbacks
from undisclosed.milter.recorder import Recorder
from undisclosed.milter.session import Runtime, Snapshot
from undisclosed.service.signals import TO_ALL

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

CALLBACK_TIMEOUT: Final = 5.0
"""Seconds that a worker which ends gives the callbacks that run."""

FLUSH_TIME: Final = 0.05
"""Seconds in which libmilter writes the last answers (under load it took 2 ms)."""

GIL_SWITCH_INTERVAL: Final = 0.02
"""Seconds, for sys.setswitchinterval: at the default 5 ms, 1,000 threads contending for the GIL cut 1,600 messages a
second to 50 (docs/load.md). libmilter has a thread for every session that sends; a callback takes less than 1 ms."""

M_ARENA_MAX: Final = -8
"""The parameter of mallopt(3) that limits the number of malloc arenas."""


def run(snapshot: Snapshot, control: Connection, log: structlog.BoundLogger) -> None:
    """Serve until the supervisor ends the worker, or libmilter stops, which it does only after a failure.

    Never returns. `control` is the pipe to the supervisor, which alone acts on the signals TO_ALL. To be called with
    them blocked.
    """
    for number in TO_ALL:
        signal.signal(number, signal.SIG_IGN)  # also discards those that came since the fork
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_ALL)
    sys.setswitchinterval(GIL_SWITCH_INTERVAL)
    use_one_malloc_arena()
    gate = callbacks.Gate()
    recorder = Recorder(open_journal(snapshot).inbox, snapshot.gateway, log, lambda: gate.entered)
    recorder.start()
    runtime = Runtime(snapshot, log, recorder)
    threading.Thread(target=_serve, args=(runtime, gate), name="libmilter", daemon=True).start()
    control_loop(runtime, recorder, gate, control)


def _serve(runtime: Runtime, gate: callbacks.Gate) -> NoReturn:
    """Run libmilter, and end the process with it."""
    status = 1
    try:
        callbacks.serve(runtime, gate)
        status = 0
    except BaseException as error:
        runtime.log.error("worker_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
    finally:
        os._exit(status)


def use_one_malloc_arena() -> None:
    """Have all threads share one malloc arena, where the C library is glibc.

    By default each thread gets one of its own, up to eight for each processor, and each arena grows in time to what the
    largest messages need. One is enough: only the thread that holds the GIL allocates much.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def control_loop(runtime: Runtime, recorder: Recorder, gate: callbacks.Gate, control: Connection) -> None:
    """Take new snapshots from the supervisor and acknowledge each; end the process on None or end of file."""
    try:
        control.send("ready")
        while (message := control.recv()) is not None:
            before, runtime.snapshot = runtime.snapshot, message
            callbacks.set_mode(runtime)
            if _journal_differs(before, message):
                recorder.use(open_journal(message).inbox, message.gateway)
            control.send("reloaded")
    except (EOFError, OSError):
        pass  # the supervisor was killed
    finally:
        if gate.close(time.monotonic() + CALLBACK_TIMEOUT):
            time.sleep(FLUSH_TIME)
        recorder.stop(FLUSH_TIME)
        os._exit(0)


def check_journal(snapshot: Snapshot) -> None:
    """Raise UnusableError if the journal is of another version or was made with another key.

    A journal that cannot be reached is no error: the workers log it and try again, and answer messages meanwhile. The
    supervisor process calls this before it forks: the workers then share the imported modules, and none of them
    imports SQLAlchemy while a message waits.
    """
    journal = open_journal(snapshot)
    try:
        journal.check()
    except UnusableError:
        raise
    except JournalError:
        pass
    finally:
        journal.close()


def open_journal(snapshot: Snapshot) -> Journal:
    """The journal that the snapshot names; nothing is connected yet."""
    from undisclosed.journal.journal import Journal  # SQLAlchemy: `check_journal` imports it before the fork

    return Journal(snapshot.policy.journal, snapshot.key)


def _journal_differs(before: Snapshot, after: Snapshot) -> bool:
    """Whether the two record in different journals, or for different gateways."""
    old, new = ((snapshot.policy.journal, snapshot.gateway, snapshot.key) for snapshot in (before, after))
    return old != new
