"""Map backends to the ids of the devices they compute on, as configured. Pure.

Several devices may serve one backend (tensor or pipeline parallelism), and several backends may share one
device. A device that no backend names is measured and reported, but its energy is attributed to no request.
"""

from collections.abc import Sequence

from proxy.config import Backend, ConfigError
from proxy.core.events import Device


def devices_by_backend(
    backends: Sequence[Backend], devices: Sequence[Device], *, host: bool = False
) -> dict[str, tuple[str, ...]]:
    """Return the device ids of each backend, by its name. A backend that names none uses all GPUs found.

    Args:
        backends: The configured backends.
        devices: The devices found. If there are none at all, names are not checked.
        host: Whether the energy of hosts (CPUs and memory) is attributed to requests, too.

    Raises:
        ConfigError: for a device that was not found or is ambiguous.
    """
    hosts = tuple(d.id for d in devices if d.kind == "host") if host else ()
    gpus = tuple(d.id for d in devices if d.kind != "host")
    found = {}
    for backend in backends:
        named = tuple(dict.fromkeys(_named(name, backend, devices) for name in backend.devices))
        found[backend.name or backend.url] = (named if named and devices else gpus) + hosts
    return found


def _named(name: str, backend: Backend, devices: Sequence[Device]) -> str:
    """Return the id of a device that is named by id, index or (the beginning of) its UUID."""
    local = f"gpu{name}" if name.isdigit() else name
    exact = [d.id for d in devices if d.id == local]
    matches = exact or [d.id for d in devices if d.uuid is not None and d.uuid.startswith(name)]
    if len(matches) == 1 or not devices:
        return matches[0] if matches else local
    known = ", ".join(f"{d.id} ({d.uuid})" if d.uuid else d.id for d in devices)
    who = f"backend {backend.name or backend.url}"
    raise ConfigError(f"{who}: device {name!r} matches {len(matches)} of the devices found: {known}")
