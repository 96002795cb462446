"""Real programs, as installed: they plan in virtual time and measure in real time."""

import sys
from dataclasses import replace

import pytest

from tests.calibration import tool_benchmarks
from tests.calibration.published import Model, Point, Setting

POINTS = [Point(batch, 40.0, joules, 500.0, batch / 0.01, 0.01) for batch, joules in ((8, 0.6), (64, 0.2))]


def setting(name: str, gpus: int) -> Setting:
    return Setting(Model(name, 30e9, 3e9, "bfloat16"), "lm-arena-chat", "H100", gpus)


def test_planned_numbers_stand_beside_the_published_ones() -> None:
    qwen = "Qwen3-30B-A3B-Instruct-2507"
    gap, joules = tool_benchmarks.planned({setting(qwen, gpus): POINTS[:1] for gpus in (1, 2)})
    assert "2 H100 over 1, batch 8" in joules.finding
    assert gap.published == joules.published == 1.0
    assert gap.ours < 1 < joules.ours  # twice the GPUs: faster, and more joules


def test_each_finding_is_the_published_one_where_sweeps_find_what_was_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def published(_setting: Setting, point: Point) -> tool_benchmarks._Found:
        joules = point.joules_per_token
        gap = tool_benchmarks._Distribution(point.median_itl_seconds)
        return tool_benchmarks._Found(point.batch, joules, joules * point.output_tokens, gap)

    monkeypatch.setattr(tool_benchmarks, "_swept", published)
    groups = {setting("Llama-3.1-8B-Instruct", 1): POINTS, setting("Qwen3-14B", 1): POINTS}
    thinking = replace(setting("Qwen3-14B", 1), task="gpqa")
    groups[thinking] = [replace(point, output_tokens=1000.0) for point in POINTS]
    batches, best, reasoning = tool_benchmarks.planned(groups)
    assert batches.published == pytest.approx(3.0)
    assert best.published == 64
    assert reasoning.published == pytest.approx(25.0)
    for row in (batches, best, reasoning):
        assert row.ours == pytest.approx(row.published)
    assert list(tool_benchmarks.planned({})) == []


def test_a_program_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = replace(POINTS[0], output_tokens=-1.0)
    with pytest.raises(tool_benchmarks.ToolError, match="loadgen sweep ended with 2"):
        list(tool_benchmarks.planned({setting("Llama-3.1-8B-Instruct", 1): [point]}))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(tool_benchmarks.ToolError, match="jouleproxy is not installed"):
        list(tool_benchmarks.live([1]))
