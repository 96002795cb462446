"""Which devices to read: ``--devices`` and CUDA_VISIBLE_DEVICES, as indices or UUIDs. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.energy.source import SensorError


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for. ``visible`` (CUDA_VISIBLE_DEVICES) counts only while ``devices`` is auto."""

    devices: str = "auto"
    visible: str | None = None


def pick(selection: Selection, uuids: Sequence[str]) -> list[int]:
    """Indices of the devices to read, in the order asked for; raises :class:`SensorError`.

    CUDA's rule: entries after the first invalid one are ignored, an empty list hides all.
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
            "name the whole GPU by index or UUID"
        )
    if entry.isdigit():
        if int(entry) < len(uuids):
            return int(entry)
        raise SensorError(f"{key}: no device {entry}; there are {len(uuids)} (0..{len(uuids) - 1})")
    matches = [i for i, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
    if len(matches) != 1:
        raise SensorError(f"{key}: {entry!r} matches {len(matches)} devices; known: {', '.join(uuids)}")
    return matches[0]
