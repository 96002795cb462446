"""The wire contract: what leaves the product, in one place.

Every exporter, the admin port and the load generator speak these records. Units are in the names; a
field that is ``None`` is *not known*, which is never the same as zero.
"""

from typing import Final

import msgspec

ENERGY_HEADER: Final = "x-energy"
ENERGY_JOULES_HEADER: Final = "x-energy-joules"
REQUEST_ID_HEADER: Final = "x-request-id"

ROUTES: Final = (
    "chat",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "rerank",
    "images",
    "videos",
    "audio",
)


def not_measured(source: str | None) -> str | None:
    """``simulated`` or ``estimate`` where (a part of) a source is no measurement; None where it is one."""
    return next((word for word in ("simulated", "estimate") if word in (source or "")), None)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the joules of one request went; the sum is the request's joules.

    ``idle`` is other than zero only under a policy that charges idle energy by name.
    """

    static: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    context: float = 0.0
    idle: float = 0.0


class Units(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a request produced where tokens are not the unit (images, videos)."""

    images: int | None = None
    pixels: int | None = None
    steps: int | None = None
    frames: int | None = None


class RequestEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its joules.

    ``joules_low``/``joules_high`` bound a 90 % interval. ``source`` names the energy reading
    (``nvml``, ``simulated``, ...), ``policy`` the rule of sharing, ``evidence`` what was known of the
    engine: ``steps``, ``chunks``, ``usage``, ``arrivals`` (``compressed``: the answer's tokens could not
    be read). ``unknown`` holds the reason why joules are missing or incomplete: with ``joules`` null
    nothing was measured; with ``joules`` a number and ``joules_high`` null only a part of the
    request's life was, and ``joules`` is that part. ``final`` is false while windows that cover the
    request are still open.
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
    source: str | None = None
    final: bool = False
    unknown: str | None = None


class Gap(msgspec.Struct, frozen=True):
    """Time in which a device's energy is not known: [start_ns, end_ns), and why."""

    start_ns: int
    end_ns: int
    reason: str


class DeviceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one device over a span of time, in joules.

    Law: ``requests_joules + idle_joules + unattributed_joules == measured_joules``, the sum of the
    device's counter differences outside ``gaps``. ``open_joules`` was measured in the span but is in
    windows not closed yet; it is not part of ``measured_joules``.
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


class ModelTerms(msgspec.Struct, frozen=True, kw_only=True):
    """The fitted energy terms of one group: the answer to "where do the joules go".

    ``E = static_j*steps + decode_j*tokens + context_j*sum(context) + prefill_j*tokens + idle_w*s``.
    ``*_sd_*`` is a term's standard deviation, null where nothing of it was seen: one as large as its term
    says that this load does not tell it from another. ``r2`` is the share of window-energy variance
    explained; ``windows`` the effective number of windows behind the fit; ``age_s`` seconds since the last
    of them.
    """

    group: str
    static_j: float
    decode_j: float
    context_j: float
    prefill_j: float
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


_ENCODER: Final = msgspec.json.Encoder()
_RECORD: Final = msgspec.json.Decoder(RequestEnergy)


def encode(record: msgspec.Struct) -> bytes:
    """One record as compact JSON, without a newline."""
    return _ENCODER.encode(record)


def decode_request(data: bytes | str) -> RequestEnergy:
    """The record of its JSON; raises ``msgspec.ValidationError`` naming the field."""
    return _RECORD.decode(data)
