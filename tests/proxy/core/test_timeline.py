import pytest

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample, Span, Step
from proxy.core.timeline import TimelineError, TimelineReader, encode_event, encode_events

HEAD = Header(1, (Device("gpu0", name="H100"),), unix_ns=5)
EVENTS: list[Event] = [
    HEAD,
    Sample(1, "gpu0", energy_mj=10.0, source="nvml"),
    Arrive(1, "r1", model="m", stream=True, devices=("gpu0",), tenant="t"),
    Output(2, "r1", None),
    Step(3, "b", ("gpu0",), 2, {"r1": 4}, ("r2",)),
    Span(4, "r1", 1, 2, 3),
    End(5, "r1", 200, prompt_tokens=3),
]
TEXT = encode_events(EVENTS)


def read(data: bytes) -> tuple[list[Event], TimelineReader]:
    reader = TimelineReader()
    return reader.feed(data) + reader.close(), reader


def refusal(*lines: bytes) -> TimelineError:
    with pytest.raises(TimelineError) as caught:
        read(b"".join(line + b"\n" for line in lines))
    return caught.value


HEADER = b'{"type":"header","version":1}'


def test_what_is_written_is_read() -> None:
    events, reader = read(TEXT)
    assert events == EVENTS
    assert (reader.lines, reader.header, reader.torn) == (len(EVENTS), HEAD, None)
    assert b"".join(encode_event(event) for event in EVENTS) == TEXT


def test_every_split_gives_the_same_events() -> None:
    for cut in range(len(TEXT)):
        reader = TimelineReader()
        assert reader.feed(TEXT[:cut]) + reader.feed(TEXT[cut:]) + reader.close() == EVENTS


def test_unknown_keys_and_blank_lines_are_accepted() -> None:
    events, _ = read(HEADER + b'\n\n{"type":"output","t_ns":1,"request":"a","tokens":2,"colour":"red"}\n')
    assert events[1:] == [Output(1, "a", 2)]


def test_a_last_line_without_newline_counts_when_whole() -> None:
    events, reader = read(TEXT[:-1])
    assert events == EVENTS
    assert reader.torn is None


def test_a_torn_last_line_is_reported_and_dropped_wherever_it_was_cut() -> None:
    start = TEXT[:-1].rfind(b"\n") + 1
    for cut in range(start + 1, len(TEXT) - 1):
        events, reader = read(TEXT[:cut])
        assert events == EVENTS[:-1]
        assert reader.torn == len(EVENTS)


def test_a_line_cut_in_the_middle_of_the_file_is_an_error() -> None:
    error = refusal(HEADER, b'{"type":"output","t_ns', b'{"type":"output","t_ns":1,"request":"a"}')
    assert error.line == 2
    assert error.reason.startswith("not JSON")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"type":"outptu","t_ns":1}', "the types are header, sample, arrive"),
        (b'{"t_ns":1}', "missing required field `type`"),
        (b'{"type":"output","t_ns":1.5,"request":"a"}', "Expected `int`, got `float` - at `$.t_ns`"),
        (b'{"type":"output","request":"a"}', "missing required field `t_ns`"),
        (b'{"type":"sample","t_ns":1,"device":"g"}', "a sample needs energy_mj or power_mw"),
        (b'{"type":"header","version":1}', "a second header"),
        (b'{"type":"end","t_ns":1,"request":"\xff"}', "not JSON"),
        (b'{"type":"output","t_ns":1,"request":"a","tokens":-1}', "Expected `int` >= 0 - at `$.tokens`"),
        (b'{"type":"end","t_ns":1,"request":"a","prompt_tokens":1e17}', "at `$.prompt_tokens`"),
        (b'{"type":"output","t_ns":9223372036854775808,"request":"a"}', "at `$.t_ns`"),
    ],
)
def test_a_wrong_line_is_refused_by_number(line: bytes, reason: str) -> None:
    error = refusal(HEADER, b'{"type":"output","t_ns":1,"request":"a"}', line)
    assert error.line == 3
    assert reason in error.reason


def test_a_wrong_last_line_is_not_taken_for_a_torn_one() -> None:
    with pytest.raises(TimelineError, match="line 2"):
        read(HEADER + b'\n{"type":"nonsense","t_ns":1}')


def test_stamps_that_go_backwards_are_refused_across_blocks() -> None:
    reader = TimelineReader()
    reader.feed(HEADER + b'\n{"type":"output","t_ns":9,"request":"a"}\n')
    with pytest.raises(TimelineError, match="line 3: t_ns 8 is before 9"):
        reader.feed(b'{"type":"output","t_ns":8,"request":"a"}\n')


def test_the_first_line_must_be_a_header_of_a_known_version() -> None:
    assert refusal(b'{"type":"output","t_ns":1,"request":"a"}').line == 1
    assert "version 2 is not known" in refusal(b'{"type":"header","version":2}').reason
    for data in (b"", b"\n", b'{"type":"hea'):
        with pytest.raises(TimelineError, match="no whole header"):
            read(data)
