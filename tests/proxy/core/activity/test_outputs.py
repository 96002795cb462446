import numpy as np

from proxy.core.activity.outputs import NEVER, Outputs, Streams


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_outputs_are_kept_by_time_and_dropped_up_to_a_stamp() -> None:
    outputs = Outputs()
    outputs.extend(ints(10, 20, 30), ints(0, 1, 0), ints(1, 1, 2))
    outputs.insert(ints(15, 35), ints(2, 2), ints(1, 1))
    assert outputs.t_ns.tolist() == [10, 15, 20, 30, 35]
    assert [column.tolist() for column in outputs.until(20)] == [[10, 15, 20], [0, 2, 1], [1, 1, 1]]
    slot, tokens = outputs.forget(20)
    assert (slot.tolist(), tokens.tolist()) == ([0, 2, 1], [1, 1, 1])
    assert outputs.t_ns.tolist() == [30, 35]


def test_a_slot_is_used_again_and_remembers_nothing() -> None:
    streams = Streams()
    slot = streams.open(5)
    streams.see(ints(7, 9), ints(slot, slot), ints(2, -1))
    assert (streams.first_ns[slot], streams.chunks[slot], streams.tokens[slot]) == (7, 2, 2)
    streams.close(slot)
    assert streams.open(11) == slot
    assert (streams.first_ns[slot], streams.chunks[slot], streams.end_ns[slot]) == (-1, 0, NEVER)


def test_there_are_as_many_slots_as_needed() -> None:
    streams = Streams()
    slots = [streams.open(t_ns) for t_ns in range(1_000)]
    assert len(set(slots)) == 1_000
    assert streams.start_ns[slots].tolist() == list(range(1_000))
