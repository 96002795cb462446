"""Timeline files, version 1: bytes to events and back, without touching a file.

One JSON object a line, ordered by ``t_ns``, the first a header (the format is docs' timeline page; the
objects are those of :mod:`proxy.core.events`). A reader is fed bytes in any split and gives the events
of whole lines; unknown extra keys are accepted, everything else unknown is refused by line number.
"""

from operator import attrgetter
from typing import Final

import msgspec

from proxy.core.events import TIMELINE_VERSION, Event, Header, Sample

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Event)
_STAMP: Final = attrgetter("t_ns")
_TYPES: Final = "header, sample, arrive, output, end, step, span, outside"


class TimelineError(ValueError):
    """A timeline cannot be read: ``line`` (from 1) and ``reason`` (one line, no line number)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


def encode_event(event: Event) -> bytes:
    """The line of one event, newline included."""
    return _ENCODER.encode(event) + b"\n"


def encode_events(events: list[Event]) -> bytes:
    """The lines of some events, newlines included."""
    return _ENCODER.encode_lines(events)


class TimelineReader:
    """Feed bytes, take events; ``close`` at the end of the file.

    Raises :class:`TimelineError` on an unknown version or type, on a wrong field, on a stamp that goes
    backwards and on a first line that is not a header. ``torn`` is, after ``close``, the number of the last
    line if a crash had cut it; it is dropped, and nothing else is.
    """

    __slots__ = ("_last_ns", "_rest", "header", "lines", "torn")

    def __init__(self) -> None:
        self.header: Header | None = None
        self.lines = 0
        self.torn: int | None = None
        self._rest = b""
        self._last_ns: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events of the lines that ``data`` completes."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += data
            return []
        block, self._rest = self._rest + data[:end], data[end:]
        return self._block(block)

    def close(self) -> list[Event]:
        """The event of a last line without a newline, if it is whole; an empty file is an error."""
        last, self._rest = self._rest, b""
        events: list[Event] = []
        if last.strip():
            if _is_torn(last):
                self.torn = self.lines + 1
            else:
                events = self._block(last)
        if self.header is None:
            raise TimelineError(
                self.torn or 1, 'no whole header: the first line must be {"type": "header", ...}'
            )
        return events

    def _block(self, block: bytes) -> list[Event]:
        """Events of whole lines, decoded at once; line by line only to say where it went wrong."""
        count = block.count(b"\n") + (not block.endswith(b"\n"))
        try:
            events: list[Event] = _DECODER.decode_lines(block)
        except (msgspec.DecodeError, UnicodeDecodeError):
            events = []
        numbers: range | list[int] = range(self.lines + 1, self.lines + 1 + count)
        if len(events) != count:
            events, numbers = self._one_by_one(block)
        self._check(events, numbers)
        self.lines += count
        return events

    def _one_by_one(self, block: bytes) -> tuple[list[Event], list[int]]:
        events, numbers = [], []
        for number, line in enumerate(block.split(b"\n"), self.lines + 1):
            if line.strip():
                events.append(_decode(line, number))
                numbers.append(number)
        return events, numbers

    def _check(self, events: list[Event], numbers: range | list[int]) -> None:
        """Check header, order and samples, by passes in C: nearly all lines are outputs."""
        if self.header is None and events:
            self._open(events[0], numbers[0])
        begin = int(bool(events) and events[0] is self.header)
        kinds = list(map(type, events))
        stamps: list[int] = list(map(_STAMP, events[begin:] if begin else events))
        several = kinds.count(Header) > begin
        if several or not self._follow(stamps) or not _have_readings(events, kinds):
            self._find_fault(events, numbers)
        if stamps:
            self._last_ns = stamps[-1]

    def _follow(self, stamps: list[int]) -> bool:
        """Return whether stamps are in order, and none is before the last block's."""
        late = not stamps or self._last_ns is None or stamps[0] >= self._last_ns
        return late and stamps == sorted(stamps)

    def _find_fault(self, events: list[Event], numbers: range | list[int]) -> None:
        """Raise :class:`TimelineError` for the first line that is wrong."""
        last = self._last_ns
        for event, number in zip(events, numbers, strict=True):
            if isinstance(event, Header):
                if event is not self.header:
                    raise TimelineError(number, "a second header: only the first line may be one")
                continue
            t_ns = event.t_ns
            if last is not None and t_ns < last:
                raise TimelineError(
                    number, f"t_ns {t_ns} is before {last}, the stamp above: lines must be in order"
                )
            if isinstance(event, Sample) and not _has_reading(event):
                raise TimelineError(number, "a sample needs energy_mj or power_mw")
            last = t_ns

    def _open(self, first: Event, number: int) -> None:
        if not isinstance(first, Header):
            raise TimelineError(number, 'the first line must be {"type": "header", "version": 1, ...}')
        if first.version != TIMELINE_VERSION:
            raise TimelineError(
                number, f"version {first.version} is not known: this reads {TIMELINE_VERSION}"
            )
        self.header = first


def _has_reading(sample: Sample) -> bool:
    return sample.energy_mj is not None or sample.power_mw is not None


def _have_readings(events: list[Event], kinds: list[type[Event]]) -> bool:
    index = -1
    for _ in range(kinds.count(Sample)):
        index = kinds.index(Sample, index + 1)
        event = events[index]
        if isinstance(event, Sample) and not _has_reading(event):
            return False
    return True


def _decode(line: bytes, number: int) -> Event:
    try:
        event: Event = _DECODER.decode(line)
    except msgspec.ValidationError as error:
        reason = str(error)
        if reason.endswith("`$.type`"):
            reason = f"{reason}: the types are {_TYPES}"
        raise TimelineError(number, reason) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TimelineError(number, f"not JSON: {error}") from error
    return event


def _is_torn(line: bytes) -> bool:
    """Whether a line without a newline was cut: it is no JSON at all (a wrong object is not torn)."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    return False
