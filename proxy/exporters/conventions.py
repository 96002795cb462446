"""Names of OpenTelemetry attributes, and the field of a record that each contains. Independent of the SDK.

Sources: the GenAI semantic conventions (repository semantic-conventions-genai, status Development, as of
    1.38)
and those of hardware (``hw.*``). No convention exists for ``energy.*``. A field that is not known is omitted.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from proxy.exporters.base import Finished
from proxy.schema import Parts, RequestEnergy

Value = str | bool | int | float | Sequence[str]
Attributes = dict[str, Value]

OPERATIONS: Final = {
    "chat": "chat",
    "completions": "text_completion",
    "responses": "chat",
    "messages": "chat",
    "embeddings": "embeddings",
}
_OUTPUT_TYPES: Final = {"images": "image", "videos": "video", "audio": "speech"}
_PIXELS: Final = ("images", "videos")
SECONDS_BUCKETS: Final = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
TTFT_BUCKETS: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
TPOT_BUCKETS: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKEN_BUCKETS: Final = (
    1,
    4,
    16,
    64,
    256,
    1024,
    4096,
    16384,
    65536,
    262144,
    1048576,
    4194304,
    16777216,
    67108864,
)
Server = tuple[str, int | None]


def operation_of(record: RequestEnergy) -> str:
    """Return ``gen_ai.operation.name`` for the route of a record."""
    return OPERATIONS.get(record.route, "generate_content")


def request_attributes(finished: Finished) -> Attributes:
    """Return the attributes of the SERVER span: HTTP only, since tokens and joules are on its child."""
    return known(
        {
            "http.request.method": finished.start.method,
            "url.path": finished.start.path,
            "http.response.status_code": finished.record.status,
            "error.type": finished.end.error_type,
            "jouleproxy.request_id": finished.record.request_id,
        }
    )


def call_attributes(finished: Finished, server: Server | None) -> Attributes:
    """Return the attributes of the CLIENT span, the model call, without its energy."""
    record, start, ended = finished.record, finished.start, finished.end
    return known(
        {
            **_common(finished, server),
            "gen_ai.request.stream": record.stream,
            "gen_ai.request.max_tokens": start.max_tokens,
            "gen_ai.response.id": ended.response_id,
            "gen_ai.response.finish_reasons": list(ended.finish_reasons) or None,
            "gen_ai.response.time_to_first_chunk": record.ttft_s,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
            "gen_ai.output.type": _OUTPUT_TYPES.get(record.route, "text"),
        }
    )


def metric_attributes(
    finished: Finished, server: Server | None, models: tuple[str | None, str | None]
) -> Attributes:
    """Return the attributes of the metrics ``gen_ai.*``.

    Args:
        finished: The final record.
        server: Address and port of the backend.
        models: Models of request and response, limited in number.
    """
    common = _common(finished, server)
    common["gen_ai.request.model"], common["gen_ai.response.model"] = models
    return known(common)


def _common(finished: Finished, server: Server | None) -> dict[str, Value | None]:
    record, start = finished.record, finished.start
    host, port = server or (None, None)
    return {
        "gen_ai.operation.name": operation_of(record),
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": finished.end.response_model,
        "server.address": start.server_address or host,
        "server.port": start.server_port or port,
        "error.type": finished.end.error_type,
    }


def energy_attributes(record: RequestEnergy) -> Attributes:
    """Return the attributes of the CLIENT span that describe the energy and how it was determined."""
    parts = record.parts
    joules, tokens = record.joules, record.output_tokens
    return known(
        {
            "energy.joules": joules,
            "energy.joules.low": record.joules_low,
            "energy.joules.high": record.joules_high,
            "energy.static.joules": parts.static if parts else None,
            "energy.prefill.joules": parts.prefill if parts else None,
            "energy.decode.joules": parts.decode if parts else None,
            "energy.context.joules": parts.context if parts else None,
            "energy.unseparated.joules": (parts.unseparated or None) if parts else None,
            "energy.joules_per_output_token": joules / tokens if joules is not None and tokens else None,
            "energy.policy": record.policy,
            "energy.evidence": record.evidence,
            "energy.engines": record.engines,
            "energy.cached_from": record.cached_from,
            "energy.source": record.source,
            "energy.devices": list(record.devices) or None,
            "energy.unknown": record.unknown,
        }
    )


def phases_of(finished: Finished) -> list[tuple[str, int, int, float | None]]:
    """Return (name, start ns, end ns, joules) of each phase whose times are known.

    The joules are those that belong to one phase for certain: prompt tokens, or output tokens with their
    context. The static part belongs to both phases and stays with the call. Images have one phase.
    """
    record, first = finished.record, finished.first_output_ns
    begin, end = finished.start.arrive.t_ns, finished.end.end.t_ns
    parts = record.parts
    if record.route in _PIXELS:
        return [("denoise", begin, end, record.joules)]
    if first is None:
        return []
    return [
        ("prefill", begin, first, parts.prefill if parts else None),
        ("decode", first, end, _decoding_of(parts)),
    ]


def _decoding_of(parts: Parts | None) -> float | None:
    """Return the joules of output tokens and of the context read for them; None if either is not known."""
    if parts is None or parts.decode is None or parts.context is None:
        return None
    return parts.decode + parts.context


def hardware_attributes(device: str, name: str | None, kind: str) -> Attributes:
    """Return the attributes of ``hw.energy`` and ``hw.power``; CPUs and memory of a host are one ``cpu``."""
    return known({"hw.id": device, "hw.name": name, "hw.type": "gpu" if kind == "gpu" else "cpu"})


def known(attributes: Mapping[str, Value | None]) -> Attributes:
    """Return the attributes that have a value."""
    return {key: value for key, value in attributes.items() if value is not None}
