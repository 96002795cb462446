import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proxy.simulator.engine.job import Job
from proxy.simulator.profiles.profile import DEFAULT, load
from proxy.simulator.virtual import ProtocolError, Result, VirtualEngine, answer, serve

PROFILE = load(DEFAULT)


def closed_loop(virtual: VirtualEngine, concurrency: int, requests: int) -> list[Result]:
    ended: list[Result] = []
    sent = 0
    for _ in range(concurrency):
        virtual.arrive(Job(str(sent), 100 + 7 * (sent % 40), 20 + 3 * (sent % 50)), virtual.now)
        sent += 1
    while len(ended) < requests:
        for result in virtual.run(None):
            ended.append(result)
            if sent < requests:
                virtual.arrive(Job(str(sent), 100 + 7 * (sent % 40), 20 + 3 * (sent % 50)), virtual.now)
                sent += 1
    return ended


def test_results_and_idle_add_up_to_the_device() -> None:
    virtual = VirtualEngine(PROFILE)
    virtual.arrive(Job("late", 50, 5), 3.0)
    ended = closed_loop(virtual, 8, 100)
    while virtual.pending or virtual.engine.running:
        ended += virtual.run(None)
    assert len(ended) == 101
    total = sum(result.job.joules.total for result in ended) + virtual.trace.idle
    (at_end,) = virtual.trace.joules_at([virtual.now])
    assert total == pytest.approx(virtual.trace.total, rel=1e-12)
    assert at_end["total"] == pytest.approx(total, rel=1e-12)
    assert sum(value for name, value in at_end.items() if name != "total") == pytest.approx(total, rel=1e-9)


def test_every_token_has_its_time() -> None:
    virtual = VirtualEngine(PROFILE)
    for result in closed_loop(virtual, 16, 60):
        assert len(result.outputs) == result.job.output_tokens
        assert np.all(np.diff(result.outputs) > 0)
        assert result.scheduled_seconds is not None
        assert result.first_seconds is not None
        assert result.at_seconds <= result.scheduled_seconds < result.first_seconds <= result.end_seconds
        assert result.outputs[-1] == result.end_seconds


def test_one_stream_takes_what_the_profile_says() -> None:
    virtual = VirtualEngine(PROFILE)
    virtual.arrive(Job("a", 100, 3), 0.5)
    (result,) = virtual.run(None)
    each = PROFILE.seconds
    prompt = each.static + 100 * each.prefill
    decode = [each.static + each.decode + each.context * (101 + i) for i in range(2)]
    assert result.end_seconds == pytest.approx(0.5 + prompt + sum(decode), rel=1e-12)
    assert virtual.trace.idle == pytest.approx(0.5 * PROFILE.idle_watts)


def test_time_stops_where_it_is_told_a_step_later_at_most() -> None:
    virtual = VirtualEngine(PROFILE)
    virtual.arrive(Job("a", 100, 1000), 0.0)
    assert virtual.run(1.0) == []
    assert 1.0 <= virtual.now < 1.01
    assert virtual.engine.running == 1
    (result,) = virtual.run(None)
    assert result.status == 200
    assert virtual.run(100.0) == []
    assert virtual.now == 100.0


def test_refused_and_cancelled_requests_end_too() -> None:
    limits = replace(PROFILE.limits, max_num_seqs=1, max_waiting=0)
    virtual = VirtualEngine(replace(PROFILE, limits=replace(limits, max_waiting=1)))
    virtual.arrive(Job("long", 10, 1_000_000), 0.0)
    for name in ("a", "b", "c"):
        virtual.arrive(Job(name, 10, 500), 0.0)
    ended = virtual.run(None)
    assert {result.job.name: result.status for result in ended} == {"long": 400, "b": 503, "c": 503}
    virtual.run(0.1)
    virtual.cancel("a")
    (gone,) = virtual.run(None)
    assert gone.status == 499
    assert 0 < gone.job.emitted == len(gone.outputs) < 500
    assert gone.job.joules.total == pytest.approx(virtual.trace.total)


def test_tokens_so_far_are_the_first_of_those_at_the_end() -> None:
    virtual = VirtualEngine(PROFILE)
    for name, length in (("short", 4), ("long", 40)):
        virtual.arrive(Job(name, 100, length), 0.0)
    virtual.arrive(Job("later", 100, 4), 50.0)
    (short,) = virtual.run(None)
    so_far = virtual.so_far()
    assert set(so_far) == {"long"}
    (rest,) = virtual.run(None)
    assert len(short.outputs) <= len(so_far["long"]) < 40
    assert list(so_far["long"]) == list(rest.outputs[: len(so_far["long"])])
    assert answer(virtual, b'{"so_far": true}', outputs=True) == {"so_far": []}


def test_the_protocol_says_what_a_line_lacks() -> None:
    virtual = VirtualEngine(PROFILE)
    for line, said in [
        (b"x", "malformed"),
        (b"{}", "arrive, until_seconds"),
        (b'{"arrive": {"id": "a"}}', "at_seconds"),
        (b'{"arrive": {"id": "a", "at_seconds": 0, "prompt_tokens": 0, "output_tokens": 1}}', "at least 1"),
        (b'{"arrive": {"id": "a", "at_seconds": -1, "prompt_tokens": 1, "output_tokens": 1}}', "before now"),
    ]:
        with pytest.raises(ProtocolError, match=said):
            answer(virtual, line, outputs=True)


def test_a_bad_line_ends_the_program_and_is_named() -> None:
    out = io.BytesIO()
    assert (
        serve(VirtualEngine(PROFILE), io.BytesIO(b'{"until_seconds": 1}\n{"go": 1}\n'), out, outputs=True)
        == 2
    )
    assert "line 2: " in json.loads(out.getvalue().splitlines()[-1])["error"]


def test_the_program_answers_line_by_line() -> None:
    lines: list[dict[str, Any]] = [
        {
            "arrive": {
                "id": "a",
                "at_seconds": 0,
                "prompt_tokens": 64,
                "output_tokens": 4,
                "prefix": ["s", 32],
            }
        },
        {"until_seconds": None},
        {
            "arrive": {
                "id": "b",
                "at_seconds": 1,
                "prompt_tokens": 64,
                "output_tokens": 4,
                "prefix": ["s", 32],
            }
        },
        {"until_seconds": None},
        {"energy_at_seconds": [0, 1]},
    ]
    done = subprocess.run(
        [sys.executable, "-m", "proxy.simulator.virtual", DEFAULT, "--max-num-seqs", "8"],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    about, first, second, energy = map(json.loads, done.stdout.splitlines())
    assert (about["simulated"], about["max_num_seqs"]) == (True, 8)
    (a,), (b,) = first["ended"], second["ended"]
    assert (a["status"], a["cached_tokens"], b["cached_tokens"]) == (200, 0, 32)
    assert len(a["outputs_us"]) == 4
    assert sum(a["outputs_us"]) == round(a["end_seconds"] * 1e6)
    parts = a["joules"]
    assert parts["total"] == pytest.approx(sum(parts.values()) - parts["total"])
    assert energy["joules"][0]["total"] == 0
    assert energy["joules"][1]["total"] == pytest.approx(a["joules"]["total"] + energy["joules"][1]["idle"])


def test_a_profile_that_cannot_be_used_ends_the_program() -> None:
    words = [sys.executable, "-m", "proxy.simulator.virtual", DEFAULT, "--cap-watts", "10"]
    done = subprocess.run(words, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cap_watts 10 is not above idle_watts" in done.stderr
