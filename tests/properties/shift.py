"""A timeline on another clock."""

import msgspec

from proxy.core.events import Event, Header, Step


def shifted(events: list[Event], by_ns: int) -> list[Event]:
    """All stamps later by ``by_ns``."""
    return [_shifted(event, by_ns) for event in events]


def _shifted(event: Event, by_ns: int) -> Event:
    if isinstance(event, Header):
        return event
    if isinstance(event, Step):
        return msgspec.structs.replace(event, t_ns=event.t_ns + by_ns, start_ns=event.start_ns + by_ns)
    return msgspec.structs.replace(event, t_ns=event.t_ns + by_ns)
