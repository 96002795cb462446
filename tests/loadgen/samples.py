"""Records for tests."""

import msgspec

from loadgen.results.records import Distribution, Point, Record


def record(
    index: int,
    *,
    scheduled: int = 0,
    sent: int | None = None,
    first: int | None = None,
    end: int | None = None,
    tokens: int | None = None,
    error: str | None = None,
) -> Record:
    """Return a record with times in nanoseconds; sent as scheduled by default."""
    first = scheduled + 1000 if first is None else first
    return Record(
        point=0,
        index=index,
        id=f"r-{index}",
        scheduled_ns=scheduled,
        dispatched_ns=scheduled,
        sent_ns=scheduled if sent is None else sent,
        first_ns=first,
        end_ns=first if end is None else end,
        outputs_ns=[first],
        counts=[tokens or 1],
        status=200,
        error=error,
        output_tokens=tokens,
    )


def point(concurrency: int, **changes: object) -> Point:
    """Return a point of a valid run."""
    empty = Distribution()
    made = Point(
        concurrency=concurrency,
        rate=None,
        requests=10,
        failed=0,
        duration_seconds=2.0,
        window_seconds=(0.0, 2.0),
        requests_per_second=5.0,
        goodput_per_second=5.0,
        output_tokens_per_second=40.0 * concurrency,
        ttft_seconds=Distribution(count=10, mean=0.05, p50=0.05, p90=0.06, max=0.07),
        ttft_from_sent_seconds=empty,
        tpot_seconds=empty,
        itl_seconds=empty,
        e2e_seconds=empty,
        e2e_from_sent_seconds=empty,
        late_seconds=empty,
        lag_seconds=empty,
        slo_met=True,
        slo_confidence="pass",
    )
    return msgspec.structs.replace(made, **changes)
