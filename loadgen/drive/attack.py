# Compiled by mypyc: see setup.py.
"""The attack: obeys a pacer, one request to one record.

No task per request and no queue: the pacer's deadlines ring an alarm, the alarm sends what is due, and
what ends writes its record. Nothing in an open loop waits for an answer.
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
from loadgen.client.jobs import Follower
from loadgen.drive.deadline_timer import Alarm
from loadgen.drive.pacer import Capped, Hold, OpenLoop, Pacer, Send, Stop
from loadgen.drive.request import Call, new_answer
from loadgen.results.records import Record
from loadgen.workload.request_bodies import PATHS, Workload
from loadgen.workload.tokenizer import Tokenizer
from proxy.schema import REQUEST_ID_HEADER
from proxy.units import NS_PER_SECOND

_HEARTBEAT_S = 0.02
_NAMED = 5  # fields that could not be read
_TURN_NS = 2_000_000
_LATE_S = 0.002  # the loop's timers may be early by a millisecond


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of one attack: times in nanoseconds since ``start_ns`` of the monotonic clock.

    ``sending_end_ns`` is when sending stopped. ``lags_ns`` are delays of the event loop's heartbeat,
    ``cpu_share`` the generator's CPU seconds per second, ``capped`` how often a cap held a request back.
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
    """What a live view may read at any time."""

    sent: int = 0
    ended: int = 0
    failed: int = 0
    in_flight: int = 0
    tokens: int = 0
    elapsed_ns: int = 0


@dataclass(slots=True)
class Attack:
    """One point. ``ids`` is the prefix of its request ids; ``headers`` complete lines for each request.

    A request without its whole answer ``timeout_s`` after its dispatch has failed, and its connection is
    closed. Where nothing may be sent before a request ends and no time is set for that, the point ends when
    the server has sent nothing at all for ``silence_s``: what is in flight has failed.
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
    _calls: dict[int, Call] = field(default_factory=dict)
    _texts: dict[int, str] = field(default_factory=dict)
    _lags: list[int] = field(default_factory=list)
    _sending_end_ns: int | None = None
    _prepared: bytes = b""
    _alarm: Alarm = field(init=False)
    _form: RequestForm = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _finished: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _last_call: asyncio.TimerHandle | None = None
    _error: Exception | None = None
    _interrupted: bool = False
    _cut_short: bool = False
    _pumping: bool = False
    _behind: bool = False
    _holding: bool = False
    _look_ns: int = 0
    _notes: list[str] = field(default_factory=list)
    _unread: Counter[str] = field(default_factory=Counter)

    async def run(self, start_ns: int | None = None) -> Outcome:
        """Send until the pacer stops, then wait at most ``drain_s`` for what is in flight.

        ``start_ns`` is the absolute beginning (workers agree on one); by default 20 ms from now.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(loop, self._wake)
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
        self._alarm.set(self.start_ns)
        self._call_at_the_end()
        try:
            await self._stopped.wait()
            await self._drain()
            if self._error is not None:
                raise self._error
        finally:
            self._alarm.close()
            if self._last_call is not None:
                self._last_call.cancel()
            heartbeat.cancel()
        # By the time it was at work: an attack that is interrupted before it starts has run as well.
        return self._outcome((time.process_time_ns() - cpu) / max(time.monotonic_ns() - began, 1))

    def stop(self) -> None:
        """Send no more, though the pacer would; ``run`` goes on until what is in flight has ended."""
        self._cut_short = True
        self._stop()

    async def sending_ended(self) -> None:
        """Wait until the last request went out."""
        await self._stopped.wait()

    @property
    def in_flight(self) -> int:
        """Requests without an end so far."""
        return len(self._calls)

    @property
    def lags_ns(self) -> list[int]:
        """Delays of the event loop's heartbeat so far."""
        return self._lags

    def so_far(self) -> list[Record]:
        """Records as of now; those of requests under way have neither an end nor an error."""
        return [*self._records, *(call.record(None, None) for call in self._calls.values())]

    def interrupt(self) -> None:
        """Send no more and wait for nothing: what is in flight is cut off."""
        self._interrupted = True
        self._stop()
        self._finished.set()

    def follow(self, job: str, ended: Callable[[int, str | None], None]) -> Follower:
        """Ask for a job until it ends."""
        path = f"{PATHS[self.workload.endpoint]}/{quote(job, safe='')}"
        follower = Follower(self.client, path, self.headers, ended)
        follower.wait()
        return follower

    def request_id(self, index: int) -> str:
        """The id by which the proxy's record is found."""
        return f"{self.ids}-{index}"

    def keep(self, index: int, text: str) -> None:
        """What an answer said, to be counted at the end."""
        self._texts[index] = text

    def _counted(self) -> list[Record]:
        """The records, with the tokenizer's counts of what was said."""
        records = sorted(self._records, key=lambda record: record.index)
        if self.tokenizer is None or not self._texts:
            return records
        found = dict(zip(self._texts, self.tokenizer.count(list(self._texts.values())), strict=True))
        self._texts.clear()
        return [
            msgspec.structs.replace(one, output_tokens=found[one.index]) if one.index in found else one
            for one in records
        ]

    def finished(self, call: Call, record: Record, unread: list[str]) -> None:
        """A call ended, well or not; ``unread`` names the fields of its answer that could not be read."""
        if self._calls.pop(call.index, None) is None:
            return  # it was cut off before
        self._unread.update(unread)
        self._records.append(record)
        self.progress.ended += 1
        self.progress.failed += not record.ok
        self.progress.tokens += record.output_tokens or 0
        if self.ended_hook is not None:
            self.ended_hook(record)
        if self._sending_end_ns is None:
            self._pump()
        elif not self._calls:
            self._finished.set()

    def _wake(self) -> None:
        """The alarm rang."""
        self._behind = False
        self._pump()

    def _pump(self) -> None:
        """Send all that is due and set the alarm for what is not."""
        # A send that fails at once ends within this very loop. What is behind goes on in the loop's next
        # turn: if each request that ended did so, every turn would have more to do than the one before.
        if self._pumping or self._behind:
            return
        self._pumping = True
        until_ns = time.monotonic_ns() + _TURN_NS
        try:
            while self._sending_end_ns is None and self._step():
                if time.monotonic_ns() > until_ns:  # behind: answers must be read, and signals heard
                    self._behind = True
                    self._alarm.set(1)
                    break
        except Exception as error:  # noqa: BLE001 - raised by ``run``: a callback's is only logged
            self._fail(error)
        finally:
            self._pumping = False

    def _step(self) -> bool:
        now = time.monotonic_ns() - self.start_ns
        if now < 0:
            return False
        decision = self.pacer.decide(now, self.progress.sent, len(self._calls))
        self._holding = isinstance(decision, Hold)
        if isinstance(decision, Stop):
            self._stop()
            return False
        if not isinstance(decision, Send):
            return False
        if decision.deadline_ns > now:
            self._alarm.set(self.start_ns + decision.deadline_ns)
            return False
        self._send(decision.deadline_ns)
        return True

    def _send(self, deadline_ns: int) -> None:
        self._prepare()  # where another one is due at once
        index = self.first_index + self.progress.sent * self.stride
        answer = new_answer(self.workload, spoken=self.tokenizer is not None)
        call = Call(self, index, deadline_ns, answer)
        self._calls[index] = call
        self.progress.sent += 1
        request, self._prepared = self._prepared, b""
        self.client.send(call, request)
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
        """Make the next request's bytes ahead of its time, so that making them delays nothing."""
        if self._prepared or self._sending_end_ns is not None:
            return
        index = self.first_index + self.progress.sent * self.stride
        self._prepared = self._form.request(index, self.workload.body(index))

    def _call_at_the_end(self) -> None:
        """Ask the pacer once more when its time is up: where nothing ends, nothing else would."""
        ends_ns = self.pacer.ends_ns
        if ends_ns is not None:
            left_ns = self.start_ns + ends_ns - time.monotonic_ns()
            self._last_call = self._loop.call_later(left_ns / NS_PER_SECOND + _LATE_S, self._pump)

    def _stop(self) -> None:
        if self._sending_end_ns is not None:
            return
        self._sending_end_ns = max(time.monotonic_ns() - self.start_ns, 1)
        self._stopped.set()
        if not self._calls:
            self._finished.set()

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), self.drain_s)
        reason = "interrupted" if self._interrupted else f"not ended {self.drain_s:g} s after the last"
        self._records.extend(call.record(None, reason) for call in self._calls.values())
        self._calls.clear()

    def _beat(self, loop: asyncio.AbstractEventLoop, due_ns: int | None = None) -> None:
        now = time.monotonic_ns()
        if due_ns is not None:
            self._lags.append(max(0, now - due_ns))
        self.progress.in_flight = len(self._calls)
        self.progress.elapsed_ns = now - self.start_ns
        self._give_up(now)
        if not self._finished.is_set():
            loop.call_later(_HEARTBEAT_S, self._beat, loop, now + round(_HEARTBEAT_S * 1e9))

    def _give_up(self, now_ns: int) -> None:
        """Fail requests that take too long, and end a point whose server is silent."""
        while self._calls:
            oldest = next(iter(self._calls.values()))  # they are in the order of their dispatch
            if now_ns - oldest.dispatched_ns < self.timeout_s * NS_PER_SECOND:
                break
            reason = f"no complete answer within {self.timeout_s:g} s (--request-timeout)"
            self.client.abandon(oldest, reason)
        waiting = self._holding and self._sending_end_ns is None and self.pacer.ends_ns is None
        if self._calls and waiting and now_ns >= self._look_ns:
            latest = next(reversed(self._calls.values()))
            quiet_ns = now_ns - max(self.client.heard_ns, latest.dispatched_ns)
            if quiet_ns >= self.silence_s * NS_PER_SECOND:
                self._end_silent()
            elif math.isfinite(self.silence_s):
                self._look_ns = now_ns + round(self.silence_s * NS_PER_SECOND) - quiet_ns

    def _end_silent(self) -> None:
        reason = f"the server sent nothing for {self.silence_s:g} s"
        self._notes.append(f"ended early, with {len(self._calls)} requests in flight: {reason}")
        self.stop()
        for call in list(self._calls.values()):
            self.client.abandon(call, reason)

    def _outcome(self, cpu_share: float) -> Outcome:
        end = max(time.monotonic_ns() - self.start_ns, 1)
        sending_end = self._sending_end_ns or end
        inner = self.pacer.inner if isinstance(self.pacer, Capped) else self.pacer
        if (
            isinstance(inner, OpenLoop)
            and inner.requests is None
            and not (self._interrupted or self._cut_short)
        ):
            # The last gap belongs to the process: a timed point ends when its time does.
            sending_end = inner.duration_ns or sending_end
        return Outcome(
            start_ns=self.start_ns,
            sending_end_ns=sending_end,
            end_ns=end,
            records=self._counted(),
            lags_ns=self._lags,
            cpu_share=cpu_share,
            interrupted=self._interrupted,
            capped=self.pacer.bound if isinstance(self.pacer, Capped) else 0,
            notes=(*self._notes, *_unread_notes(self._unread)),
        )


def _unread_notes(unread: Counter[str]) -> list[str]:
    if not unread:
        return []
    fields = ", ".join(f"{name} ({count})" for name, count in unread.most_common(_NAMED))
    return [f"answers held what could not be read and was passed over: {fields}"]
