from proxy.core.events import Arrive, End, Output, Outside, Sample
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.ipc import Chunk, Closed, Dropped, EnergyQuery, Leaving, Opened
from proxy.meter.intake import MAX_REORDER_NS, RELAY_LOST, START_NS, Connection, Intake

REORDER = 50


def intake() -> Intake:
    return Intake(REORDER, lambda backend: ("gpu1",) if backend == "b" else ("gpu0",))


def opened(key: int, t_ns: int, request: str = "r", backend: str | None = None) -> Opened:
    return Opened(key, Arrive(t_ns, request, backend=backend))


def test_events_of_several_sources_come_out_in_order() -> None:
    held, one, two = intake(), Connection(1), Connection(2)
    held.add(one, opened(1, 100, "a"))
    held.add(two, opened(1, 90, "b"))
    held.add_samples([Sample(95, "gpu0", energy_mj=1.0)])
    held.add(one, Chunk(1, 120, 1))
    held.add(one, Closed(1, End(130, "a", 200)))
    ripe = held.release(130 + REORDER)
    assert [event.t_ns for _, event in ripe] == [90, 95, 100, 120, 130]
    assert [type(event) for _, event in ripe] == [Arrive, Sample, Arrive, Output, End]
    assert held.release(10_000) == []


def test_what_is_young_is_held_back() -> None:
    held = intake()
    held.add_samples([Sample(100, "gpu0"), Sample(200, "gpu0")])
    assert [e.t_ns for _, e in held.release(100 + REORDER)] == [100]
    assert [e.t_ns for _, e in held.release(200 + REORDER)] == [200]


def test_a_late_event_takes_the_last_stamp_and_is_counted() -> None:
    held, relay = intake(), Connection(1)
    held.add_samples([Sample(500, "gpu0")])
    held.release(500 + REORDER)
    held.add(relay, opened(1, 400))
    held.add(relay, Chunk(1, 410, 2))
    held.add(relay, Closed(1, End(420, "r")))
    ripe = held.release(1000)
    assert [event.t_ns for _, event in ripe] == [500, 500, 500]
    began, said, ended = (held for held, _ in ripe)
    stamps = began.arrive.t_ns, said.t_ns, ended.end.t_ns  # type: ignore[union-attr]
    assert stamps == (400, 410, 420), "records keep the true stamps"
    assert held.late == 3


def test_devices_of_the_backend_are_filled_in() -> None:
    held, relay = intake(), Connection(1)
    held.add(relay, opened(1, 1, "a", "b"))
    held.add(relay, opened(2, 2, "c"))
    devices = [h.arrive.devices for h, _ in held.release(1000) if isinstance(h, RequestStart)]
    assert devices == [("gpu1",), ("gpu0",)]


def test_an_id_used_again_before_it_is_final_is_told_apart() -> None:
    held, relay = intake(), Connection(7)
    held.add(relay, opened(1, 1))
    held.add(relay, opened(2, 2))
    held.add(relay, Closed(2, End(3, "r")))
    held.add(relay, Closed(1, End(4, "r")))
    held.add(relay, opened(3, 5))
    names = [e.request for _, e in held.release(1000) if isinstance(e, Arrive | End)]
    assert names == ["r", "r~7.2", "r~7.2", "r", "r~7.3"]
    assert held.newest("r") == "r~7.3"
    assert [relay.name_of(EnergyQuery(1, "r", 0, key=key)) for key in (1, 2, 3)] == ["r", "r~7.2", "r~7.3"]
    held.forget("r")
    held.add(relay, opened(4, 2000))
    assert [e.request for _, e in held.release(3000) if isinstance(e, Arrive)] == ["r"]
    assert held.newest("r") == "r"


def test_a_relay_that_dies_ends_its_requests() -> None:
    held = intake()
    relay = held.connected()
    assert held.relays == 1
    held.add(relay, opened(1, 1))
    held.connection_lost(relay, 10)
    assert held.relays == 0
    last, _ = held.release(1000)[-1]
    assert isinstance(last, RequestEnd)
    assert last.end.cancelled
    assert last.error_type == RELAY_LOST


def test_unknown_keys_and_drops() -> None:
    held, relay = intake(), Connection(1)
    held.add(relay, Chunk(9, 1, 1))
    held.add(relay, Dropped(3))
    assert held.release(1000) == []
    assert held.dropped == 3
    query = EnergyQuery(1, "r", 0)
    assert held.add_all(relay, [Dropped(1), query]) == [query]


def test_an_end_of_a_request_never_seen_is_handed_on_and_ends_no_other() -> None:
    held, relay = intake(), Connection(1)
    held.add(relay, opened(1, 1, "x"))
    held.add(relay, Closed(9, End(2, "x", 200)))
    held.add(relay, Closed(8, End(3, "y", 200)))
    names = [e.request for _, e in held.release(1000) if isinstance(e, Arrive | End)]
    assert names == ["x", "x~1.9", "y"]


def test_at_start_all_is_held_until_a_relay_came() -> None:
    held = Intake(REORDER, lambda _: (), start_ns=0)
    held.add_samples([Sample(10, "gpu0")])
    assert held.release(START_NS - 1) == []
    relay = held.connected()
    assert held.release(1_000) == [], "what it kept is on its way"
    held.add(relay, opened(1, 5))
    assert [event.t_ns for _, event in held.release(1_000 + REORDER)] == [5, 10]


def test_at_start_it_waits_for_no_relay_for_ever() -> None:
    held = Intake(REORDER, lambda _: (), start_ns=0)
    held.add_samples([Sample(10, "gpu0")])
    assert len(held.release(START_NS)) == 1


def test_a_chunk_of_unknown_size() -> None:
    held, relay = intake(), Connection(1)
    held.add(relay, opened(1, 1))
    held.add(relay, Chunk(1, 2, -1))
    last, _ = held.release(1000)[-1]
    assert isinstance(last, Output)
    assert last.tokens is None


def test_events_wait_for_readings_that_come_late_by_nature_and_a_stall_is_forgotten() -> None:
    held = intake()
    held.add_samples([Sample(100, "gpu0")], age_ns=400)
    assert held.reorder_ns == 500
    for _ in range(10_000):
        held.add_samples([], age_ns=0)
    assert held.reorder_ns < 1000
    held.add_samples([Sample(100, "gpu0")], age_ns=10 * MAX_REORDER_NS)
    assert held.reorder_ns == MAX_REORDER_NS


def test_requests_are_seen_as_they_come_not_when_they_are_ripe() -> None:
    seen: list[str] = []
    held = Intake(REORDER, lambda _: (), lambda event: seen.append(type(event).__name__))
    held.add(Connection(1), opened(1, 100))
    held.add_evidence(Outside(120, 100, ("gpu0",), 0.5))
    assert seen == ["RequestStart"]
    assert [type(event) for _, event in held.release(200)] == [Arrive, Outside]


def test_a_relay_that_drains_is_not_ready_and_its_requests_go_on() -> None:
    held = intake()
    relay = held.connected()
    held.add(relay, opened(1, 1, "a"))
    held.add(relay, Leaving())
    assert held.relays == 0
    assert relay.running == {1: "a"}
    held.connection_lost(relay, 5)
    assert held.relays == 0


def test_messages_of_one_frame_are_added_in_their_order_and_others_are_returned() -> None:
    held, relay = intake(), Connection(1)
    query = EnergyQuery(1, "r", 0)
    ended = Closed(1, End(4, "r", 200))
    others = held.add_all(relay, [opened(1, 1), Chunk(1, 2, 1), query, Chunk(1, 3, 2), ended, Chunk(1, 5, 1)])
    assert others == [query]
    kinds = [type(event) for _, event in held.release(1000)]
    assert kinds == [Arrive, Output, Output, End], "the chunk after the end is of no request"
