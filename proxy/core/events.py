"""Events: everything the core ever sees, and the lines of a timeline file.

All ``t_ns`` are nanoseconds of one monotonic clock. Events are fed in order of ``t_ns``; equal stamps
keep the order of feeding. The fields are those of the timeline format, version 1.
``gc=False``: they are values, never part of a cycle, and there are many.
"""

from typing import Annotated, Final

import msgspec

from proxy.schema import Units
from proxy.units import MAX_EXACT_INTEGER

TIMELINE_VERSION: Final = 1

Stamp = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]  # ns; differences fit into 64 bits
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT_INTEGER)]


class Device(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A device of the header. ``gain_error`` is the relative 90 % error of its energy readings.

    ``kind`` is what computes (``gpu``, ``cpu``) or ``host``: what CPUs and memory use is a second account.
    ``max_watts`` is the most that the device can draw: readings beyond it are none.
    """

    id: str
    name: str | None = None
    uuid: str | None = None
    backend: str | None = None
    source: str | None = None
    gain_error: float | None = None
    kind: str = "gpu"
    max_watts: float | None = None


class Header(msgspec.Struct, frozen=True, gc=False, tag="header", omit_defaults=True):
    """First line of a timeline: its version, the devices, and how long the recorder waited for usage.

    ``resumed_ns``: an earlier recorder ended at this stamp without handing over; up to the first reading
    the energy of all devices is not known.
    """

    version: int
    devices: tuple[Device, ...] = ()
    unix_ns: Stamp | None = None
    t_ns: Stamp | None = None
    settle_s: float | None = None
    resumed_ns: Stamp | None = None


class Sample(msgspec.Struct, frozen=True, gc=False, tag="sample", omit_defaults=True):
    """One reading of one device: a cumulative counter (mJ) or an instantaneous power (mW)."""

    t_ns: Stamp
    device: str
    energy_mj: float | None = None
    power_mw: float | None = None
    source: str | None = None


class Arrive(msgspec.Struct, frozen=True, gc=False, tag="arrive"):
    """The request was sent to its backend, which computes on ``devices``.

    ``prompt_bytes``: of the prompt's text; ``prefix_bytes``: of these, how many an earlier prompt of the same
    backend and model began with; ``samples``: answers in one request (``n``). None: not known.
    """

    t_ns: Stamp
    request: str
    route: str = "chat"
    model: str | None = None
    stream: bool = False
    devices: tuple[str, ...] = ()
    tenant: str | None = None
    backend: str | None = None
    prompt_bytes: Count | None = None
    prefix_bytes: Count | None = None
    samples: Count | None = None


class Output(msgspec.Struct, frozen=True, gc=False, tag="output"):
    """One streamed chunk left the engine; ``tokens`` new tokens in it (None: not known)."""

    t_ns: Stamp
    request: str
    tokens: Count | None = None


class End(msgspec.Struct, frozen=True, gc=False, tag="end"):
    """The answer ended, or the client left (``cancelled``). Token counts are None where unknown."""

    t_ns: Stamp
    request: str
    status: int | None = None
    cancelled: bool = False
    prompt_tokens: Count | None = None
    cached_tokens: Count | None = None
    completion_tokens: Count | None = None
    units: Units | None = None


class Step(msgspec.Struct, frozen=True, gc=False, tag="step"):
    """Engine evidence: one scheduler step over [start_ns, t_ns)."""

    t_ns: Stamp
    backend: str | None
    devices: tuple[str, ...]
    start_ns: Stamp
    prefill: dict[str, Count] = {}
    decode: tuple[str, ...] = ()


class Span(msgspec.Struct, frozen=True, gc=False, tag="span"):
    """Engine evidence: the phases of one request, on the timeline's clock.

    Of a job, whose work goes on after its response, ``first_token_ns`` is when its work began, and ``end_ns``
    when it is expected to end; a later span replaces it.
    """

    t_ns: Stamp
    request: str
    queued_ns: Stamp | None = None
    first_token_ns: Stamp | None = None
    end_ns: Stamp | None = None


class Outside(msgspec.Struct, frozen=True, gc=False, tag="outside", omit_defaults=True):
    """Evidence of work that did not pass through: over [start_ns, t_ns) it was ``share`` of the devices'.

    ``share`` 0: all of it passed through. ``reason`` says what told so.
    """

    t_ns: Stamp
    start_ns: Stamp
    devices: tuple[str, ...]
    share: float
    reason: str | None = None


Event = Header | Sample | Arrive | Output | End | Step | Span | Outside
