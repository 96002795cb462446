from proxy.relay.http.trace_context import Ids, continue_trace

DIGITS = "0123456789abcdef" * 4
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_ids_are_hex_and_never_the_same() -> None:
    ids = Ids()
    taken = [ids.draw(count) for _ in range(1000) for count in (32, 64)]
    assert len(set(taken)) == len(taken)
    assert {len(one) for one in taken} == {32, 64}
    assert int("".join(taken), 16)


def test_a_callers_trace_goes_on_with_spans_of_our_own() -> None:
    trace = continue_trace(CALLER, DIGITS)
    assert trace.trace_id == CALLER[3:35]
    assert trace.parent_span_id == CALLER[36:52]
    assert trace.sampled
    assert trace.traceparent == f"00-{trace.trace_id}-{DIGITS[16:32]}-01"
    assert not continue_trace(CALLER[:-1] + "0", DIGITS).sampled


def test_a_header_that_is_none_begins_a_new_trace() -> None:
    ids = DIGITS[:16] + DIGITS[:16][::-1] + DIGITS[32:]
    for header in (None, "", "00-0-0-01", "ff" + CALLER[2:], CALLER.replace(CALLER[3:35], "0" * 32)):
        trace = continue_trace(header, ids)
        assert (trace.trace_id, trace.parent_span_id) == (DIGITS[32:], None)
        assert (trace.server_span_id, trace.client_span_id) == (ids[:16], ids[16:32])
