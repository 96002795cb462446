"""Programs whose standard streams are closed, broken or full when they start."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from proxy import stdio
stdio.protect()
found = os.open(os.devnull, os.O_RDONLY)
for line in range(3):
    print("line", line, "\\u2603")
lost = stdio.failure(sys.stdout)
print("descriptor", found > 2, type(lost).__name__, sys.stdin.read(), file=sys.stderr)
"""


def run(redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = f'"$0" -c "$1" {redirection}'
    return subprocess.run(
        ["bash", "-c", script, sys.executable, PROGRAM],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("redirection", "lost"),
    [("", "NoneType"), ("<&-", "NoneType"), (">&-", "NoneType"), ("<&- >&-", "NoneType"),
     (">/dev/full", "OSError")],
)  # fmt: skip
def test_the_program_ends_well_whatever_its_streams_are(redirection: str, lost: str) -> None:
    done = run(redirection)
    assert (done.returncode, done.stderr) == (0, f"descriptor True {lost} \n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_the_program_ends_well_without_standard_error(redirection: str) -> None:
    done = run(redirection)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_gone_away_is_noticed_but_raises_nothing() -> None:
    done = run("| true; exit ${PIPESTATUS[0]}")
    assert done.returncode == 0


def test_characters_that_the_terminal_lacks_are_escaped() -> None:
    done = run("", PYTHONIOENCODING="ascii")
    assert "line 2 \\N{SNOWMAN}" in done.stdout
