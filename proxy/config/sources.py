"""The register of energy sources, and the grammar of ``--source``.

A new source costs one module in ``proxy/energy/sources`` and one entry in ``SOURCES``. The entry names the
module's factory as text, like an entry point of a package, because relay workers and the supervisor read
settings without importing a sensor's library. ``--source``, its help text, the errors of settings and the
table in ``docs/sensors.md`` are made from the register; ``docs/extending.md`` shows an example.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from proxy import inputs
from proxy.config.records import ConfigError
from proxy.inputs import InputError

AUTO: Final = "auto"
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class SourceKind:
    """One kind of energy source.

    Attributes:
        name: The word before the colon in ``--source``.
        factory: ``MODULE:FUNCTION``; the function takes :class:`~proxy.energy.source.SourceOptions` and
            returns a :class:`~proxy.energy.source.Source` that is not open yet.
        measures: What its readings are: ``counter`` (cumulative energy) or ``power``, or both in words.
        reads: What it reads, for the table in ``docs/sensors.md``.
        use: When to use it, for the same table.
        argument: Syntax of the argument after the colon, as ``URL``; empty: it has none.
        usage: Short form of the argument for ``--help``; default: ``argument``.
        argument_optional: The source can also be used without its argument.
        check: Raises ``InputError`` for an argument that cannot be right. Nothing is opened by it.
        selects_devices: Without an argument it applies ``--devices`` itself; of other sources all devices
            are opened and those not selected are dropped.
    """

    name: str
    factory: str
    measures: str
    reads: str
    use: str = ""
    argument: str = ""
    usage: str = ""
    argument_optional: bool = False
    check: Callable[[str], object] | None = None
    selects_devices: bool = False

    @property
    def syntax(self) -> str:
        """The kind with its argument as ``--help`` shows it: ``agent:URL``, ``zeus[:HOST:PORT]``."""
        argument = self.usage or self.argument
        if not argument:
            return self.name
        return f"{self.name}[:{argument}]" if self.argument_optional else f"{self.name}:{argument}"


def _check_prometheus(argument: str) -> None:
    """Check the URL of ``URL[#METRIC=UNIT]``."""
    inputs.parse_page(argument.partition("#")[0])


SOURCES: Final[dict[str, SourceKind]] = {
    kind.name: kind
    for kind in (
        SourceKind(
            "nvml",
            "proxy.energy.sources.nvml:create",
            "counter, else power",
            "NVIDIA GPUs of this host",
            selects_devices=True,
        ),
        SourceKind(
            "zeus",
            "proxy.energy.sources.zeus:create",
            "counter",
            "GPUs that Zeus finds, including AMD, else the SoC (Apple, Jetson); with an argument the GPUs of "
            "a zeusd on another host (token: `ZEUSD_TOKEN`)",
            "`pip install 'jouleproxy[zeus]'`",
            argument="HOST:PORT",
            argument_optional=True,
            check=inputs.parse_address,
            selects_devices=True,
        ),
        SourceKind(
            "rapl",
            "proxy.energy.sources.zeus:create_rapl",
            "counter",
            "CPU packages and DRAM (found by Zeus)",
            "see `--host-energy`",
        ),
        SourceKind(
            "prometheus",
            "proxy.energy.sources.prometheus:create",
            "counter or power",
            "an exporter (DCGM, Kepler, any metric), or a Prometheus server",
            "metrics that are scraped already",
            argument="URL[#METRIC=UNIT]",
            usage="URL",
            check=_check_prometheus,
        ),
        SourceKind(
            "agent",
            "proxy.energy.sources.agent:create",
            "as its own source",
            "a `jouleproxy agent` on another host",
            "the proxy does not run on the GPU host",
            argument="URL",
            check=inputs.parse_url,
        ),
        SourceKind(
            "estimate",
            "proxy.energy.sources.estimate:create",
            "power",
            "utilisation of this host times the given watts: **not a measurement**",
            "no sensor at all",
            argument="cpu=[IDLE..]FULL",
            usage="cpu=WATTS",
        ),
        SourceKind(
            "replay",
            "proxy.energy.sources.replay:create",
            "as recorded",
            "a recorded timeline",
            "tests",
            argument="FILE",
        ),
        SourceKind(
            "simulated",
            "proxy.energy.sources.simulated:create",
            "counter",
            "the devices of a simulator",
            "tests",
            argument="FILE",
        ),
    )
}


def names() -> tuple[str, ...]:
    """Return all words that may begin a source: ``auto``, the kinds of the register, ``none``."""
    return (AUTO, *SOURCES, NONE)


def syntaxes() -> tuple[str, ...]:
    """Return the syntax of all sources, as ``--help`` shows them."""
    return (AUTO, *(kind.syntax for kind in SOURCES.values()), NONE)


def split_sources(text: str) -> tuple[tuple[str, str], ...]:
    """Return kind and argument of each source of a comma-separated list.

    A comma within an argument stays: only one before the name of a source separates two of them.

    Raises:
        ConfigError: for an unknown kind, a missing or superfluous argument, or one that cannot be right.
    """
    found = []
    known = names()
    for part in re.split(rf",(?=(?:{_alternatives(known)})(?:[:,]|$))", text):
        name, _, argument = part.partition(":")
        if name not in known:
            raise ConfigError(f"source: {name!r} is not one of {', '.join(known)}")
        _check_argument(name, argument)
        found.append((name, argument))
    if len(found) > 1 and any(name == NONE for name, _ in found):
        raise ConfigError("source: none is not one of several: leave it or the others out")
    return tuple(found)


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in words)


def _check_argument(name: str, argument: str) -> None:
    """Reject an argument that no source could use; whether anything answers there is found at opening."""
    kind = SOURCES.get(name)
    needed = kind is not None and bool(kind.argument)
    if bool(argument) != needed and not (kind is not None and kind.argument_optional):
        raise ConfigError(f"source: {name} takes {'an' if needed else 'no'} argument")
    if kind is None or kind.check is None or not argument:
        return
    try:
        kind.check(argument)
    except InputError as error:
        raise ConfigError(f"{name}: {error}") from error
