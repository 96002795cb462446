"""Configuration: flags, environment variables and a TOML file in, validated frozen records out.

Reading order:

- ``records``: the dataclasses ``Config``, ``RelayConfig``, ``MeterConfig``, ``Backend`` and their defaults.
- ``sources``: the register of energy sources, and the grammar of ``--source``.
- ``settings``: reads and validates flags, environment and file; every option is declared there once.
- ``origin``: turns the URL and certificates of a backend into an address and a TLS context.
"""

from proxy.config.records import (
    Address,
    Backend,
    Config,
    ConfigError,
    EnergyInResponse,
    HostEnergy,
    LogLevel,
    MeterConfig,
    Policy,
    RelayConfig,
    Sticky,
    Usage,
)

__all__ = [
    "Address",
    "Backend",
    "Config",
    "ConfigError",
    "EnergyInResponse",
    "HostEnergy",
    "LogLevel",
    "MeterConfig",
    "Policy",
    "RelayConfig",
    "Sticky",
    "Usage",
]
