"""Records for tests."""

from loadgen.records import Record


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
    """A record with stamps in nanoseconds; sent as scheduled unless told."""
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
