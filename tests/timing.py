"""Time in tests that run in real time: what the machine allowed while something was timed.

What can run on a clock of the test's own does (``loadgen/virtual*``, ``tests/fakes/ticking.py``). What cannot
must not fail because other programs had the cores: it judges a duration through :class:`Punctuality`, and it
waits for what will happen with a timeout of ``PATIENCE_SECONDS``.
"""

import threading
import time
from typing import Final, Self

import pytest

PATIENCE_SECONDS: Final = 60.0  # for what takes milliseconds on a quiet machine: only a failure uses it up
_PERIOD_SECONDS: Final = 0.002
_LATE_SECONDS: Final = 0.005  # a quiet machine wakes a thread within a tenth of this


class Punctuality:
    """A context manager that measures how late this machine wakes a thread that sleeps.

    A thread sleeps to absolute deadlines 2 ms apart, for as long as the block runs. ``late_seconds`` is the
    most by which it missed one: what any other program on this machine may have missed, too.
    """

    def __init__(self) -> None:
        self.late_seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def judge(self, right: bool, what: str) -> None:
        """Fail with ``what`` unless ``right``; skip with a reason if the machine was late meanwhile.

        Call it last in a test, after everything that does not depend on time was asserted.
        """
        if right:
            return
        if self.late_seconds > _LATE_SECONDS:
            late = self.late_seconds * 1000
            pytest.skip(f"timing not judged, this machine woke a thread {late:.0f} ms late meanwhile: {what}")
        pytest.fail(what)

    def _watch(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            due += _PERIOD_SECONDS
            time.sleep(max(due - time.monotonic(), 0.0))
            now = time.monotonic()
            self.late_seconds = max(self.late_seconds, now - due)
            due = max(due, now)
