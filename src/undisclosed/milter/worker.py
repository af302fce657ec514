"""The body of a worker process: libmilter's callbacks, the recorder, and a thread that listens to the supervisor.

libmilter keeps the main thread. A worker ends in `control_loop`, by `os._exit`: `smfi_stop` would close the sessions
whose callbacks end after it, and lose their answers.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final

import structlog

from undisclosed.incidents.records import JournalError, UnusableError
from undisclosed.journal.gateway import gateway_name
from undisclosed.milter import callbacks
from undisclosed.milter.recorder import Recorder
from undisclosed.milter.session import Runtime, Snapshot

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
    """Serve until libmilter stops, which it does only after a failure. `control` is the pipe to the supervisor."""
    sys.setswitchinterval(GIL_SWITCH_INTERVAL)
    use_one_malloc_arena()
    gate = callbacks.Gate()
    recorder = Recorder(open_journal(snapshot).inbox, gateway_name(snapshot.policy), log, lambda: gate.entered)
    recorder.start()
    runtime = Runtime(snapshot, log, recorder)
    threading.Thread(target=control_loop, args=(runtime, recorder, gate, control), name="control", daemon=True).start()
    callbacks.serve(runtime, gate)


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
                recorder.use(open_journal(message).inbox, gateway_name(message.policy))
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
    """Whether the two record in different journals, or under different names of the gateway."""
    old, new = ((snapshot.policy.journal, snapshot.policy.postfix, snapshot.key) for snapshot in (before, after))
    return old != new
