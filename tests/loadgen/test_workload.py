import os
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.lengths import Fixed, Lengths, parse_length
from loadgen.traces import read_trace
from loadgen.workload import Workload

TRACES = Path(os.environ.get("LOADGEN_TRACES", "shared/data/traces"))


def make(endpoint: str = "chat", prompt: int = 20, **more: float) -> Workload:
    return Workload(endpoint, "m", Lengths(Fixed(prompt), Fixed(7)), **more)  # type: ignore[arg-type]


@given(st.integers(0, 10**6), st.integers(1, 2000))
def test_same_index_same_bytes_and_length_in_words(index: int, words: int) -> None:
    body = make(prompt=words).body(index)
    assert body == make(prompt=words).body(index)
    text = msgspec.json.decode(body)["messages"][0]["content"]
    assert len(text.split()) == words


def test_seeds_differ_and_zero_is_one_of_them() -> None:
    assert make(seed=0).body(0) != make(seed=1).body(0)


def test_shared_prefix() -> None:
    shared = make(prompt=100, prefix_share=0.5)
    one, two = (msgspec.json.decode(shared.body(i))["messages"][0]["content"] for i in (1, 2))
    assert one.split()[:50] == two.split()[:50]
    assert one.split()[50:] != two.split()[50:]


@pytest.mark.parametrize(
    ("endpoint", "key"), [("completions", "prompt"), ("embeddings", "input"), ("images", "prompt")]
)
def test_other_endpoints(endpoint: str, key: str) -> None:
    assert isinstance(msgspec.json.decode(make(endpoint).body(0))[key], str)


def test_lengths() -> None:
    rng = random.Random(0)
    assert parse_length("5", "--input").draw(rng) == 5
    assert 2 <= parse_length("uniform:2..4", "--input").draw(rng) <= 4
    drawn = sorted(parse_length("lognormal:300,0.5", "--input").draw(rng) for _ in range(2001))
    assert drawn[1000] == pytest.approx(300, rel=0.1)
    for bad in ("", "0", "uniform:4..2", "lognormal:x,1", "uniform:1", "frob:2"):
        with pytest.raises(ValueError, match="--input"):
            parse_length(bad, "--input")


def test_own_traces(tmp_path: Path) -> None:
    azure = tmp_path / "a.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
    )
    found = read_trace(azure, 2.0)
    assert found.times_ns == (0, 2_157_289_500)
    assert found.pairs == ((374, 44), (396, 109))
    azure.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n")
    with pytest.raises(ValueError, match="line 2"):
        read_trace(azure)
    mooncake = tmp_path / "m.jsonl"
    mooncake.write_text('{"timestamp": 5, "input_length": 3, "output_length": 0}\n')
    assert read_trace(mooncake).pairs == ((3, 1),)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the trace samples are not here")
def test_published_traces() -> None:
    for path in (*TRACES.glob("sample_*.csv"), *TRACES.glob("sample_*.jsonl")):
        found = read_trace(path)
        assert list(found.times_ns) == sorted(found.times_ns)
        assert len(found.pairs) >= 1000
