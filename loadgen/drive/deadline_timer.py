"""A timer for absolute monotonic times, with a resolution of some ten microseconds on Linux.

The event loop's own timers have a resolution of one millisecond (libuv), which would be the largest error of
the load generator. On Linux a timerfd, which the loop polls like a socket, has none of that. Elsewhere the
loop's timer is used.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

from proxy.units import NS_PER_SECOND

# Constants of <time.h> and <sys/timerfd.h>, which Python offers from 3.13 on.
_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_TFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class DeadlineTimer:
    """Calls ``expired`` at the time given to ``set``; one pending time at most. Call ``close`` at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._timer: asyncio.TimerHandle | None = None
        self._libc, self._fd = _timerfd()
        if self._fd >= 0:
            loop.add_reader(self._fd, self._readable)

    def set(self, t_ns: int) -> None:
        """Expire at ``t_ns`` of the monotonic clock, instead of at any earlier setting.

        A time in the past expires in the next iteration of the event loop.
        """
        if self._fd >= 0 and self._libc is not None:
            # A value of zero would disarm the timer.
            when = _Itimerspec(0, 0, *divmod(max(t_ns, 1), NS_PER_SECOND))
            self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(when), None)
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0, t_ns - time.monotonic_ns()) / NS_PER_SECOND
        self._timer = self._loop.call_later(delay, self._expired)

    def close(self) -> None:
        """Cancel the timer and release its file descriptor."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set again between the wake-up and this read
            return
        self._expired()


def _timerfd() -> tuple[ctypes.CDLL | None, int]:
    """Return libc and a timerfd; ``(None, -1)`` on other systems than Linux."""
    if not sys.platform.startswith("linux"):
        return None, -1
    libc = ctypes.CDLL(None, use_errno=True)
    return libc, int(libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC))
