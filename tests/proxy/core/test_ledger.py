from proxy.core.attribution import Share
from proxy.core.events import Arrive, End
from proxy.core.ledger import UNREAD, Ledger
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.schema import Unknown
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND
EPOCH = 1_000 * S


def ledger(keep: int = 10) -> Ledger:
    return Ledger(keep, lambda t_ns: t_ns + EPOCH)


def share(request: str, joules: float | None = 5.0, *, final: bool = True) -> Share:
    return Share(
        request=request,
        joules=joules,
        joules_low=joules,
        joules_high=joules,
        parts=None,
        policy="overlap",
        evidence="arrivals",
        devices={},
        unknown=None if joules is not None else "no_samples",
        final=final,
    )


def run(book: Ledger, request: str, start_s: int = 0, model: str = "m", joules: float | None = 5.0) -> None:
    book.open(RequestStart(Arrive(start_s * S, request, model=model, tenant="t", backend="b")), "nvml")
    book.output(request, start_s * S + S // 2)
    book.output(request, start_s * S + S)
    end = End(start_s * S + 2 * S, request, 200, False, 10, 4, 20)
    book.close(RequestEnd(end))
    book.settle(share(request, joules))


def test_a_record_joins_the_call_and_its_share() -> None:
    book = ledger()
    run(book, "a", 3)
    entry = book.get("a")
    assert entry is not None
    record = entry.record
    assert (record.request_id, record.model, record.tenant, record.source) == ("a", "m", "t", "nvml")
    assert record.start_unix_ns == EPOCH + 3 * S
    assert (record.duration_s, record.ttft_s) == (2.0, 0.5)
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (10, 4, 20)
    assert (record.joules, record.final, record.unknown) == (5.0, True, None)


def test_a_request_whose_beginning_was_missed_has_a_part_of_its_joules() -> None:
    book = ledger()
    book.open(RequestStart(Arrive(0, "late", backend="b")), "nvml", seen_ns=S)
    book.open(RequestStart(Arrive(0, "prompt", backend="b")), "nvml", seen_ns=S // 100)
    for name in ("late", "prompt"):
        book.close(RequestEnd(End(2 * S, name, 200)))
        book.settle(share(name))
    records = {record.request_id: record for record in book.records()}
    late, prompt = records["late"], records["prompt"]
    assert (late.joules, late.joules_high, late.unknown) == (5.0, None, Unknown.BEGINNING_NOT_SEEN)
    assert (prompt.joules, prompt.joules_high, prompt.unknown) == (5.0, 5.0, None)


def test_an_answer_that_could_not_be_read_says_so() -> None:
    book = ledger()
    book.open(RequestStart(Arrive(0, "a", backend="b")), "nvml")
    book.close(RequestEnd(End(S, "a", 200), metered=False))
    book.settle(share("a"))
    entry = book.get("a")
    assert entry is not None
    assert (entry.record.evidence, entry.record.joules, entry.record.output_tokens) == (UNREAD, 5.0, None)


def test_before_it_is_measured_a_record_says_so() -> None:
    book = ledger()
    book.open(RequestStart(Arrive(0, "a", backend="b")), None)
    entry = book.get("a")
    assert entry is not None
    assert (entry.record.joules, entry.record.unknown) == (None, "running")
    assert book.in_flight() == {"b": 1}
    book.close(RequestEnd(End(S, "a", 200)))
    assert entry.record.unknown == "not_measured_yet"
    assert book.pending()
    assert entry.record.ttft_s is None
    assert book.in_flight() == {}


def test_what_is_not_known_is_passed_over() -> None:
    book = ledger()
    book.output("ghost", 1)
    assert book.settle(share("ghost")) is None
    assert book.get("ghost") is None
    run(book, "a")
    book.close(RequestEnd(End(9 * S, "a", 500)))
    entry = book.get("a")
    assert entry is not None
    assert entry.record.status == 200, "a request ends once"


def test_an_end_alone_makes_a_record_that_says_what_is_missing() -> None:
    book = ledger()
    entry = book.close(RequestEnd(End(5 * S, "a", 200, False, 10, 4, 20)), "nvml")
    assert entry is not None
    record = entry.record
    assert (record.status, record.output_tokens, record.source, record.final) == (200, 20, "nvml", True)
    assert (record.joules, record.duration_s, record.unknown) == (None, None, Unknown.BEGINNING_NOT_SEEN)
    assert [r.request_id for r in book.records()] == ["a"]
    assert book.in_flight() == {}


def test_a_query_of_the_newest_looks_at_few() -> None:
    book = ledger(keep=1_000)
    for second in range(500):
        run(book, f"r{second}", second)
    run(book, "late", 495)
    found = [r.request_id for r in book.records(since_unix_ns=EPOCH + 497 * S)]
    assert found == ["r499", "r498", "r497"]
    assert len(list(book.records(since_unix_ns=EPOCH))) == 501


def test_the_oldest_finished_go_first_the_running_stay() -> None:
    book = ledger(keep=2)
    book.open(RequestStart(Arrive(0, "running")), None)
    for name in "abcd":
        run(book, name)
    assert [r.request_id for r in book.records()] == ["d", "c"]
    assert book.get("running") is not None


def test_queries_filter() -> None:
    book = ledger()
    run(book, "a", 0, "small")
    run(book, "b", 10, "large")
    assert [r.request_id for r in book.records(since_unix_ns=EPOCH + S)] == ["b"]
    assert [r.request_id for r in book.records(model="small")] == ["a"]
    assert [r.request_id for r in book.records(tenant="other")] == []


def test_summaries_count_the_unknown_beside_the_sum() -> None:
    book = ledger()
    run(book, "a", 0, "small", 5.0)
    run(book, "b", 1, "small", None)
    run(book, "c", 2, "large", 50.0)
    large, small = book.summary("model", None, EPOCH)
    assert (large.group, large.joules, large.joules_per_output_token) == ("large", 50.0, 2.5)
    assert (small.requests, small.unknown, small.joules) == (2, 1, 5.0)
    assert small.joules_per_output_token == 0.25, "of the one that is known"
    (only,) = book.summary("tenant", 1.5, EPOCH + 3 * S)
    assert only.requests == 1


def test_a_summary_counts_the_pending_apart() -> None:
    book = ledger()
    run(book, "a", 0)
    book.open(RequestStart(Arrive(5 * S, "b", model="m")), "nvml")
    book.close(RequestEnd(End(6 * S, "b", 200, False, 10, 0, 20)))
    (only,) = book.summary("model", None, EPOCH)
    assert (only.requests, only.pending, only.unknown) == (1, 1, 0)
    assert (only.output_tokens, only.joules_per_output_token) == (20, 0.25)


def test_a_provisional_share_does_not_end_a_request() -> None:
    book = ledger()
    book.open(RequestStart(Arrive(0, "a", backend="b")), None)
    book.settle(share("a", final=False))
    assert book.in_flight() == {"b": 1}
