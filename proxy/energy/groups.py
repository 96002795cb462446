"""Which devices a backend computes on: what the configuration says, as device ids. Pure.

Several devices may serve one backend (tensor or pipeline parallel), and several backends may share one
device. A device that no backend names is measured and reported, and charged to no request.
"""

from collections.abc import Sequence

from proxy.config import Backend, ConfigError
from proxy.core.events import Device


def devices_by_backend(
    backends: Sequence[Backend], devices: Sequence[Device], *, host: bool = False
) -> dict[str, tuple[str, ...]]:
    """Device ids by backend name. A backend that names none computes on all GPUs found.

    ``host``: what the hosts use is charged to requests too. Raises :class:`ConfigError` for a device that
    was not found; nothing is checked where no device at all was found.
    """
    hosts = tuple(d.id for d in devices if d.kind == "host") if host else ()
    gpus = tuple(d.id for d in devices if d.kind != "host")
    found = {}
    for backend in backends:
        named = tuple(dict.fromkeys(_named(name, backend, devices) for name in backend.devices))
        found[backend.name or backend.url] = (named if named and devices else gpus) + hosts
    return found


def _named(name: str, backend: Backend, devices: Sequence[Device]) -> str:
    """The id of a device named by id, index or (the beginning of) its UUID."""
    wanted = f"gpu{name}" if name.isdigit() else name
    exact = [d.id for d in devices if d.id == wanted]
    matches = exact or [d.id for d in devices if d.uuid is not None and d.uuid.startswith(name)]
    if len(matches) == 1 or not devices:
        return matches[0] if matches else wanted
    known = ", ".join(f"{d.id} ({d.uuid})" if d.uuid else d.id for d in devices)
    who = f"backend {backend.name or backend.url}"
    raise ConfigError(f"{who}: device {name!r} matches {len(matches)} of those found: {known}")
