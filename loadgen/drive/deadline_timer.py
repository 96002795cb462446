"""An alarm at an absolute monotonic time, exact to some ten microseconds on Linux.

The event loop's own timers have a resolution of a millisecond (libuv), which would be the largest
error of the whole generator. A timerfd has none of that; elsewhere the loop's timer serves.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

from proxy.units import NS_PER_SECOND

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Alarm:
    """Calls ``ring`` once the time given to ``set`` has come; one time at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._libc, self._fd = _timerfd()
        if self._fd >= 0:
            loop.add_reader(self._fd, self._readable)

    def set(self, t_ns: int) -> None:
        """Ring at ``t_ns`` of the monotonic clock; a time in the past rings at the next turn."""
        if self._fd >= 0 and self._libc is not None:
            # A value of zero would disarm the timer.
            when = _Itimerspec(0, 0, *divmod(max(t_ns, 1), NS_PER_SECOND))
            self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(when), None)
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0, t_ns - time.monotonic_ns()) / NS_PER_SECOND
        self._timer = self._loop.call_later(delay, self._ring)

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew between the wake-up and this read
            return
        self._ring()


def _timerfd() -> tuple[ctypes.CDLL | None, int]:
    if not sys.platform.startswith("linux"):
        return None, -1
    libc = ctypes.CDLL(None, use_errno=True)
    return libc, int(libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
