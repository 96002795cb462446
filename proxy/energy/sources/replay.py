"""Replay the samples of a recorded timeline at their original pace. Source name: ``replay``."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from proxy.clock import now_ns
from proxy.core.events import Device, Event, Header, Sample
from proxy.energy.source import Found, SensorError, SourceOptions
from proxy.timeline_file import FileError, blocks


class ReplaySource:
    """Samples of a timeline file, shifted in time so that the first one is due when the source is opened."""

    name = "replay"
    interval_s: float | None = None

    def __init__(self, path: Path, clock: Callable[[], int] = now_ns) -> None:
        self._path = path
        self._clock = clock
        self._samples: list[Sample] = []
        self._next = 0
        self._shift_ns = 0

    def open(self) -> list[Found]:
        """Read the entire file; raises :class:`SensorError` with line number and reason."""
        header, self._samples = _load(self._path)
        if not self._samples:
            raise SensorError(f"replay: {self._path} holds no sample")
        self._shift_ns = self._clock() - self._samples[0].t_ns
        known = {device.id: device for device in header.devices} if header else {}
        found = {}
        for sample in self._samples:
            if sample.device not in found:
                reading = "power (instant)" if sample.energy_mj is None else "energy counter"
                device = known.get(sample.device, Device(id=sample.device, source=self.name))
                found[sample.device] = Found(device, reading, None, None, ("replayed",))
        return list(found.values())

    def read(self) -> list[Sample]:
        """Return all samples that have become due since the last call."""
        due_ns = self._clock() - self._shift_ns
        start = self._next
        while self._next < len(self._samples) and self._samples[self._next].t_ns <= due_ns:
            self._next += 1
        return [
            msgspec.structs.replace(s, t_ns=s.t_ns + self._shift_ns, source=self.name)
            for s in self._samples[start : self._next]
        ]

    def close(self) -> None:
        """Discard the samples."""
        self._samples = []


def _load(path: Path) -> tuple[Header | None, list[Sample]]:
    """Return header and samples, sorted by time.

    An incomplete last line is ignored; another invalid line raises :class:`SensorError`.
    """
    try:
        data = b"".join(blocks(path))
    except (OSError, FileError) as error:
        raise SensorError(f"replay: cannot read {path}: {error}") from error
    decoder = msgspec.json.Decoder(Event)
    header: Header | None = None
    samples = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = decoder.decode(line)
        except msgspec.DecodeError as error:
            if number == len(lines):
                break  # no line end: the recorder was killed while it wrote
            raise SensorError(f"replay: {path}:{number}: {error}") from error
        if isinstance(event, Header):
            header = event
        elif isinstance(event, Sample):
            samples.append(event)
    return header, sorted(samples, key=lambda s: s.t_ns)


def create(options: SourceOptions) -> ReplaySource:
    """Create the source that :mod:`proxy.config.sources` registers as ``replay``."""
    return ReplaySource(Path(options.argument))
