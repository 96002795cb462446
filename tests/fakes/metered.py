"""A meter with one device of constant power, fed by hand: no process, no socket, no sensor."""

from proxy.clock import now_ns
from proxy.config import Backend, MeterConfig
from proxy.core.events import Arrive, Device, End, Sample
from proxy.energy.source import Found
from proxy.exporters.base import Exporter, Exporters
from proxy.ipc import Chunk, Closed, Opened
from proxy.meter.intake import Connection
from proxy.meter.meter import Meter
from proxy.units import NS_PER_MS, NS_PER_SECOND

WATTS = 200
BACKEND = Backend("http://127.0.0.1:8000", "b")


def a_meter(
    *exporters: Exporter, config: MeterConfig | None = None, source: str | None = "simulated"
) -> tuple[Meter, Connection]:
    """A meter, policy ``overlap``, and a relay's connection to it."""
    found = [] if source is None else [Found(Device("gpu0", "H100"), "energy counter", 0.1, None)]
    config = config or MeterConfig(policy="overlap")
    meter = Meter(config, [BACKEND], found, source, Exporters(exporters))
    return meter, meter.intake.connected()


def samples(meter: Meter, start_ns: int, end_ns: int) -> None:
    """Readings every 100 ms, at whole 100 ms."""
    step = 100 * NS_PER_MS
    times = range(-(-start_ns // step) * step, end_ns, step)
    meter.intake.add_samples([Sample(t, "gpu0", t * WATTS / 1e6) for t in times])


def begin(meter: Meter, relay: Connection, name: str, t_ns: int, key: int = 1) -> None:
    """A streamed chat request, with its first chunk 100 ms later."""
    arrive = Arrive(t_ns, name, model="m", stream=True, tenant="t", backend="b")
    meter.receive(relay, [Opened(key, arrive, path="/v1/chat/completions", trace_id="a" * 32)])
    meter.receive(relay, [Chunk(key, t_ns + 100 * NS_PER_MS, 1)])


def finish(meter: Meter, relay: Connection, name: str, t_ns: int, key: int = 1) -> None:
    """It ends, with 10 prompt and 5 output tokens."""
    meter.receive(relay, [Closed(key, End(t_ns, name, 200, False, 10, 0, 5))])


def story(meter: Meter, relay: Connection, *names: str) -> tuple[int, int]:
    """Each name a request of one second, at once, in the middle of three; the seconds before now.

    Gives when they began and ended.
    """
    end = now_ns() - NS_PER_SECOND
    start = end - NS_PER_SECOND
    samples(meter, start - NS_PER_SECOND, end + NS_PER_SECOND)
    for key, name in enumerate(names, 1):
        begin(meter, relay, name, start, key)
        finish(meter, relay, name, end, key)
    meter.tick(0)  # the relay has come: what it kept is here
    meter.tick(now_ns() + NS_PER_SECOND)
    return start, end
