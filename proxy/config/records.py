"""The configuration as frozen records, with the default of each field.

Precedence: flag, environment (``JOULEPROXY_*``), file (TOML), default. An unknown key of the file is an
error, an unknown variable a warning. The tables of the file are the records below: ``[relay]``, ``[meter]``,
``[[backends]]``; every field is also a key outside a table, a flag and a variable.
:mod:`proxy.config.settings` reads them.
"""

from dataclasses import dataclass, field
from typing import Literal

EnergyInResponse = Literal["off", "on", "wait"]
HostEnergy = Literal["off", "reported", "attributed"]
Policy = Literal["steps", "tokens", "overlap"]
Sticky = Literal["off", "session", "prefix"]
Usage = Literal["ask", "keep"]
LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigError(ValueError):
    """A setting cannot be used; the message is one line: the key, the given value, the correct form."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One upstream server: its URL, and the devices it computes on (ids; empty: all found)."""

    url: str
    name: str = ""  # default: host:port of the URL
    devices: tuple[str, ...] = ()
    models: tuple[str, ...] = ()  # empty: those of its /v1/models, or any if it has none
    ca_file: str | None = None
    verify_tls: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """The data plane. Seconds and bytes; every timeout has a name of its own."""

    listen: Address = Address("127.0.0.1", 9000)
    workers: int = 1
    energy_in_response: EnergyInResponse = "off"
    energy_wait_seconds: float = 2.0
    usage: Usage = "ask"  # `ask`: request token counts of streams; `keep`: never change a body
    tls_certificate: str | None = None
    tls_key: str | None = None
    connect_timeout_seconds: float = 5.0
    head_timeout_seconds: float = 10.0  # client: time to send its request head
    body_timeout_seconds: float = 60.0  # client: longest silence while sending its body
    first_byte_timeout_seconds: float = 600.0  # backend: request sent to first response byte
    stall_timeout_seconds: float = 300.0  # backend: longest silence within a response
    write_timeout_seconds: float = 120.0  # client: longest time without reading
    client_idle_timeout_seconds: float = 75.0
    tunnel_idle_timeout_seconds: float = 600.0  # WebSocket: longest silence of both sides
    linger_timeout_seconds: float = 2.0  # how long a refused client may continue to send
    upstream_idle_timeout_seconds: float = 4.0  # uvicorn, node and llama.cpp close after 5
    drain_timeout_seconds: float = 30.0
    max_head_bytes: int = 65_536
    max_body_bytes: int = 1_073_741_824
    high_water_bytes: int = 262_144
    event_buffer_messages: int = 65_536
    tenant_header: str | None = None
    # Used with several backends only.
    sticky: Sticky = "off"
    session_header: str = "x-session-id"  # sticky = session; else the body's prompt_cache_key, else its user
    sticky_prefix_bytes: int = 1024  # sticky = prefix: length of the beginning of the messages, as JSON
    sticky_load_factor: float = 1.25  # limit of a backend's sticky requests, relative to an equal share
    health_checks: bool = True
    health_path: str = "/health"
    health_interval_seconds: float = 5.0
    health_timeout_seconds: float = 2.0
    health_failures: int = 3  # failed checks in a row until it is down
    health_successes: int = 2  # successful checks in a row until it is up
    models_interval_seconds: float = 60.0  # how often /v1/models is read
    eject_failures: int = 3  # failed requests in a row until it is ejected
    eject_seconds: float = 1.0  # first ejection; doubled each time, up to
    eject_max_seconds: float = 30.0
    slow_start_seconds: float = 10.0  # time until a new or recovered backend gets its full share; 0: none
    job_poll_seconds: float = 5.0  # a video that no client polled for so long is polled; 0: never
    job_timeout_seconds: float = 3600.0  # without any state of a video: its record ends


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """The control plane: source, policy, exporters, admin port."""

    admin: Address = Address("127.0.0.1", 9001)
    admin_token: str | None = None
    source: str = "auto"  # see proxy.config.sources; several are comma-separated
    devices: str = "auto"  # auto | none | indices or UUIDs, comma-separated
    host_energy: HostEnergy = "off"  # CPUs and memory: a separate account, or also attributed
    agent_token: str | None = None  # of the agents that are read
    policy: Policy = "steps"
    sample_hz: float = 20.0
    settle_seconds: float = 120.0  # longest wait of a window for the usage of its requests
    reorder_seconds: float = 0.05  # time for which events are held to order them
    record: str | None = None
    ledger: str | None = None
    ledger_max_bytes: int = 1_073_741_824  # size at which FILE becomes FILE.1, and so on
    otlp: str | None = None
    keep_records: int = 100_000


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of ``jouleproxy serve``."""

    backends: tuple[Backend, ...]
    relay: RelayConfig = field(default_factory=RelayConfig)
    meter: MeterConfig = field(default_factory=MeterConfig)
    log_level: LogLevel = "info"
    check_upstream: bool = True  # an unreachable backend at start is an error
