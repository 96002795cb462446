"""Child processes of the supervisor: fork, readiness, restart with backoff, end.

The supervisor has one thread and imports no large library, so that a fork is safe and costs about a
millisecond; each child imports what it needs. The kernel kills a child when its parent ends in any way
(``PR_SET_PDEATHSIG``, prctl(2)). A child reports through a pipe that it is ready.
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
COLLECT_AFTER: Final = 20_000  # new objects after which the garbage collector of a serving child runs
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_BACKOFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_STEADY_NS: Final = 10 * NS_PER_SECOND  # a child that ran this long is restarted without backoff

Body = Callable[[int], int]  # receives the descriptor for say_ready; returns the exit status


@dataclass(slots=True)
class Child:
    """One process that is kept running.

    A child that ends repeatedly soon after its start is restarted after increasing delays.

    Attributes:
        name: Name in log lines and, shortened, of the process.
        body: Function that runs in the child.
        longest_wait_seconds: Largest delay of a restart.
        pid: Process id; None while it is not running.
        ready_fd: Read end of the pipe through which it reports that it is ready; None afterwards.
        started_ns: Time of its last start.
        due_ns: Time at which it is to be started again.
        failures: Number of times in a row that it ended soon after its start.
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
        sys.stdout.flush()  # otherwise the child would write buffered output again
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _run(self.body, writer, parent, self.name)
        os.close(writer)
        self.forget_pipe()
        self.pid, self.ready_fd, self.started_ns = pid, reader, now_ns()

    def wait_ready(self, seconds: float) -> bool:
        """Return whether the child reports within ``seconds`` that it is ready; False if it ended instead."""
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
        """Record that the process ended with this status; return a log line with the delay of the restart.

        A child that rejected its settings gets the longest delay at once, because waiting rarely changes
        them.
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
        """Skip the rest of the delay, because the settings have changed."""
        self.due_ns, self.failures = 0, 0


def _run(body: Body, ready_fd: int, parent: int, name: str) -> None:
    """Run the body in a forked child; never returns."""
    status = 1
    try:
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_PR_SET_NAME, comm(name).encode(), 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before prctl took effect
            os._exit(1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a terminal sends it to all processes; the supervisor decides
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGHUP}
        )  # the body, once it is ready
        status = body(ready_fd)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except ConfigError as error:
        sys.stderr.write(f"jouleproxy: {error}\n")
        status = REFUSED
    except BaseException:  # noqa: BLE001 - top of a process; the supervisor restarts it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def say_ready(fd: int) -> None:
    """Report to the supervisor that this child serves, and tune its garbage collector.

    Objects created so far are exempt from collection. Serving creates hardly any reference cycles, so that
    collections can be rare.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    os.write(fd, b"1")
    os.close(fd)


def comm(name: str) -> str:
    """Return the process name of a child, at most 15 bytes: ``jp-meter``, ``jp-relay-1``."""
    return f"jp-{name.replace(' worker ', '-')}"[:15]


def reap() -> dict[int, int]:
    """Return the exit status of each child that ended since the last call, by pid; negative for a signal."""
    found = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found[pid] = os.waitstatus_to_exitcode(status)
    return found
