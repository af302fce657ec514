"""The supervisor: opens the socket, forks the workers, replaces those that die, and handles signals.

It never runs libmilter itself, since Python runs no signal handler inside `milter.main()`. The handlers only wake the
loop (signal.set_wakeup_fd); the loop calls one `_handle_<name>` for each signal. A pipe joins the supervisor to each
worker; end of file on it ends the worker, so that none survives the supervisor.

No thread runs in this process: a fork copies only the thread that calls it, and a lock that another thread holds at
that moment would stay locked in the worker for ever.
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
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Final, NoReturn

import structlog

from undisclosed.milter import worker as worker_process
from undisclosed.milter.listener import Listener, ListenError
from undisclosed.milter.session import Snapshot
from undisclosed.service import sd_notify
from undisclosed.service.backoff import Backoff
from undisclosed.service.reload import ReloadResult, ReloadResultFile

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""The signals that the supervisor handles."""

STOP_TIMEOUT: Final = 9.0
"""Seconds that workers have to end before they are killed. systemd kills all processes later (TimeoutStopSec)."""

FIRST_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 10.0
"""Seconds before a worker that died is replaced: the first pause and the longest."""

STABLE_AFTER: Final = 10.0
"""Seconds after which the death of a worker no longer lengthens the pause before the next one starts."""

SEND_TIMEOUT: Final = (2, 0)
"""SO_SNDTIMEO of the pipe to a worker, in seconds and microseconds: a worker that does not read is frozen."""

RELOAD_TIMEOUT: Final = 5.0
"""Seconds that a worker has to acknowledge a new snapshot before it counts as frozen."""

SOCKET_CHECK_INTERVAL: Final = 2.0
"""Seconds between two checks that the socket's file is still the one that was opened."""


@dataclass(slots=True)
class Worker:
    """A worker process as the supervisor sees it."""

    pid: int
    control: Connection
    born: float
    pending_acks: int = 1
    """Acknowledgements still to come: one at the start, and one for each snapshot that was sent."""
    reply_deadline: float = math.inf
    """The time (time.monotonic()) at which it counts as frozen if acknowledgements are still pending."""
    retired: bool = False
    """Told to end, because another worker replaces it: its death is no failure."""


class Supervisor:
    """Runs until SIGTERM or SIGINT. `reload` reads the configuration again; an error from it refuses the reload."""

    def __init__(self, snapshot: Snapshot, reload: Callable[[], Snapshot], log: structlog.BoundLogger) -> None:
        self._snapshot = snapshot
        self._started_with = snapshot.policy
        """The policy whose sections `milter` and `log` stay in force until a restart."""
        self._reload = reload
        self._log = log
        self._listener = Listener(snapshot.policy.milter)
        self._workers: dict[int, Worker] = {}
        self._stopping = False
        self._announced = False
        """Whether it was announced that every worker uses the current snapshot."""
        self._was_ready = False
        """Whether there was an announcement before: then the next one is of a reload."""
        self._taken: ReloadResult | None = None
        """The result of a reload that is written once every worker uses the new snapshot."""
        self._result_file = ReloadResultFile.of_this_service()
        self._restart_at: list[float] = []
        """The times at which dead workers are replaced, one for each (time.monotonic())."""
        self._backoff = Backoff(FIRST_BACKOFF, MAX_BACKOFF)
        self._next_socket_check = 0.0
        self._socket_missing = False
        """The socket's file is gone and could not be put back: logged once."""
        self._wakeup = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises listener.ListenError if the socket cannot be opened."""
        self._listener.open()
        self._next_socket_check = time.monotonic() + SOCKET_CHECK_INTERVAL
        self._result_file.prepare()
        try:
            self._catch_signals()
            gc.freeze()  # else the first collection in a worker would copy every page that it shares with this process
            for _ in range(self._started_with.milter.workers):
                self._start_worker()
            while not self._stopping:
                self._wait(self._seconds_until_due())
                self._kill_unresponsive()
                self._check_socket()
                self._replace_dead_workers()
        finally:
            sd_notify.send("STOPPING=1", status="stopped")
            self._listener.remove()
            self._end_workers()
            self._log.info("milter_stopped")

    # -- the loop

    def _catch_signals(self) -> None:
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self._read_signals)

    def _wait(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            key.data()

    def _seconds_until_due(self) -> float:
        deadlines = (worker.reply_deadline for worker in self._workers.values())
        return max(0.0, min([self._next_socket_check, *self._restart_at, *deadlines]) - time.monotonic())

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
        """Reload: send the new snapshot to every worker, or keep the old one and report the reason."""
        began = time.monotonic_ns()
        sd_notify.send(f"RELOADING=1\nMONOTONIC_USEC={began // 1000}")
        try:
            new = self._reload()
        except Exception as error:  # noqa: BLE001 - an error in a reload must not end the service and its workers
            self._refuse(ReloadResult(began, refused=str(error) or type(error).__name__))
            return
        changed = self._started_with.changed_settings(new.policy, "milter", "log")
        if changed:
            self._log.warning("restart_needed", settings=changed, reason="a reload does not change them")
        self._snapshot = new
        self._announced = False
        self._taken = ReloadResult(began, restart=tuple(changed))
        for worker in self._workers.values():
            worker.pending_acks += 1
            worker.reply_deadline = time.monotonic() + RELOAD_TIMEOUT
            self._send(worker, new)
        self._check_socket(now=True)

    def _refuse(self, result: ReloadResult) -> None:
        self._log.error("reload_refused", reason=result.refused, effect="the old configuration stays in force")
        self._taken = None  # of an earlier reload: it would replace this newer result
        self._result_file.write(result)
        status = f"reload refused, the old configuration stays in force: {result.refused}"
        sd_notify.send("READY=1" if self._announced else "", status)

    def _handle_chld(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if worker := self._workers.pop(pid, None):
                self._on_exit(worker, status)

    # -- the socket

    def _check_socket(self, *, now: bool = False) -> None:
        """Listen again, with new workers, if the socket's file was removed: Postfix then defers all mail."""
        if not now and time.monotonic() < self._next_socket_check:
            return
        self._next_socket_check = time.monotonic() + SOCKET_CHECK_INTERVAL
        if self._listener.in_place():
            self._socket_missing = False
            return
        path = self._started_with.milter.socket
        if not self._socket_missing:
            self._log.error("socket_gone", socket=path, effect="Postfix defers mail until it is back")
        try:
            self._listener.put_back()
        except (ListenError, OSError) as error:
            if not self._socket_missing:
                self._log.error("socket_not_put_back", socket=path, reason=str(error), retry_in=SOCKET_CHECK_INTERVAL)
            self._socket_missing = True
            return
        self._log.warning("socket_put_back", socket=path)
        self._retire_workers()

    def _retire_workers(self) -> None:
        """Replace all workers: those that run accept connections on the old socket, which Postfix no longer finds."""
        for worker in list(self._workers.values()):
            if not worker.retired:
                worker.retired = True
                self._send(worker, None)
                self._start_worker()

    # -- the workers

    def _start_worker(self) -> None:
        ours, theirs = Pipe()
        with socket.socket(fileno=os.dup(ours.fileno())) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *SEND_TIMEOUT))
        # A signal between the fork and the worker's own handling would run the supervisor's handler there. So they are
        # blocked before the fork, and stay blocked until the worker ignores them (worker.run).
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(theirs, ours)
        except OSError as error:  # no memory, or no process table entry: try again later
            ours.close()
            pause = self._backoff.next()
            self._log.error("fork_failed", reason=str(error), retry_in=pause)
            self._restart_at.append(time.monotonic() + pause)
            return
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        worker = self._workers[pid] = Worker(pid, ours, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_message(worker))

    def _become_worker(self, control: Connection, supervisors_end: Connection) -> NoReturn:
        status = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C on a terminal then goes to the supervisor alone, which ends the workers in order
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            supervisors_end.close()
            for sibling in self._workers.values():
                sibling.control.close()  # else a sibling would get no end of file while this worker runs
            self._listener.close_lock()
            self._selector.close()
            for end in self._wakeup:
                end.close()
            worker_process.run(self._snapshot, control, self._log)
            status = 0
        except BaseException as error:  # noqa: BLE001 - nothing may return into the supervisor's loop
            self._log.error("worker_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
        finally:
            os._exit(status)

    def _on_message(self, worker: Worker) -> None:
        """Count an acknowledgement."""
        if self._workers.get(worker.pid) is not worker:
            return  # the same select() reported its death first, and its pipe is closed
        try:
            worker.control.recv()
        except (EOFError, OSError):
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.control)
            return
        worker.pending_acks -= 1
        if not worker.pending_acks:
            worker.reply_deadline = math.inf
        self._announce()

    def _announce(self) -> None:
        """Announce that the milter is ready, or has reloaded, once every worker uses the current snapshot."""
        ready = [worker for worker in self._workers.values() if not worker.pending_acks and not worker.retired]
        if self._announced or len(ready) < self._started_with.milter.workers:
            return
        policy = self._snapshot.policy
        self._log.info(
            "reloaded" if self._was_ready else "milter_ready",
            socket=self._started_with.milter.socket,
            workers=len(ready),
            mode=policy.mode.value,
            rules=len(policy.rules),
        )
        self._announced = self._was_ready = True
        if self._taken is not None:
            self._result_file.write(self._taken)
            self._taken = None
        sd_notify.send("READY=1", f"{len(ready)} workers, mode {policy.mode.value}, {len(policy.rules)} rules")

    def _send(self, worker: Worker, message: Snapshot | None) -> None:
        """Send a worker a new snapshot, or None to end it."""
        try:
            worker.control.send(message)
        except BlockingIOError:  # frozen: half of the message may be in the pipe, so that nothing more can be sent
            self._kill_frozen(worker)
        except OSError:
            pass  # it died meanwhile; its successor starts with the current snapshot

    def _kill_unresponsive(self) -> None:
        """Kill workers that did not acknowledge a snapshot: they would go on deciding by the old policy."""
        for worker in self._workers.values():
            if worker.reply_deadline <= time.monotonic():
                worker.reply_deadline = math.inf
                self._kill_frozen(worker)

    def _kill_frozen(self, worker: Worker) -> None:
        self._log.error("worker_frozen", pid=worker.pid, effect="it is killed and replaced")
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    def _on_exit(self, worker: Worker, status: int) -> None:
        """Forget a worker that has ended, and plan its replacement unless it was told to end."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.control)
        worker.control.close()
        if self._stopping or worker.retired:
            return
        lived = time.monotonic() - worker.born
        if lived > STABLE_AFTER:
            self._backoff.reset()
        code = os.waitstatus_to_exitcode(status)
        reason = f"killed by {_signal_name(-code)}" if code < 0 else f"exit status {code}"
        pause = self._backoff.next()
        self._log.error("worker_died", pid=worker.pid, reason=reason, lived_seconds=round(lived, 3), retry_in=pause)
        self._restart_at.append(time.monotonic() + pause)

    def _replace_dead_workers(self) -> None:
        now = time.monotonic()
        due = [moment for moment in self._restart_at if moment <= now]
        if due and not self._stopping:
            self._restart_at = [moment for moment in self._restart_at if moment > now]
            for _ in due:
                self._start_worker()

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            self._send(worker, None)
        deadline = time.monotonic() + STOP_TIMEOUT
        while self._workers and time.monotonic() < deadline:
            self._wait(max(0.0, deadline - time.monotonic()))
            self._handle_chld()
        for pid in list(self._workers):
            self._log.error("worker_killed", pid=pid, reason=f"still there after {STOP_TIMEOUT} s")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal: most have no name
        return f"signal {number}"
