"""Real programs, as installed: they plan in virtual time and measure in real time."""

import sys
from dataclasses import replace

import pytest

from proxy.simulator import throughtools
from proxy.simulator.published import Model, Point, Setting

POINTS = [Point(batch, 40.0, joules, 500.0, batch / 0.01, 0.01) for batch, joules in ((8, 0.6), (64, 0.2))]


def setting(name: str, gpus: int) -> Setting:
    return Setting(Model(name, 30e9, 3e9, "bfloat16"), "lm-arena-chat", "H100", gpus)


def test_planned_numbers_stand_beside_the_published_ones() -> None:
    qwen = "Qwen3-30B-A3B-Instruct-2507"
    gap, joules = throughtools.planned({setting(qwen, gpus): POINTS[:1] for gpus in (1, 2)})
    assert "2 H100 over 1, batch 8" in joules.finding
    assert gap.published == joules.published == 1.0
    assert gap.ours < 1 < joules.ours  # twice the GPUs: faster, and more joules


@pytest.mark.bench
def test_a_larger_batch_saves_joules_in_virtual_time() -> None:
    batches, best = throughtools.planned({setting("Llama-3.1-8B-Instruct", 1): POINTS})
    assert batches.published == pytest.approx(3.0)
    assert (best.published, best.ours) == (64, 64)
    assert 2 < batches.ours < 4


@pytest.mark.bench
def test_what_is_measured_in_real_time_is_what_was_planned() -> None:
    (row,) = throughtools.live([8])
    assert row.ours == pytest.approx(row.published, rel=0.05)


def test_a_program_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = replace(POINTS[0], output_tokens=-1.0)
    with pytest.raises(throughtools.ToolError, match="loadgen sweep ended with 2"):
        list(throughtools.planned({setting("Llama-3.1-8B-Instruct", 1): [point]}))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(throughtools.ToolError, match="jouleproxy is not installed"):
        list(throughtools.live([1]))
