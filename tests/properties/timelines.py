"""Timelines as nobody would write them: any order of arrivals, chunks, ends, readings, resets and gaps."""

from hypothesis import strategies as st

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample, Step

MS = 1_000_000
DEVICES = ("gpu0", "gpu1")
PLACES = (("gpu0",), ("gpu1",), ("gpu0", "gpu1"), ())
WAITS_NS = (0, 1, 1_000, MS, 7 * MS, 20 * MS, 100 * MS, 900 * MS, 40_000 * MS)


@st.composite
def timelines(draw: st.DrawFn, *, steps: bool = True) -> list[Event]:
    """Draw a header and up to 120 events in order of time, some with equal times."""
    kinds = ["sample"] * 4 + ["output"] * 8 + ["arrive"] * 3 + ["end"] * 2 + ["step"] * steps
    events: list[Event] = [Header(1, tuple(Device(device) for device in DEVICES))]
    counters = dict.fromkeys(DEVICES, 5_000.0)
    names: list[str] = []
    t_ns = draw(st.integers(0, 2**40))
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=120)):
        t_ns += draw(st.sampled_from(WAITS_NS))
        some = draw(st.sampled_from(names)) if names else "nobody"
        match kind:
            case "sample":
                events.append(_sample(draw, t_ns, events, counters))
            case "arrive":
                names.append(f"r{len(names)}")
                events.append(_arrive(draw, t_ns, names[-1]))
            case "output":
                tokens = draw(st.sampled_from([1, 1, 1, 2, 0, None]))
                events.append(Output(t_ns, some, tokens))
            case "end":
                events.append(_end(draw, t_ns, some))
            case _:
                events.append(_step(draw, t_ns, names))
    return events


def _sample(draw: st.DrawFn, t_ns: int, events: list[Event], counters: dict[str, float]) -> Sample:
    device = draw(st.sampled_from(DEVICES))
    if any(isinstance(e, Sample) and e.device == device and e.t_ns == t_ns for e in events):
        return Sample(t_ns, device, energy_mj=counters[device])  # a counter has one value at one time
    if draw(st.integers(0, 15)) == 0:
        counters[device] = 0.0  # the driver was loaded again
    counters[device] += draw(st.sampled_from([0.0, 1.0, 350.0, 70_000.0]))
    return Sample(t_ns, device, energy_mj=counters[device])


def _arrive(draw: st.DrawFn, t_ns: int, name: str) -> Arrive:
    return Arrive(
        t_ns,
        name,
        draw(st.sampled_from(["chat", "chat", "embeddings", "images", "videos"])),
        "m",
        draw(st.booleans()),
        draw(st.sampled_from(PLACES)),
        None,
        draw(st.sampled_from(["a", "b"])),
    )


def _end(draw: st.DrawFn, t_ns: int, name: str) -> End:
    if draw(st.booleans()):
        return End(t_ns, name, None, draw(st.booleans()))
    prompt = draw(st.integers(0, 4_000))
    return End(t_ns, name, 200, False, prompt, draw(st.integers(0, prompt)), draw(st.integers(0, 60)))


def _step(draw: st.DrawFn, t_ns: int, names: list[str]) -> Step:
    who = tuple(draw(st.lists(st.sampled_from(names), max_size=4, unique=True))) if names else ()
    prefill = {name: draw(st.integers(0, 900)) for name in who[:1]}
    start = t_ns - draw(st.sampled_from([1, MS, 30 * MS]))
    return Step(
        t_ns, draw(st.sampled_from(["a", "b", None])), draw(st.sampled_from(PLACES)), start, prefill, who
    )
