"""The records that leave the program: the contract of admin port, ledger file, exporters and load generator.

Units are in the names. A field that is ``None`` is *unknown*, which is never the same as zero.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Self

import msgspec

ENERGY_HEADER: Final = "x-energy"
ENERGY_JOULES_HEADER: Final = "x-energy-joules"
REQUEST_ID_HEADER: Final = "x-request-id"


class Unknown(StrEnum):
    """Why joules are missing, incomplete or uncertain: the values of ``unknown`` and of a gap's ``reason``.

    The table in ``docs/telemetry.md`` is made from the members. Readers accept other values: an older program
    may read the file of a newer one.

    Attributes:
        meaning: One sentence for users.
        remedy: What a user can do about it, in Markdown with links relative to ``docs``.
    """

    meaning: str
    remedy: str

    def __new__(cls, value: str, meaning: str, remedy: str) -> Self:
        """Return a member whose string is ``value``."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        return member

    NO_ENERGY_SOURCE = (
        "no_energy_source",
        "No energy source is configured or found.",
        "Run `jouleproxy devices`; see [sensors](sensors.md).",
    )
    NO_DEVICE = (
        "no_device",
        "The backend is mapped to no measured device.",
        "Set `devices` of the backend.",
    )
    NO_SAMPLES = (
        "no_samples",
        "A device of the request gave no reading, or none for too long.",
        "Look at the log and `left_out` in `/energy/devices`.",
    )
    BEFORE_FIRST_SAMPLE = (
        "before_first_sample",
        "The request started before the first reading of a device.",
        "Nothing: it occurs after a start of the meter.",
    )
    AFTER_LAST_SAMPLE = (
        "after_last_sample",
        "The request ended after the last reading of a device.",
        "Check whether the device or its exporter is lost.",
    )
    NO_LONGER_KEPT = (
        "no_longer_kept",
        "The requested time is older than what is kept in memory.",
        "Use the ledger file.",
    )
    COUNTER_RESET = (
        "counter_reset",
        "The energy counter went backwards; its count before that is lost.",
        "Nothing, if the driver was reloaded.",
    )
    COUNTER_JUMP = (
        "counter_jump",
        "The counter rose by more than the device can use, and continued from there.",
        "Check the driver; the power limits are in [sensors](sensors.md#readings-that-cannot-be-true).",
    )
    COUNTER_STUCK = (
        "counter_stuck",
        "The counter did not advance, and power is not known.",
        "Check the driver or exporter.",
    )
    IMPLAUSIBLE_READINGS = (
        "implausible_readings",
        "Only invalid readings for too long.",
        "Check the driver or exporter; `notes` in `/energy/devices`.",
    )
    METER_RESTARTED = (
        "meter_restarted",
        "The meter ended unexpectedly and was restarted.",
        "Look at the log.",
    )
    SAMPLING_GAP = (
        "sampling_gap",
        "Power readings are too far apart to be integrated.",
        "Let the exporter refresh more often.",
    )
    UNSEEN_TRAFFIC = (
        "unseen_traffic",
        "Requests that did not pass through the proxy shared the engine; the energy is an estimate.",
        "Route all traffic through the proxy.",
    )
    OTHER_PROCESSES = (
        "other_processes",
        "Other processes computed on a device; the energy is an estimate.",
        "Give the engine a device of its own.",
    )
    JOB_NOT_TRACKED = (
        "job_not_tracked",
        "The response was sent at once, and the work continued as a job whose end cannot be followed.",
        "Use the device accounts of the time.",
    )
    RUNNING = (
        "running",
        "The request has not ended.",
        "Wait.",
    )
    NOT_MEASURED_YET = (
        "not_measured_yet",
        "The request ended, and the next reading is awaited.",
        "Wait.",
    )
    METER_UNAVAILABLE = (
        "meter_unavailable",
        "The meter did not reply in time; only in a response, the record may have the energy.",
        "Request the record later; look at the log if it persists.",
    )
    NOT_KNOWN = (
        "not_known",
        "The meter has no record of the request.",
        "Check the id.",
    )
    BEGINNING_NOT_SEEN = (
        "beginning_not_seen",
        "The meter started, or lost events, after the request began.",
        "Nothing after a restart; else see `jouleproxy_events_dropped_total`.",
    )


def not_measured(source: str | None) -> str | None:
    """Return ``simulated`` or ``estimate`` if a part of the source is no measurement, else None."""
    return next((word for word in ("simulated", "estimate") if word in (source or "")), None)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The energy of one request by part, in joules; parts that are not None add up to the request's joules.

    A part is None if the data does not separate it from the others (a batch of constant size, a response of
    which no token was observed, windows that are still open); ``unseparated`` is the energy of all such parts
    together. ``idle`` is different from zero only under a policy that attributes idle energy explicitly.
    """

    static: float | None = 0.0
    prefill: float | None = 0.0
    decode: float | None = 0.0
    context: float | None = 0.0
    idle: float = 0.0
    unseparated: float = 0.0


def sum_parts(parts: Iterable[Parts]) -> Parts | None:
    """Sum the parts of several requests; None for no request.

    If only some requests have a part, it is the sum of these; the rest is in ``unseparated``.
    """
    sums: dict[str, float] = {}
    count = 0
    for one in parts:
        count += 1
        for name in Parts.__struct_fields__:
            value = getattr(one, name)
            if value is not None:
                sums[name] = sums.get(name, 0.0) + value
    if not count:
        return None
    return Parts(
        static=sums.get("static"),
        prefill=sums.get("prefill"),
        decode=sums.get("decode"),
        context=sums.get("context"),
        idle=sums["idle"],
        unseparated=sums["unseparated"],
    )


class Units(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The output of a request that is not counted in tokens (images, videos)."""

    images: int | None = None
    pixels: int | None = None
    steps: int | None = None
    frames: int | None = None
    seconds: float | None = None  # of video


class RequestEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its energy.

    Attributes:
        joules: The energy attributed to it; None: unknown.
        joules_low: Lower bound of the 90 % interval.
        joules_high: Upper bound of the 90 % interval.
        source: The energy source: ``nvml``, ``simulated``, ...
        policy: The rule of division.
        evidence: What was known of the engine: ``steps``, ``chunks``, ``usage``, ``arrivals``, or
            ``compressed`` if the tokens of the response could not be read.
        engines: How many engines were found behind the backend, each charged apart; None: not looked for, or
            several that could not be separated (the interval is wide).
        cached_from: Where the computed part of the prompt is known from: ``reported`` by the engine,
            ``estimated`` from earlier prompts that began alike and from the time of the engine's steps, or
            ``unknown``, where all of the prompt is taken to have been computed.
        unknown: Reason why the energy is missing or incomplete (:class:`Unknown`). With ``joules`` None
            nothing was measured. With ``joules_high`` None only a part of the request's time was measured,
            and ``joules`` is that part. With both, they are an estimate made uncertain by work that did not
            pass through the proxy.
        final: False while windows of its time are still open.
    """

    request_id: str
    trace_id: str | None = None
    span_id: str | None = None
    route: str = "chat"
    model: str | None = None
    backend: str | None = None
    tenant: str | None = None
    status: int | None = None
    stream: bool = False
    cancelled: bool = False
    start_unix_ns: int = 0
    duration_s: float | None = None
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    units: Units | None = None
    joules: float | None = None
    joules_low: float | None = None
    joules_high: float | None = None
    parts: Parts | None = None
    devices: dict[str, float] = {}
    policy: str = "steps"
    evidence: str = "none"
    engines: int | None = None
    cached_from: str = "unknown"
    source: str | None = None
    final: bool = False
    unknown: str | None = None


class Gap(msgspec.Struct, frozen=True):
    """Time [start_ns, end_ns) in which a device's energy is unknown, with a reason of :class:`Unknown`."""

    start_ns: int
    end_ns: int
    reason: str


class DeviceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one device over a span of time, in joules.

    Invariant: ``requests_joules + idle_joules + unattributed_joules == measured_joules``, the sum of the
    device's counter differences outside ``gaps``. ``open_joules`` was measured in the span but is in windows
    that are not closed yet; it is not included in ``measured_joules``. ``notes`` report irregular readings.
    """

    device: str
    name: str | None = None
    source: str | None = None
    measured_joules: float = 0.0
    requests_joules: float = 0.0
    idle_joules: float = 0.0
    unattributed_joules: float = 0.0
    open_joules: float = 0.0
    watts: float | None = None
    sample_age_s: float | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    gaps: tuple[Gap, ...] = ()
    notes: tuple[str, ...] = ()


class ModelTerms(msgspec.Struct, frozen=True, kw_only=True):
    """The fitted energy terms of one group.

    ``E = static_j*steps + decode_j*tokens + context_j*sum(context) + prefill_j*tokens + idle_w*s``.
    A term is None if the data does not determine it; ``*_sd_*`` is its standard deviation, None if nothing of
    the term was observed. ``unseparated`` lists the terms that were observed but cannot be separated under
    this load (their parts are None in records, too). ``r2`` is the explained share of the variance of window
    energies, ``windows`` the effective number of windows in the fit, ``age_s`` the seconds since the last of
    them; ``prior`` is true while there is too little data to rely on any of it. ``devices`` are those whose
    energy the terms explain: of a backend with several engines, those of one of them.
    """

    group: str
    static_j: float | None
    decode_j: float | None
    context_j: float | None
    prefill_j: float | None
    idle_w: float | None
    r2: float | None
    windows: float = 0.0
    age_s: float | None = None
    prior: bool = False
    static_sd_j: float | None = None
    decode_sd_j: float | None = None
    context_sd_j: float | None = None
    prefill_sd_j: float | None = None
    idle_sd_w: float | None = None
    unseparated: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


_ENCODER: Final = msgspec.json.Encoder()
_RECORD: Final = msgspec.json.Decoder(RequestEnergy)


def encode(record: msgspec.Struct) -> bytes:
    """Return one record as compact JSON, without a line end."""
    return _ENCODER.encode(record)


def decode_request(data: bytes | str) -> RequestEnergy:
    """Decode a record; raises ``msgspec.ValidationError`` that names the field."""
    return _RECORD.decode(data)
