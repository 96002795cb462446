"""Parts that fail do not cost the others their results."""

from pathlib import Path

from proxy.gpu import parts
from proxy.gpu.engine import Runner
from proxy.gpu.report import Report
from tests.proxy.gpu.modelled import ModelledDevice


def no_memory() -> Runner:
    raise MemoryError("the model does not fit")


def test_a_model_that_cannot_be_built_is_a_part_that_failed(tmp_path: Path) -> None:
    found = Report(True, "none", {})
    parts.run(["a", "c", "d"], found, ModelledDevice(), no_memory, parts.TINY, tmp_path)
    assert found.failed == {"b": "MemoryError: the model does not fit"}


def test_no_model_is_built_for_parts_that_need_none(tmp_path: Path) -> None:
    found = Report(True, "none", {})
    parts.run([], found, ModelledDevice(), no_memory, parts.TINY, tmp_path)
    assert found.failed == {}
