# Compiled by mypyc: see setup.py.
"""The attack: sends the requests of one point at the times of a pacer, and makes one record of each.

There is no task per request and no queue. A timer expires at the deadline of the next request; the callback
sends every request that is due and sets the timer for the next one. A response that ends appends a record
and, in a closed loop, triggers the next request. In an open loop nothing waits for a response.

The bytes of the next request are made ahead of its deadline, so that their cost delays nothing.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from loadgen.client.http_client import Client, RequestForm
from loadgen.client.jobs import JobPoller
from loadgen.drive.deadline_timer import DeadlineTimer
from loadgen.drive.pacer import Capped, Hold, OpenLoop, Pacer, Send, Stop
from loadgen.drive.request import ActiveRequest, new_reader
from loadgen.results.records import Record
from loadgen.workload.request_bodies import PATHS, Workload
from loadgen.workload.tokenizer import Tokenizer
from proxy.schema import REQUEST_ID_HEADER
from proxy.units import NS_PER_SECOND

_HEARTBEAT_S = 0.02  # its delays measure the lag of the event loop
_NAMED_FIELDS = 5  # at most, in the note about fields that could not be decoded
_BURST_NS = 2_000_000  # longest time of sending without a return to the event loop
_LATE_S = 0.002  # the loop's timers may be early by a millisecond


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attack. Times are nanoseconds since ``start_ns`` of the monotonic clock.

    ``sending_end_ns`` is when sending stopped, ``lags_ns`` the delays of a periodic callback of the event
    loop, ``cpu_share`` the CPU seconds of this process per second, and ``capped`` the number of times that
    ``--max-in-flight`` delayed a request.
    """

    start_ns: int
    sending_end_ns: int
    end_ns: int
    records: list[Record]
    lags_ns: list[int]
    cpu_share: float
    interrupted: bool
    capped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Progress:
    """Counters of a point in progress, which a live view may read at any time."""

    sent: int = 0
    ended: int = 0
    failed: int = 0
    in_flight: int = 0
    tokens: int = 0
    elapsed_ns: int = 0


@dataclass(slots=True)
class Attack:
    """One point: ``run`` sends its requests and returns the outcome.

    ``ids`` is the prefix of the request ids, ``headers`` are complete header lines of each request. This
    attack sends the requests ``first_index``, ``first_index + stride`` and so on, so that several workers
    share one workload.

    A request fails, and its connection is closed, if its response is not complete ``timeout_s`` after its
    dispatch. If the pacer waits for a request to end, and has no end time, the point ends when the server has
    sent nothing on any connection for ``silence_s``; requests in flight fail.
    """

    client: Client
    workload: Workload
    pacer: Pacer
    point: int
    ids: str
    headers: bytes = b""
    drain_s: float = 30.0
    first_index: int = 0
    stride: int = 1
    ended_hook: Callable[[Record], None] | None = None
    tokenizer: Tokenizer | None = None
    timeout_s: float = math.inf
    silence_s: float = math.inf
    progress: Progress = field(default_factory=Progress)
    start_ns: int = 0
    _records: list[Record] = field(default_factory=list)
    _active: dict[int, ActiveRequest] = field(default_factory=dict)
    _texts: dict[int, str] = field(default_factory=dict)
    _lags: list[int] = field(default_factory=list)
    _sending_end_ns: int | None = None
    _prepared: bytes = b""
    _timer: DeadlineTimer = field(init=False)
    _form: RequestForm = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _finished: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _end_timer: asyncio.TimerHandle | None = None
    _error: Exception | None = None
    _interrupted: bool = False
    _cut_short: bool = False
    _sending: bool = False
    _behind: bool = False
    _holding: bool = False
    _silence_check_ns: int = 0
    _notes: list[str] = field(default_factory=list)
    _unread: Counter[str] = field(default_factory=Counter)

    async def run(self, start_ns: int | None = None) -> Outcome:
        """Send until the pacer stops, then wait at most ``drain_s`` for requests in flight.

        ``start_ns`` is the start on the monotonic clock (workers agree on one), by default 20 ms from now.
        Raises what a callback raised: an error in the workload, for example.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._timer = DeadlineTimer(loop, self._wake)
        self._form = RequestForm(
            self.client.target,
            PATHS[self.workload.endpoint],
            self.headers,
            self.workload.content_type,
            f"{REQUEST_ID_HEADER}: {self.ids}-".encode(),
        )
        cpu, began = time.process_time_ns(), time.monotonic_ns()
        self._prepare()
        self.start_ns = start_ns or time.monotonic_ns() + NS_PER_SECOND // 50
        heartbeat = loop.call_later(_HEARTBEAT_S, self._beat, loop)
        self._timer.set(self.start_ns)
        self._set_end_timer()
        try:
            await self._stopped.wait()
            await self._drain()
            if self._error is not None:
                raise self._error
        finally:
            self._timer.close()
            if self._end_timer is not None:
                self._end_timer.cancel()
            heartbeat.cancel()
        # Divided by the time since the preparation: an interrupted attack may never reach its start.
        return self._outcome((time.process_time_ns() - cpu) / max(time.monotonic_ns() - began, 1))

    def stop(self) -> None:
        """Stop sending before the pacer does; ``run`` still waits for requests in flight."""
        self._cut_short = True
        self._stop()

    async def sending_ended(self) -> None:
        """Wait until the last request was sent."""
        await self._stopped.wait()

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._active)

    @property
    def lags_ns(self) -> list[int]:
        """Delays of the heartbeat so far, nanoseconds."""
        return self._lags

    def so_far(self) -> list[Record]:
        """Return the records as of now; those of requests in flight have neither an end nor an error."""
        return [*self._records, *(active.record(None, None) for active in self._active.values())]

    def interrupt(self) -> None:
        """Stop sending and do not wait; requests in flight are recorded as interrupted."""
        self._interrupted = True
        self._stop()
        self._finished.set()

    def poll_job(self, job: str, ended: Callable[[int, str | None], None]) -> JobPoller:
        """Poll a job of this workload's endpoint until it ends."""
        path = f"{PATHS[self.workload.endpoint]}/{quote(job, safe='')}"
        follower = JobPoller(self.client, path, self.headers, ended)
        follower.wait()
        return follower

    def request_id(self, index: int) -> str:
        """Return the request id, by which the proxy's record is found."""
        return f"{self.ids}-{index}"

    def keep_text(self, index: int, text: str) -> None:
        """Store the text of a response; its tokens are counted after the point."""
        self._texts[index] = text

    def _with_token_counts(self) -> list[Record]:
        """Return the records by index, with output tokens as counted by the tokenizer, if there is one."""
        records = sorted(self._records, key=lambda record: record.index)
        if self.tokenizer is None or not self._texts:
            return records
        found = dict(zip(self._texts, self.tokenizer.count(list(self._texts.values())), strict=True))
        self._texts.clear()
        return [
            msgspec.structs.replace(one, output_tokens=found[one.index]) if one.index in found else one
            for one in records
        ]

    def finished(self, active: ActiveRequest, record: Record, unread: list[str]) -> None:
        """Append the record of a request that ended; see ``Owner.finished``."""
        if self._active.pop(active.index, None) is None:
            return  # recorded before, when the point ended
        self._unread.update(unread)
        self._records.append(record)
        self.progress.ended += 1
        self.progress.failed += not record.ok
        self.progress.tokens += record.output_tokens or 0
        if self.ended_hook is not None:
            self.ended_hook(record)
        if self._sending_end_ns is None:
            self._send_due()
        elif not self._active:
            self._finished.set()

    def _wake(self) -> None:
        """Continue after the timer has expired."""
        self._behind = False
        self._send_due()

    def _send_due(self) -> None:
        """Send every request that is due and set the timer for the next one.

        Not reentrant: a request that fails at once ends within this loop. Sending that is behind schedule
        continues in the next iteration of the event loop, and only then. If each request that ends continued
        it as well, every iteration would have more to do than the one before.
        """
        if self._sending or self._behind:
            return
        self._sending = True
        until_ns = time.monotonic_ns() + _BURST_NS
        try:
            while self._sending_end_ns is None and self._step():
                if time.monotonic_ns() > until_ns:  # behind: responses and signals must be handled
                    self._behind = True
                    self._timer.set(1)
                    break
        except Exception as error:  # noqa: BLE001 - raised by ``run``: asyncio only logs errors of callbacks
            self._fail(error)
        finally:
            self._sending = False

    def _step(self) -> bool:
        now = time.monotonic_ns() - self.start_ns
        if now < 0:
            return False
        decision = self.pacer.decide(now, self.progress.sent, len(self._active))
        self._holding = isinstance(decision, Hold)
        if isinstance(decision, Stop):
            self._stop()
            return False
        if not isinstance(decision, Send):
            return False
        if decision.deadline_ns > now:
            self._timer.set(self.start_ns + decision.deadline_ns)
            return False
        self._send(decision.deadline_ns)
        return True

    def _send(self, deadline_ns: int) -> None:
        self._prepare()  # if several are due at once
        index = self.first_index + self.progress.sent * self.stride
        answer = new_reader(self.workload, capture_text=self.tokenizer is not None)
        active = ActiveRequest(self, index, deadline_ns, answer)
        self._active[index] = active
        self.progress.sent += 1
        request, self._prepared = self._prepared, b""
        self.client.send(active, request)
        self._loop.call_soon(self._prepare_ahead)

    def _prepare_ahead(self) -> None:
        try:
            self._prepare()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.interrupt()

    def _prepare(self) -> None:
        """Make the bytes of the next request, unless they exist."""
        if self._prepared or self._sending_end_ns is not None:
            return
        index = self.first_index + self.progress.sent * self.stride
        self._prepared = self._form.request(index, self.workload.body(index))

    def _set_end_timer(self) -> None:
        """Query the pacer at its end time: if no request ends, nothing else would."""
        ends_ns = self.pacer.ends_ns
        if ends_ns is not None:
            left_ns = self.start_ns + ends_ns - time.monotonic_ns()
            self._end_timer = self._loop.call_later(left_ns / NS_PER_SECOND + _LATE_S, self._send_due)

    def _stop(self) -> None:
        if self._sending_end_ns is not None:
            return
        self._sending_end_ns = max(time.monotonic_ns() - self.start_ns, 1)
        self._stopped.set()
        if not self._active:
            self._finished.set()

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), self.drain_s)
        reason = "interrupted" if self._interrupted else f"not ended {self.drain_s:g} s after the last"
        self._records.extend(active.record(None, reason) for active in self._active.values())
        self._active.clear()

    def _beat(self, loop: asyncio.AbstractEventLoop, due_ns: int | None = None) -> None:
        now = time.monotonic_ns()
        if due_ns is not None:
            self._lags.append(max(0, now - due_ns))
        self.progress.in_flight = len(self._active)
        self.progress.elapsed_ns = now - self.start_ns
        self._enforce_timeouts(now)
        if not self._finished.is_set():
            loop.call_later(_HEARTBEAT_S, self._beat, loop, now + round(_HEARTBEAT_S * 1e9))

    def _enforce_timeouts(self, now_ns: int) -> None:
        """Fail requests that exceed the timeout, and end the point if the server is silent."""
        while self._active:
            oldest = next(iter(self._active.values()))  # in the order of their dispatch
            if now_ns - oldest.dispatched_ns < self.timeout_s * NS_PER_SECOND:
                break
            reason = f"no complete response within {self.timeout_s:g} s (--request-timeout)"
            self.client.abandon(oldest, reason)
        waiting = self._holding and self._sending_end_ns is None and self.pacer.ends_ns is None
        if self._active and waiting and now_ns >= self._silence_check_ns:
            latest = next(reversed(self._active.values()))
            quiet_ns = now_ns - max(self.client.last_received_ns, latest.dispatched_ns)
            if quiet_ns >= self.silence_s * NS_PER_SECOND:
                self._end_silent()
            elif math.isfinite(self.silence_s):
                self._silence_check_ns = now_ns + round(self.silence_s * NS_PER_SECOND) - quiet_ns

    def _end_silent(self) -> None:
        reason = f"the server sent nothing for {self.silence_s:g} s"
        self._notes.append(f"ended early, with {len(self._active)} requests in flight: {reason}")
        self.stop()
        for active in list(self._active.values()):
            self.client.abandon(active, reason)

    def _outcome(self, cpu_share: float) -> Outcome:
        end = max(time.monotonic_ns() - self.start_ns, 1)
        sending_end = self._sending_end_ns or end
        inner = self.pacer.inner if isinstance(self.pacer, Capped) else self.pacer
        if (
            isinstance(inner, OpenLoop)
            and inner.requests is None
            and not (self._interrupted or self._cut_short)
        ):
            # The gap after the last arrival is part of the process: a timed point ends at its duration.
            sending_end = inner.duration_ns or sending_end
        return Outcome(
            start_ns=self.start_ns,
            sending_end_ns=sending_end,
            end_ns=end,
            records=self._with_token_counts(),
            lags_ns=self._lags,
            cpu_share=cpu_share,
            interrupted=self._interrupted,
            capped=self.pacer.bound if isinstance(self.pacer, Capped) else 0,
            notes=(*self._notes, *_unread_notes(self._unread)),
        )


def _unread_notes(unread: Counter[str]) -> list[str]:
    if not unread:
        return []
    fields = ", ".join(f"{name} ({count})" for name, count in unread.most_common(_NAMED_FIELDS))
    return [f"response fields that could not be decoded were ignored: {fields}"]
