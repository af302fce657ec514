"""The supervisor: pre-forked workers on one socket, signals, reload, restart.

The parent opens the socket, forks, and never runs libmilter itself, for Python handles no signal inside
`milter.main()`. Its handlers only queue (through the wake-up descriptor of signal(7)); its loop acts, one
`_handle_<name>` a signal. It speaks to each worker over a pipe; the end of file there ends the worker, so that none
survives its supervisor.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, NoReturn

import structlog

from undisclosed.incidents.records import JournalError, UnusableError
from undisclosed.journal.gateway import gateway_name
from undisclosed.milter import callbacks, heap
from undisclosed.milter.listener import Listener, ListenError
from undisclosed.milter.recorder import Recorder
from undisclosed.milter.session import Runtime, Settings
from undisclosed.service import sd_notify
from undisclosed.service.backoff import Backoff

if TYPE_CHECKING:
    from undisclosed.journal.journal import Journal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
CALLBACKS_END = 5.0
"""Seconds that a worker which is to end gives the callbacks that run."""
ANSWERS_LEAVE = 0.05
"""Seconds in which libmilter writes the last answers (2 ms under load were seen to do)."""
WORKERS_END = 9.0
"""Seconds after which a worker that is still there is killed; systemd kills all of us later (TimeoutStopSec)."""
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 10.0
"""Seconds before a worker that died is replaced: doubled for each that died young."""
PATIENCE = (2, 0)
"""Seconds and microseconds for which the supervisor waits for a worker to take what it is told (socket(7))."""
TAKES_SETTINGS = 5.0
"""Seconds after which a worker that has not taken new settings is frozen."""
WAITS_FOR_ITS_TURN = 0.02
"""Seconds after which a thread asks the one that runs Python for its turn. libmilter starts a thread for every session
that has something to say, and at Python's 5 ms a thousand that ask took all the time: 50 messages a second were left
of 1,600. A callback takes less than a millisecond, so that few of them ask at all."""
LOOKS_EVERY = 2.0
"""Seconds between two looks whether Postfix still finds the socket."""
OLD_ENOUGH = 10.0
"""Seconds after which a worker's death says nothing about the next one's."""


@dataclass(slots=True)
class Worker:
    """A child as the supervisor sees it."""

    pid: int
    control: Connection
    born: float
    owes: int = 1
    """How many times it has yet to say that it is ready: at its start, and once for all settings it was told."""
    deaf_after: float = math.inf
    """When it counts as frozen, unless it has answered (time.monotonic())."""
    retired: bool = False
    """Whether it was told to end, for another one that listens where Postfix connects."""


@dataclass(slots=True)
class Supervisor:
    """Runs until it is told to stop. `load` reads the configuration again and raises what is wrong with it."""

    settings: Settings
    load: Callable[[], Settings]
    log: structlog.BoundLogger
    _workers: dict[int, Worker] = field(default_factory=dict)
    _stopping: bool = False
    _announcement: str = "ready"
    """What is still to be said once every worker is ready; empty when it has been."""
    _size: int = 0
    _restart_at: list[float] = field(default_factory=list)
    _backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_BACKOFF, LONGEST_BACKOFF))
    _look_at: float = field(default_factory=lambda: time.monotonic() + LOOKS_EVERY)
    _socket_gone: bool = False
    _listener: Listener = field(init=False)
    _wakeup: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises listener.ListenError if the socket cannot be opened."""
        self._listener = Listener(self.settings.policy.milter)
        self._listener.open()
        try:
            self._catch_signals()
            gc.freeze()  # what the parent has built is shared by the workers, and is not copied by a collection
            self._size = self.settings.policy.milter.workers
            for _ in range(self._size):
                self._start_worker()
            while not self._stopping:
                self._wait(self._pause())
                self._kill_the_deaf()
                self._look_for_the_socket()
                self._replace_the_dead()
        finally:
            sd_notify.send("STOPPING=1")
            self._listener.remove()
            self._end_workers()
            self.log.info("milter_stopped")

    def _catch_signals(self) -> None:
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self._read_signals)

    def _wait(self, pause: float) -> None:
        for key, _ in self._selector.select(pause):
            key.data()

    def _pause(self) -> float:
        """Seconds until something is due of itself."""
        due = min([self._look_at, *self._restart_at, *(worker.deaf_after for worker in self._workers.values())])
        return max(0.0, due - time.monotonic())

    def _kill_the_deaf(self) -> None:
        """A worker that does not take new settings would go on judging by the old ones."""
        for worker in self._workers.values():
            if worker.deaf_after <= time.monotonic():
                worker.deaf_after = math.inf
                self._kill_frozen(worker)

    def _look_for_the_socket(self, *, now: bool = False) -> None:
        """Where somebody removed the socket's file, Postfix defers all mail: listen anew, with workers that do."""
        if not now and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOKS_EVERY
        if self._listener.in_place():
            self._socket_gone = False
            return
        path = self.settings.policy.milter.socket
        if not self._socket_gone:
            self.log.error("socket_gone", socket=path, effect="Postfix defers mail until it is back")
        try:
            self._listener.put_back()
        except (ListenError, OSError) as error:
            if not self._socket_gone:
                self.log.error("socket_not_put_back", socket=path, reason=str(error), retry_in=LOOKS_EVERY)
            self._socket_gone = True
            return
        self.log.warning("socket_put_back", socket=path)
        self._retire_workers()

    def _retire_workers(self) -> None:
        """Have other workers in place of those that there are, who listen where nobody connects any more."""
        for worker in list(self._workers.values()):
            if not worker.retired:
                worker.retired = True
                self._tell(worker, None)
                self._start_worker()

    def _kill_frozen(self, worker: Worker) -> None:
        self.log.error("worker_frozen", pid=worker.pid, effect="it is killed and replaced")
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    def _read_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in sorted(set(self._wakeup[0].recv(4096))):
                name = signal.Signals(number).name.removeprefix("SIG").lower()
                getattr(self, f"_handle_{name}")()

    def _handle_term(self) -> None:
        self._stopping = True

    def _handle_int(self) -> None:
        self._stopping = True

    def _handle_hup(self) -> None:
        """Take the new configuration into use if it is sound, else keep the old one and say why."""
        sd_notify.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            new = self.load()
        except Exception as error:  # noqa: BLE001 - a reload that fails, however, must leave the old policy in force
            self.log.error("reload_refused", reason=str(error), effect="the old configuration stays in force")
        else:
            self._tell_what_needs_a_restart(new)
            self.settings = new
            self._announcement = "reloaded"
            for worker in self._workers.values():
                worker.owes += 1
                worker.deaf_after = time.monotonic() + TAKES_SETTINGS
                self._tell(worker, new)
            self._look_for_the_socket(now=True)
            return
        if not self._announcement:
            sd_notify.send("READY=1")

    def _tell_what_needs_a_restart(self, new: Settings) -> None:
        old = self.settings.policy
        changed = [
            f"{section}.{name}"
            for section in ("milter", "log")
            for name in type(getattr(old, section)).model_fields
            if getattr(getattr(old, section), name) != getattr(getattr(new.policy, section), name)
        ]
        if changed:
            self.log.warning("restart_needed", settings=changed, reason="a reload does not change them")

    def _handle_chld(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if worker := self._workers.pop(pid, None):
                self._bury(worker, status)

    def _bury(self, worker: Worker, status: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.control)
        worker.control.close()
        if self._stopping or worker.retired:
            return
        lived = time.monotonic() - worker.born
        if lived > OLD_ENOUGH:
            self._backoff.reset()
        code = os.waitstatus_to_exitcode(status)
        reason = f"killed by {_signal_name(-code)}" if code < 0 else f"exit status {code}"
        pause = self._backoff.next()
        self.log.error("worker_died", pid=worker.pid, reason=reason, lived_seconds=round(lived, 3), retry_in=pause)
        self._restart_at.append(time.monotonic() + pause)

    def _replace_the_dead(self) -> None:
        now = time.monotonic()
        due = [moment for moment in self._restart_at if moment <= now]
        if due and not self._stopping:
            self._restart_at = [moment for moment in self._restart_at if moment > now]
            for _ in due:
                self._start_worker()

    def _start_worker(self) -> None:
        ours, theirs = Pipe()
        with socket.socket(fileno=os.dup(ours.fileno())) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *PATIENCE))
        # A signal between fork and libmilter's own blocking would end the child by its default action, or run our
        # handler there: they are blocked before, and stay so in the child (pthread_sigmask(3)).
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(theirs, ours)
        except OSError as error:  # no memory, no process table entry: try again later
            ours.close()
            pause = self._backoff.next()
            self.log.error("fork_failed", reason=str(error), retry_in=pause)
            self._restart_at.append(time.monotonic() + pause)
            return
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        worker = self._workers[pid] = Worker(pid, ours, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(worker))

    def _become_worker(self, control: Connection, supervisors_end: Connection) -> NoReturn:
        status = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C on a terminal goes to the supervisor alone, which ends us gently
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            supervisors_end.close()
            for sibling in self._workers.values():
                sibling.control.close()  # else a sibling's end of file would never come while we live
            self._listener.close_in_worker()
            self._selector.close()
            for end in self._wakeup:
                end.close()
            sys.setswitchinterval(WAITS_FOR_ITS_TURN)
            heap.keep_one()
            work(self.settings, control, self.log)
            status = 0
        except BaseException as error:  # nothing may return into the supervisor's loop
            self.log.error("worker_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
        finally:
            os._exit(status)

    def _hear(self, worker: Worker) -> None:
        if self._workers.get(worker.pid) is not worker:
            return  # its death was heard of in the same look, and its pipe is closed
        try:
            worker.control.recv()
        except (EOFError, OSError):
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.control)
            return
        worker.owes -= 1
        if not worker.owes:
            worker.deaf_after = math.inf
        self._announce()

    def _announce(self) -> None:
        """Say that we are ready, at first or again, once every worker goes by the settings of now."""
        ready = [worker for worker in self._workers.values() if not worker.owes and not worker.retired]
        if not self._announcement or len(ready) < self._size:
            return
        policy = self.settings.policy
        self.log.info(
            "reloaded" if self._announcement == "reloaded" else "milter_ready",
            socket=policy.milter.socket,
            workers=len(ready),
            mode=policy.mode.value,
            rules=len(policy.rules),
        )
        self._announcement = ""
        sd_notify.send("READY=1")

    def _tell(self, worker: Worker, message: Settings | None) -> None:
        try:
            worker.control.send(message)
        except BlockingIOError:  # frozen: it may have half of the message, and cannot be spoken to again
            self._kill_frozen(worker)
        except OSError:
            pass  # it died meanwhile; its successor starts with the new settings

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            self._tell(worker, None)
        deadline = time.monotonic() + WORKERS_END
        while self._workers and time.monotonic() < deadline:
            self._wait(max(0.0, deadline - time.monotonic()))
            self._handle_chld()
        for pid in list(self._workers):
            self.log.error("worker_killed", pid=pid, reason=f"still there after {WORKERS_END} s")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal: most have no name
        return f"signal {number}"


def work(settings: Settings, control: Connection, log: structlog.BoundLogger) -> None:
    """What a worker does, from its birth to the end of libmilter; its ordinary end is in the control thread."""
    gate = callbacks.Gate()
    recorder = Recorder(_journal(settings), gateway_name(settings.policy), log, lambda: gate.entered)
    recorder.start()
    runtime = Runtime(settings, log, recorder)
    threading.Thread(target=_obey, args=(runtime, gate, control), name="control", daemon=True).start()
    callbacks.serve(runtime, gate)


def journal_usable(settings: Settings) -> None:
    """Raises journal.UnusableError where the journal is of another version or key. One that cannot be reached may be.

    For the supervisor, before it forks: what this imports is then shared by the workers, who never import it while a
    message waits.
    """
    journal = _journal(settings)
    try:
        journal.check()
    except UnusableError:
        raise
    except JournalError:
        pass  # the workers find out too, say so, and go on trying
    finally:
        journal.close()


def _journal(settings: Settings) -> Journal:
    from undisclosed.journal.journal import Journal  # heavy: `journal_usable` loads it before the fork

    return Journal(settings.policy.journal, settings.key)


def _records_elsewhere(before: Settings, after: Settings) -> bool:
    old, new = ((one.policy.journal, one.policy.postfix, one.key) for one in (before, after))
    return old != new


def _obey(runtime: Runtime, gate: callbacks.Gate, control: Connection) -> None:
    """Take new settings from the supervisor, until it wants the worker to end, or is gone itself."""
    try:
        control.send("ready")
        while (message := control.recv()) is not None:
            before, runtime.settings = runtime.settings, message
            callbacks.set_mode(runtime)
            if runtime.journal is not None and _records_elsewhere(before, message):
                runtime.journal.use(_journal(message), gateway_name(message.policy))
            control.send("reloaded")
    except (EOFError, OSError):
        pass  # the supervisor was killed
    finally:
        # Not through libmilter: smfi_stop closes the sessions whose callbacks end after it, answers and all.
        if gate.close(time.monotonic() + CALLBACKS_END):
            time.sleep(ANSWERS_LEAVE)
        if runtime.journal is not None:
            runtime.journal.stop(ANSWERS_LEAVE)
        os._exit(0)
