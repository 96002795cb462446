"""Select devices by ``--devices`` or CUDA_VISIBLE_DEVICES, for sources that number their devices. Pure.

Names are indices or (beginnings of) UUIDs. CUDA_VISIBLE_DEVICES follows CUDA's own rules (CUDA C++
Programming Guide, "CUDA Environment Variables").
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.energy.source import SensorError


@dataclass(frozen=True, slots=True)
class Selection:
    """The requested devices.

    Attributes:
        devices: Value of ``--devices``: ``auto``, or names separated by commas.
        visible: Value of CUDA_VISIBLE_DEVICES, which applies only if ``devices`` is ``auto``.
    """

    devices: str = "auto"
    visible: str | None = None


def pick(selection: Selection, uuids: Sequence[str]) -> list[int]:
    """Return the indices of the devices to read, in the order of the selection.

    Of CUDA_VISIBLE_DEVICES, entries after the first invalid one are ignored, and an empty list hides all.

    Args:
        selection: The requested devices.
        uuids: UUID of each device, in the order of indices.

    Raises:
        SensorError: for a device of ``--devices`` that does not exist or is ambiguous, and for MIG instances.
    """
    if selection.devices != "auto":
        entries = [e.strip() for e in selection.devices.split(",") if e.strip()]
        return list(dict.fromkeys(_index(entry, uuids, "devices") for entry in entries))
    if selection.visible is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for entry in (e.strip() for e in selection.visible.split(",")):
        try:
            found.append(_index(entry, uuids, "CUDA_VISIBLE_DEVICES"))
        except SensorError:
            if entry.startswith("MIG-"):
                raise
            break
    return list(dict.fromkeys(found))


def _index(entry: str, uuids: Sequence[str], key: str) -> int:
    if entry.startswith("MIG-"):
        raise SensorError(
            f"{key}: {entry} is a MIG instance, whose energy cannot be read reliably: "
            "name the entire GPU by index or UUID"
        )
    if entry.isdigit():
        if int(entry) < len(uuids):
            return int(entry)
        raise SensorError(f"{key}: no device {entry}; there are {len(uuids)} (0..{len(uuids) - 1})")
    matches = [i for i, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
    if len(matches) != 1:
        raise SensorError(f"{key}: {entry!r} matches {len(matches)} devices; known: {', '.join(uuids)}")
    return matches[0]
