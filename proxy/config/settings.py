"""Merge flags, environment, TOML file and defaults into one :class:`~proxy.config.Config`.

Every field of the configuration's dataclasses is an :class:`Option`, and its type determines how a value is
parsed and validated; only the few options whose values have a grammar of their own are treated by name. All
errors are :class:`~proxy.config.ConfigError`: one line with the key, where it was given, and the correct
form.
"""

import dataclasses
import difflib
import ipaddress
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from proxy import inputs
from proxy.config.records import Address, Backend, Config, ConfigError, MeterConfig, RelayConfig
from proxy.config.sources import split_sources, syntaxes
from proxy.inputs import InputError

ENV_PREFIX: Final = "JOULEPROXY_"
_NOT_SETTINGS: Final = ("nvml_standin",)  # read by the substitute NVML library, not by the proxy
_TABLES: Final[dict[str, type]] = {"": Config, "relay": RelayConfig, "meter": MeterConfig}
_NOT_SIMPLE: Final = ("backends", "relay", "meter")
_SYNTAX: Final[dict[str, str]] = {
    "source": f"{', '.join(syntaxes()[:-1])} or {syntaxes()[-1]}",
    "listen": "HOST:PORT, as 127.0.0.1:9000",
    "admin": "HOST:PORT, as 127.0.0.1:9001",
}
_MAY_BE_0: Final = ("settle_seconds", "slow_start_seconds")
# Lowest and highest value of a number, by the end of its option's name. The bounds only reject typing errors:
# a timer that never sleeps, a size that no machine has, a value that overflows a type of the system.
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "_seconds": (0.001, inputs.MAX_SECONDS),
    "_bytes": (1, 2**40),
    "workers": (1, 1024),
    "sample_hz": (0.01, 1000),
    "": (1, 100_000_000),
}
# Variables that Kubernetes sets in each pod for a Service named jouleproxy or jouleproxy-NAME, unless the pod
# has enableServiceLinks: false.
_SERVICE_LINK: Final = re.compile(
    r"JOULEPROXY(_\w+)?(_SERVICE_(HOST|PORT(_\w+)?)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its name, its table in the file ("" for none), its type without ``None``, its default."""

    name: str
    table: str
    kind: Any
    default: object

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_duration(self) -> bool:
        """Whether it is a number of seconds, which may have a unit, as 500ms."""
        return self.kind is float and self.name.endswith("_seconds")

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words; empty for a value that is not one of several words."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()


def _options() -> dict[str, Option]:
    found = {}
    for table, owner in _TABLES.items():
        hints = typing.get_type_hints(owner)
        for field in dataclasses.fields(owner):
            if field.name not in _NOT_SIMPLE:
                kind = hints[field.name]
                if type(None) in typing.get_args(kind):
                    kind = typing.get_args(kind)[0]
                found[field.name] = Option(field.name, table, kind, field.default)
    return found


OPTIONS: Final = _options()


def _no_warning(_line: str) -> None:
    """Drop a warning."""


def load(
    flags: Mapping[str, str],
    environment: Mapping[str, str],
    read: Callable[[Path], bytes] = Path.read_bytes,
    warn: Callable[[str], None] = _no_warning,
) -> Config:
    """Return the configuration.

    Args:
        flags: The given flags by field name, also ``upstream`` and ``config``.
        environment: Environment variables.
        read: Reads the file; tests replace it.
        warn: Called with one line for each ``JOULEPROXY_*`` variable that is not a setting, because another
            program may own it.

    Raises:
        ConfigError: for a value that cannot be used, an unknown flag or key, or rules between settings.
    """
    variables = _variables(environment, warn)
    path = flags.get("config", variables.pop("config", None))
    if path is not None and not path.strip():
        raise ConfigError(
            f"{'--config' if 'config' in flags else 'JOULEPROXY_CONFIG'} '': must be a TOML file"
        )
    values, backends = _file(Path(path), read) if path is not None else ({}, ())
    for name, (text, where) in variables.items():
        if name != "upstream":
            values[name] = _parse(OPTIONS[name], text, where)
    for name, text in flags.items():
        if name in OPTIONS:
            values[name] = _parse(OPTIONS[name], text, OPTIONS[name].flag)
    if "upstream" in flags:
        backends = _upstreams(flags["upstream"], "--upstream")
    elif "upstream" in variables:
        backends = _upstreams(*variables["upstream"])
    if not backends:
        raise ConfigError("no backend: give --upstream URL, as --upstream http://127.0.0.1:8000")
    _check_names(backends)
    config = _build(values, backends)
    _check(config)
    return config


def _build(values: Mapping[str, Any], backends: tuple[Backend, ...]) -> Config:
    def of(table: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if OPTIONS[name].table == table}

    return Config(backends, RelayConfig(**of("relay")), MeterConfig(**of("meter")), **of(""))


def _variables(environment: Mapping[str, str], warn: Callable[[str], None]) -> dict[str, Any]:
    """Return given variables by field name: (text, where); ``config`` as its text."""
    found: dict[str, Any] = {}
    for key, text in environment.items():
        if not key.startswith(ENV_PREFIX):
            continue
        name = key.removeprefix(ENV_PREFIX).lower()
        if name in _NOT_SETTINGS or _is_service_link(key, text):
            continue
        if name == "config":
            found[name] = text
        elif name in OPTIONS or name == "upstream":
            found[name] = (text, key)
        else:
            known = [ENV_PREFIX + option.upper() for option in (*OPTIONS, "upstream", "config")]
            warn(f"environment variable {key} is not a setting and was ignored{nearest(key, known)}")
    return found


def _is_service_link(key: str, text: str) -> bool:
    """Return whether Kubernetes set this variable for a Service, as it does for all in the namespace."""
    return bool(_SERVICE_LINK.fullmatch(key) or (key.endswith("_PORT") and _SERVICE_URL.match(text)))


def _file(path: Path, read: Callable[[Path], bytes]) -> tuple[dict[str, Any], tuple[Backend, ...]]:
    """Return the values and backends of a TOML file."""
    try:
        content = tomllib.loads(inputs.decode_text(read(path)))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise ConfigError(f"{path}: not TOML: {error}") from error
    values: dict[str, Any] = {}
    tables = content.pop("backends", [])
    upstream = content.pop("upstream", None)
    for key, value in content.items():
        if key in _TABLES:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {key} = {value!r}: must be a table, begun with [{key}]")
            _add(values, value, key, path)
        else:
            _add(values, {key: value}, "", path)
    backends = _backends(tables, path)
    if upstream is not None:
        if backends:
            raise ConfigError(f"{path}: upstream and [[backends]] are both given: keep one of them")
        backends = _upstreams(upstream, f"{path}: upstream")
    return values, backends


def _add(values: dict[str, Any], given: Mapping[str, object], table: str, path: Path) -> None:
    for key, value in given.items():
        option = OPTIONS.get(key)
        if option is None or (table and option.table != table):
            names = [o.name for o in OPTIONS.values() if not table or o.table == table]
            names += [] if table else ["upstream", "backends", "relay", "meter"]
            where = f"[{table}] {key}" if table else key
            raise ConfigError(f"{path}: unknown key {where}{nearest(key, names)}")
        if key in values:
            raise ConfigError(f"{path}: {key} is given twice: inside [{option.table}] and outside")
        values[key] = _typed(option, value, f"{path}: {key}")


def _typed(option: Option, value: object, where: str) -> object:
    """Parse a TOML value of an option: of its type, or a string in the syntax of the flag."""
    if isinstance(value, bool):
        if option.kind is bool:
            return value
    elif isinstance(value, int | float) and option.kind in {int, float}:
        return _parse(option, repr(value), where)
    elif isinstance(value, str) and (option.is_duration or option.kind not in {int, float, bool}):
        return _parse(option, value, where)
    raise ConfigError(f"{where} = {value!r}: {_rule(option)}")


def _backends(tables: object, path: Path) -> tuple[Backend, ...]:
    if not isinstance(tables, list):
        raise ConfigError(f"{path}: backends is a list of tables, each begun with [[backends]]")
    names = [field.name for field in dataclasses.fields(Backend)]
    found = []
    for number, table in enumerate(tables, 1):
        where = f"{path}: [[backends]] {number}"
        if not isinstance(table, dict):
            raise ConfigError(f"{where} is not a table, begun with [[backends]]")
        for key, value in table.items():
            if key not in names:
                raise ConfigError(f"{where}: unknown key {key}{nearest(key, names)}")
            _check_field(key, value, where)
        if "url" not in table:
            raise ConfigError(f'{where}: url is missing, as url = "http://127.0.0.1:8000"')
        lists = {key: tuple(table[key]) for key in ("devices", "models") if key in table}
        found.append(_backend(Backend(**{**table, **lists}), f"{where}: url"))
    return tuple(found)


def _check_field(key: str, value: object, where: str) -> None:
    if key in {"devices", "models"}:
        right = isinstance(value, list) and all(isinstance(item, str) for item in value)
        what = 'a list of texts, as ["0"]'
    elif key == "verify_tls":
        right, what = isinstance(value, bool), "true or false"
    else:
        right, what = isinstance(value, str), "a text"
    if not right:
        raise ConfigError(f"{where}: {key} = {value!r}: must be {what}")


def _upstreams(given: object, where: str) -> tuple[Backend, ...]:
    """Return the backends of ``URL[,URL]`` or of a TOML list of URLs."""
    items = given.split(",") if isinstance(given, str) else given
    if not isinstance(items, list) or not items or not all(isinstance(i, str) and i.strip() for i in items):
        raise ConfigError(f"{where} {given!r}: must be URL[,URL], as http://127.0.0.1:8000")
    return tuple(_backend(Backend(url), where) for url in items)


def _backend(backend: Backend, where: str) -> Backend:
    """Return the backend with its URL in canonical form and its default name."""
    try:
        origin = inputs.parse_url(backend.url, unix=True)
    except InputError as error:
        raise ConfigError(f"{where} {inputs.shown_url(backend.url)!r}: {error}") from error
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    name = origin.url if origin.socket is not None else f"{host}:{origin.port}"
    return dataclasses.replace(backend, url=origin.url, name=backend.name or name)


def _check_names(backends: tuple[Backend, ...]) -> None:
    names = [backend.name for backend in backends]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"backend {name} is given twice: give each a name or a URL of its own")


def _parse(option: Option, text: str, where: str) -> object:
    """Parse the text of an option; raises :class:`ConfigError` that begins with ``where``."""
    try:
        return _value(option, text.strip())
    except ValueError as error:
        shown = "'***'" if option.name.endswith("_token") else repr(inputs.shown_url(text))
        reason = _rule(option)
        if isinstance(error, ConfigError | InputError):
            reason = f"{reason} ({error})" if option.name in _SYNTAX else str(error)
        raise ConfigError(f"{where} {shown}: {reason}") from error


def _value(option: Option, text: str) -> object:
    kind = option.kind
    if option.choices:
        if text.lower() not in option.choices:
            raise ValueError
        return text.lower()
    if kind is bool:
        return _boolean(text.lower())
    if kind is Address:
        return parse_address(text)
    if kind is int or kind is float:
        return _number(option, text)
    return _text(option.name, text)


def _text(name: str, text: str) -> str:
    """Validate a text that must not be empty by the grammar of its option."""
    if not text:
        raise ValueError
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise InputError("must be without line ends or other control characters")
    if name.endswith("_token"):
        return inputs.parse_key(text)
    if name.endswith("_header"):
        return inputs.parse_header_name(text)
    if name == "source":
        split_sources(text)
    if name == "otlp":
        return inputs.parse_url(text).url
    if name == "health_path" and not re.fullmatch(r"/[!-~]*", text):
        raise InputError("must begin with /, as /health, in printable ASCII without spaces")
    return text


def _boolean(text: str) -> bool:
    if text in {"true", "1", "on", "yes"}:
        return True
    if text in {"false", "0", "off", "no"}:
        return False
    raise ValueError


def _number(option: Option, text: str) -> int | float:
    """Parse a number within the option's range; seconds may have a unit, as ``500ms``."""
    value: float
    try:
        if option.is_duration and text[-1:].isalpha() and text[:1].isdecimal():
            value = inputs.parse_duration(text)
        else:
            value = inputs.parse_whole(text) if option.kind is int else inputs.parse_number(text)
    except InputError as error:
        raise ValueError from error  # _rule has more detail
    if value == 0 and option.name in _MAY_BE_0:
        return value
    low, high = next(bounds for end, bounds in _RANGES.items() if option.name.endswith(end))
    if value <= 0:
        raise ValueError
    if not low <= value <= high:
        raise ConfigError(f"must be from {low:g} to {high:g}")
    return value


def parse_address(text: str) -> Address:
    """Parse ``HOST:PORT`` or ``[IPV6]:PORT``; raises :class:`ConfigError`."""
    try:
        return Address(*inputs.parse_address(text))
    except InputError as error:
        raise ConfigError(str(error)) from error


def _rule(option: Option) -> str:
    """Return the rule for an option's value."""
    if option.choices:
        return f"must be one of {', '.join(option.choices)}"
    if option.name in _SYNTAX:
        return f"must be {_SYNTAX[option.name]}"
    return {
        int: "must be a whole number above 0",
        float: f"must be a number above 0{', or a duration as 500ms' if option.is_duration else ''}",
        bool: "must be true or false",
    }.get(option.kind, "must be a text that is not empty")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``: did you mean X?`` with the most similar known word; empty if none is similar."""
    found = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f": did you mean {found[0]}?" if found else ""


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this host only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may resolve to any address


def _check(config: Config) -> None:
    """Check the rules between settings; raises :class:`ConfigError`."""
    meter, relay = config.meter, config.relay
    if not is_loopback(meter.admin.host) and not meter.admin_token:
        raise ConfigError(
            f"--admin {meter.admin.host}:{meter.admin.port} is open beyond this host: give --admin-token, "
            "or listen on 127.0.0.1"
        )
    if meter.admin == relay.listen and relay.listen.port:
        raise ConfigError(
            f"--listen and --admin are both {meter.admin.host}:{meter.admin.port}: give each its own"
        )
    if relay.sticky_load_factor <= 1:
        raise ConfigError(f"sticky_load_factor {relay.sticky_load_factor:g}: must be above 1, as 1.25")
    if meter.record is not None and meter.record == meter.ledger:
        raise ConfigError(f"--record and --ledger are both {meter.record!r}: give each its own file")
    if (relay.tls_certificate is None) != (relay.tls_key is None):
        raise ConfigError("--tls-certificate and --tls-key go together: give both or neither")
