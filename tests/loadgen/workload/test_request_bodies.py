import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.workload.datasets import Item
from loadgen.workload.lengths import Fixed, Lengths, parse_length
from loadgen.workload.request_bodies import Style, Workload


def make(endpoint: str = "chat", prompt: int = 20, *, seed: int = 0, **style: Any) -> Workload:
    return Workload(endpoint, "m", Lengths(Fixed(prompt), Fixed(7)), seed=seed, style=Style(**style))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 2000))
def test_same_index_same_bytes_and_length_in_words(index: int, words: int) -> None:
    body = make(prompt=words).body(index)
    assert body == make(prompt=words).body(index)
    text = msgspec.json.decode(body)["messages"][0]["content"]
    assert len(text.split()) == words


def test_different_seeds_differ_and_zero_is_a_seed() -> None:
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


def messages(work: Workload, index: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(work.body(index))["messages"]
    return found


def test_conversations_grow_by_turns_and_share_their_history() -> None:
    work = make(turns=3, sessions=4)
    first, second, third = (messages(work, index) for index in (1, 5, 9))
    assert [len(found) for found in (first, second, third)] == [1, 3, 5]
    assert second[:1] == first
    assert third[:3] == second
    assert [m["role"] for m in second] == ["user", "assistant", "user"]
    assert len(second[1]["content"].split()) == 7
    # The fourth lap begins new conversations; neighbours are others.
    assert len(messages(work, 13)) == 1
    assert messages(work, 13) != first != messages(work, 2)


def test_images_are_valid_and_different() -> None:
    one, two = (messages(make(picture=(48, 40)), index)[0]["content"] for index in (0, 1))
    assert [part["type"] for part in one] == ["text", "image_url"]
    assert one[1] != two[1]
    assert msgspec.json.decode(make("images", picture=(64, 32)).body(0))["size"] == "64x32"


def test_rows_of_a_data_set() -> None:
    items = (Item([{"role": "user", "content": "hello there"}], 5),)
    work = Workload("chat", "m", Lengths(Fixed(9), Fixed(7)), items=items)
    body = msgspec.json.decode(work.body(3))
    assert (body["messages"], body["max_tokens"]) == ([{"role": "user", "content": "hello there"}], 5)
    parts = (Item([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]),)
    body = msgspec.json.decode(Workload("completions", "m", Lengths(Fixed(9), Fixed(7)), items=parts).body(0))
    assert (body["prompt"], body["max_tokens"], body["ignore_eos"]) == ("a\n", 7, True)


def test_videos_are_requested_with_a_form() -> None:
    work = make("videos", picture=(64, 32))
    assert work.content_type.startswith("multipart/form-data; boundary=")
    boundary = work.content_type.partition("=")[2].encode()
    parts = work.body(0).split(b"--" + boundary)
    assert len(parts) == 5
    assert b'name="size"\r\n\r\n64x32' in parts[3]
    assert parts[-1] == b"--\r\n"


def test_lengths() -> None:
    rng = random.Random(0)
    assert parse_length("5", "--input").draw(rng) == 5
    assert 2 <= parse_length("uniform:2..4", "--input").draw(rng) <= 4
    drawn = sorted(parse_length("lognormal:300,0.5", "--input").draw(rng) for _ in range(2001))
    assert drawn[1000] == pytest.approx(300, rel=0.1)
    for bad in ("", "0", "uniform:4..2", "lognormal:x,1", "uniform:1", "frob:2", "٣", "lognormal:٣,1"):
        with pytest.raises(ValueError, match="--input"):
            parse_length(bad, "--input")
