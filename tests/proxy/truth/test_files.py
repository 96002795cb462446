from pathlib import Path

import pytest

from proxy.timeline_file import FileError
from proxy.truth.catalogue import Simulated
from proxy.truth.files import Estimate, read_estimates, read_truth, write_truth

TRUTH = {"r0": 2.0, "r1": 3.0}


def estimates(tmp_path: Path, text: str) -> dict[str, Estimate]:
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    return read_estimates(path, TRUTH)


def test_a_truth_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.truth.jsonl"
    write_truth(path, "medium", 7, Simulated([], TRUTH, 4.0))
    assert read_truth(path) == TRUTH
    assert '"case":"medium","seed":7,"case_set":' in path.read_text().splitlines()[0]


def test_estimates_may_have_no_type_an_interval_or_null(tmp_path: Path) -> None:
    found = estimates(
        tmp_path,
        '{"type": "model", "group": "gpu0"}\n'
        '{"request": "r0", "joules": null}\n'
        '{"type": "request", "request": "r1", "joules": 2.5, "joules_low": 2, "joules_high": 4, "more": 1}\n',
    )
    assert found == {"r0": Estimate(None), "r1": Estimate(2.5, 2.0, 4.0)}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"joules": 1}', 'out.jsonl:1: no "request"'),
        ('{"request": "r9", "joules": 1}', "request 'r9' is not in the truth file"),
        ('{"request": "r0", "joules": -1}', "joules is -1.0: it must be a number of joules"),
        ('{"request": "r0", "joules": "1"}', "Expected `float | null`, got `str`"),
        ("r0 1.0", "out.jsonl:1: JSON is malformed"),
        (
            '{"request": "r0", "joules": 1}\n{"request": "r0", "joules": 1}',
            "out.jsonl:2: request 'r0' a second",
        ),
    ],
)
def test_an_invalid_line_is_an_error_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(FileError) as caught:
        estimates(tmp_path, line + "\n")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"request": "r0", "joules": 1}\n', "not a truth file"),
        ('{"type": "truth", "version": 2}\n', "t.jsonl:1: version 2, this program reads 1"),
        ('{"type": "truth", "version": 1}\n', "no request in it"),
        (
            '{"type": "truth", "version": 1}\n{"request": "a", "joules": 0}\n',
            "t.jsonl:2: a request of a truth",
        ),
    ],
)
def test_an_invalid_truth_file_is_an_error(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(FileError, match=reason):
        read_truth(path)
