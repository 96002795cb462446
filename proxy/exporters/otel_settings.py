"""Settings of the OTLP export: ``--otlp`` and the ``OTEL_*`` variables, validated before the SDK reads them.

The SDK reads most of its settings from the environment itself, some during import, and raises for invalid
values. So the meter validates the variables first: an invalid or unsupported one is removed from its own
environment and reported in one line; the SDK honours the others. An empty variable counts as not set
(OpenTelemetry specification, "Environment variable specification").
"""

import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from proxy.config import ConfigError

SERVICE: Final = "jouleproxy"
_OTLP: Final = "OTEL_EXPORTER_OTLP"
_SIGNALS: Final = ("TRACES", "METRICS")
_PATHS: Final = {"TRACES": "/v1/traces", "METRICS": "/v1/metrics"}
_QUEUE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_QUEUE_DEFAULT: Final = 2048  # of the specification, as the batch
_BATCH_DEFAULT: Final = 512
_MOST: Final = 10_000_000  # plausible limit of spans in a queue, or bytes of a value
_DAY_MS: Final = 86_400_000
# A timeout of at least this is in milliseconds, as specified. Python's SDK reads seconds, so that smaller
# values exist in practice and are left as seconds.
_IN_MS: Final = 1_000
_FORM: Final = "must be http://HOST[:PORT] or https://HOST[:PORT] of a receiver of OTLP over HTTP (port 4318)"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Check = Callable[[str], str | None]  # returns the rule that a value violates, or None


def _number(least: float, most: float) -> Check:
    def check(text: str) -> str | None:
        try:
            fits = least <= float(text) <= most
        except ValueError:
            fits = False
        return None if fits else f"must be a number from {least:g} to {most:g}"

    return check


def _integer(least: int, most: int = _MOST) -> Check:
    def check(text: str) -> str | None:
        fits = text.isascii() and text.isdigit() and least <= int(text) <= most
        return None if fits else f"must be a whole number from {least} to {most}"

    return check


def _one_of(*values: str) -> Check:
    return lambda text: None if text.lower() in values else f"must be one of {', '.join(values)}"


def _file(text: str) -> str | None:
    return None if Path(text).is_file() else "must be a file that exists"


def _checks() -> dict[str, Check]:
    """Return the check of each variable whose value can be validated alone."""
    found: dict[str, Check] = {
        _QUEUE: _integer(1),
        _BATCH: _integer(1),
        "OTEL_BSP_SCHEDULE_DELAY": _integer(1, _DAY_MS),
        "OTEL_BSP_EXPORT_TIMEOUT": _integer(1, _DAY_MS),
        "OTEL_METRIC_EXPORT_INTERVAL": _number(1, _DAY_MS),
        "OTEL_METRIC_EXPORT_TIMEOUT": _number(1, _DAY_MS),
        "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("always_on", "always_off", "trace_based"),
        f"{_OTLP}_METRICS_TEMPORALITY_PREFERENCE": _one_of("cumulative", "delta", "lowmemory"),
        f"{_OTLP}_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
            "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
        ),
    }
    for prefix in ("OTEL_", "OTEL_SPAN_", "OTEL_EVENT_", "OTEL_LINK_"):
        found[f"{prefix}ATTRIBUTE_COUNT_LIMIT"] = _integer(0)
        found[f"{prefix}ATTRIBUTE_VALUE_LENGTH_LIMIT"] = _integer(0)
    for name in ("OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"):
        found[name] = _integer(0)
    for prefix in (_OTLP, *(f"{_OTLP}_{signal}" for signal in _SIGNALS)):
        found[f"{prefix}_TIMEOUT"] = _number(0.001, _DAY_MS)
        found[f"{prefix}_COMPRESSION"] = _one_of("none", "gzip", "deflate")
        for file in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
            found[f"{prefix}_{file}"] = _file
    return found


_CHECKS: Final = _checks()
_UNSUPPORTED: Final = {
    "OTEL_TRACES_SAMPLER": "a request is exported unless the sampled flag of its client's traceparent is 0",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "name resources by OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_CONFIG_FILE": "use the variables",
    "OTEL_EXPERIMENTAL_CONFIG_FILE": "use the variables",
}


@dataclass(frozen=True, slots=True)
class OtelSettings:
    """The validated settings.

    Attributes:
        traces: Full URL for spans; None: they are not exported.
        metrics: Full URL for metrics; None: they are not exported.
        service: Value of the resource attribute ``service.name``.
        variables: The valid ``OTEL_*`` variables.
        notices: One line for each variable that is invalid or not supported.
    """

    traces: str | None = None
    metrics: str | None = None
    service: str = SERVICE
    variables: Mapping[str, str] | None = None
    notices: tuple[str, ...] = ()

    def apply(self, environ: MutableMapping[str, str]) -> None:
        """Replace the ``OTEL_*`` variables of ``environ`` by the valid ones."""
        for name in [name for name in environ if name.startswith("OTEL_")]:
            del environ[name]
        environ.update(self.variables or {})


def read(endpoint: str | None, environ: Mapping[str, str]) -> OtelSettings:
    """Return the validated settings.

    Args:
        endpoint: Base URL of ``--otlp``, which takes precedence over the variables of endpoints, or None.
        environ: Environment variables.

    Raises:
        ConfigError: if ``endpoint`` is not a usable URL.
    """
    variables = {
        name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()
    }
    notices: list[str] = []
    urls = _of_option(endpoint, notices) if endpoint is not None else _of_variables(variables, notices)
    if not any(urls.values()):
        return OtelSettings(variables=variables, notices=tuple(notices))
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return OtelSettings(
            variables=variables, notices=("OTEL_SDK_DISABLED=true: nothing is exported by OTLP",)
        )
    for signal in _SIGNALS:
        if urls[signal] is not None and not _is_supported(signal, variables, notices):
            urls[signal] = None
    _drop_bad(variables, notices)
    _fit_batch(variables, notices)
    return OtelSettings(
        urls["TRACES"], urls["METRICS"], _service(variables), variables, tuple(dict.fromkeys(notices))
    )


def check_endpoint(text: str) -> str:
    """Return a base URL without the path of a signal; raises ``ValueError`` with the rule it violates."""
    url = _url(text)
    path = url.path.rstrip("/")
    for end in _PATHS.values():
        path = path.removesuffix(end)
    return url._replace(path=path.rstrip("/"), fragment="").geturl()


def _url(text: str) -> SplitResult:
    try:
        url = urlsplit(text.strip())
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable or any(c.isspace() for c in text.strip()):
        raise ValueError(_FORM)
    return url


def _of_option(endpoint: str, notices: list[str]) -> dict[str, str | None]:
    try:
        base = check_endpoint(endpoint)
    except ValueError as error:
        raise ConfigError(f"otlp: {endpoint!r} {error}") from error
    if base != endpoint.strip().rstrip("/"):
        notices.append(
            f"--otlp names the base URL: spans go to {base}/v1/traces, metrics to {base}/v1/metrics"
        )
    return {signal: f"{base}{path}" for signal, path in _PATHS.items()}


def _of_variables(variables: dict[str, str], notices: list[str]) -> dict[str, str | None]:
    urls: dict[str, str | None] = dict.fromkeys(_SIGNALS)
    for signal, path in _PATHS.items():
        own, base = f"{_OTLP}_{signal}_ENDPOINT", f"{_OTLP}_ENDPOINT"
        name = own if own in variables else base
        if name not in variables:
            continue
        try:
            text = variables[name]
            urls[signal] = _url(text).geturl() if name == own else check_endpoint(text) + path
        except ValueError as error:
            notices.append(f"{name}={variables[name]!r} {error}: nothing is exported there")
    return urls


def _is_supported(signal: str, variables: Mapping[str, str], notices: list[str]) -> bool:
    """Return whether a signal is to be exported by a protocol that is supported."""
    name = f"OTEL_{signal}_EXPORTER"
    exporters = [part.strip().lower() for part in variables.get(name, "otlp").split(",")]
    if "otlp" not in exporters:
        if exporters != ["none"]:
            notices.append(f"{name}={variables[name]!r} is not supported: otlp or none")
        return False
    own, general = f"{_OTLP}_{signal}_PROTOCOL", f"{_OTLP}_PROTOCOL"
    name = own if own in variables else general
    protocol = variables.get(name, "http/protobuf").lower()
    if protocol != "http/protobuf":
        notices.append(
            f"{name}={variables[name]!r} is not supported, nothing is exported by it: use http/protobuf"
        )
    return protocol == "http/protobuf"


def _drop_bad(variables: dict[str, str], notices: list[str]) -> None:
    """Remove invalid and unsupported variables, with one line for each; convert timeouts to seconds."""
    for name, value in list(variables.items()):
        if name in _UNSUPPORTED or name.startswith("OTEL_PYTHON_"):
            notices.append(f"{name} is not supported: {_UNSUPPORTED.get(name, 'ignored')}")
            del variables[name]
        elif (wrong := _CHECKS[name](value) if name in _CHECKS else None) is not None:
            notices.append(f"{name}={value!r} {wrong}: the default is used")
            del variables[name]
        elif name.endswith("_TIMEOUT") and name.startswith(_OTLP) and float(value) >= _IN_MS:
            variables[name] = f"{float(value) / _IN_MS:g}"
        elif name.endswith("_HEADERS") and name.startswith(_OTLP):
            _keep_pairs(variables, name, notices, lambda key: _TOKEN.fullmatch(key) is not None)
        elif name == "OTEL_RESOURCE_ATTRIBUTES":
            _keep_pairs(variables, name, notices, bool)


def _keep_pairs(
    variables: dict[str, str], name: str, notices: list[str], usable: Callable[[str], bool]
) -> None:
    """Keep the ``key=value`` entries of a list; the notice shows no values, which may be secrets."""
    parts = [part.strip() for part in variables[name].split(",") if part.strip()]
    kept = [part for part in parts if "=" in part and usable(part.partition("=")[0].strip())]
    if len(kept) < len(parts):
        notices.append(f"{name}: {len(parts) - len(kept)} of {len(parts)} entries are not key=value: ignored")
    variables[name] = ",".join(kept)


def _fit_batch(variables: dict[str, str], notices: list[str]) -> None:
    """Limit the batch of spans to the queue, as the SDK requires."""
    queue = int(variables.get(_QUEUE, _QUEUE_DEFAULT))
    if int(variables.get(_BATCH, _BATCH_DEFAULT)) > queue:
        if _BATCH in variables:
            notices.append(f"{_BATCH}={variables[_BATCH]} is more than the queue holds: {queue} is used")
        variables[_BATCH] = str(queue)


def _service(variables: Mapping[str, str]) -> str:
    """Return ``OTEL_SERVICE_NAME``, else ``service.name`` of the resource attributes, else ``jouleproxy``."""
    pairs = (part.partition("=") for part in variables.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    named = {key.strip(): value.strip() for key, _, value in pairs}
    return variables.get("OTEL_SERVICE_NAME") or named.get("service.name") or SERVICE
