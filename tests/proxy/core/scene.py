"""A group with requests in it, for tests of what looks at one."""

import numpy as np

from proxy.core.activity.outputs import Streams
from proxy.core.activity.tracks import Group, Track
from proxy.core.events import Arrive, End

MS = 1_000_000


def group() -> Group:
    return Group(("gpu0", "m"), ("gpu0",), Streams())


def add(
    group: Group,
    name: str,
    start_ms: float,
    outputs_ms: tuple[float, ...] = (),
    end: End | None = None,
    tokens: int = 1,
) -> Track:
    """A request whose chunks came at ``outputs_ms``."""
    arrive = Arrive(round(start_ms * MS), name, "chat", "m", bool(outputs_ms), ("gpu0",))
    slot = group.streams.open(arrive.t_ns)
    track = group.tracks[slot] = Track(arrive, slot, end)
    if end is not None:
        group.streams.end_ns[slot] = end.t_ns
    t_ns = np.array([round(ms * MS) for ms in outputs_ms], np.int64)
    slots, sizes = np.full(len(t_ns), slot, np.int64), np.full(len(t_ns), tokens, np.int64)
    group.streams.see(t_ns, slots, np.maximum(sizes, 0))
    group.outputs.insert(t_ns, slots, sizes)
    return track


def ended(name: str, at_ms: float, prompt: int | None = 100, out: int | None = 1, cached: int = 0) -> End:
    status = None if prompt is None else 200
    return End(round(at_ms * MS), name, status, prompt is None, prompt, cached if prompt else None, out)
