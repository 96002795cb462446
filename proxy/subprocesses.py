"""Child processes of the supervisor: forked, told apart by name, never left behind.

The supervisor has one thread and imports nothing heavy, so a fork is safe and a restart costs a
millisecond of its time; each child imports what it needs. A child dies with its parent, however that dies
(``PR_SET_PDEATHSIG``), and says through a pipe that it is ready.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.clock import now_ns
from proxy.config import ConfigError
from proxy.units import NS_PER_SECOND, ns_from_seconds

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
REFUSED: Final = 2  # exit status of a child that cannot use its settings
COLLECT_AFTER: Final = 20_000  # objects more than before, of a child that serves
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_BACKOFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_STEADY_NS: Final = 10 * NS_PER_SECOND  # a child that lived so long is restarted at once

Body = Callable[[int], int]  # takes the descriptor to write one byte to when ready; returns an exit status


@dataclass(slots=True)
class Child:
    """One process to be kept running. ``pid`` None: waits until ``due_ns`` to be started again.

    A child that ends within seconds of its start, again and again, is started after ever longer waits, up to
    ``longest_wait_seconds``.
    """

    name: str
    body: Body
    longest_wait_seconds: float = _BACKOFF_SECONDS[-1]
    pid: int | None = None
    ready_fd: int | None = None
    started_ns: int = 0
    due_ns: int = 0
    failures: int = 0

    def start(self) -> None:
        """Fork; the new process runs ``body`` and ends with what it returns."""
        reader, writer = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()  # or the child would write what is buffered once more
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _run(self.body, writer, parent, self.name)
        os.close(writer)
        self.forget_pipe()
        self.pid, self.ready_fd, self.started_ns = pid, reader, now_ns()

    def wait_ready(self, seconds: float) -> bool:
        """Whether the child said that it is ready within so long (it may have died instead)."""
        if self.ready_fd is None:
            return True
        readable, _, _ = select.select([self.ready_fd], [], [], seconds)
        if not readable:
            return False
        ready = os.read(self.ready_fd, 1) != b""
        self.forget_pipe()
        return ready

    def forget_pipe(self) -> None:
        """Close this side of the pipe."""
        if self.ready_fd is not None:
            os.close(self.ready_fd)
            self.ready_fd = None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the child is gone."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ended(self, status: int) -> str:
        """Note that the process ended; return a line that says when it is started again.

        One that refused its settings waits the longest at once: they rarely mend themselves.
        """
        lived = now_ns() - self.started_ns
        self.failures = 0 if lived >= _STEADY_NS else self.failures + 1
        steps = len(_BACKOFF_SECONDS) - 1
        wait = _BACKOFF_SECONDS[steps if status == REFUSED else min(self.failures, steps)]
        wait = min(wait, self.longest_wait_seconds)
        self.pid, self.due_ns = None, now_ns() + ns_from_seconds(wait)
        self.forget_pipe()
        if status == REFUSED:
            return (
                f"{self.name} cannot use its settings (see above): trying again in {wait:g} s, or at SIGHUP"
            )
        times = f", {self.failures} times in a row" if self.failures > 1 else ""
        return f"{self.name} ended with status {status}{times}: starting it again in {wait:g} s"

    def start_soon(self) -> None:
        """Start at the next turn, without the rest of the wait: its settings are others."""
        self.due_ns, self.failures = 0, 0


def _run(body: Body, ready_fd: int, parent: int, name: str) -> None:
    """The life of a forked child; never returns."""
    status = 1
    try:
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_PR_SET_NAME, comm(name).encode(), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above took hold
            os._exit(1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor decides
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGHUP}
        )  # the body, once it is ready
        status = body(ready_fd)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except ConfigError as error:
        sys.stderr.write(f"jouleproxy: {error}\n")
        status = REFUSED
    except BaseException:  # noqa: BLE001 - the top of a process: say it, and let the supervisor restart it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def say_ready(fd: int) -> None:
    """Of the child: it serves from now on."""
    gc.freeze()  # what is there stays; requests make hardly a cycle: reference counts free them
    gc.set_threshold(COLLECT_AFTER)
    os.write(fd, b"1")
    os.close(fd)


def comm(name: str) -> str:
    """What ``ps -o comm`` and ``top`` call a child, at most 15 bytes: ``jp-meter``, ``jp-relay-1``."""
    return f"jp-{name.replace(' worker ', '-')}"[:15]


def reap() -> dict[int, int]:
    """Children that ended since the last call: exit status by pid, negative for a signal."""
    found = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found[pid] = os.waitstatus_to_exitcode(status)
    return found
