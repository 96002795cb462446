"""Ways to estimate the joules of a case: policies of the proxy, formulas of the kit, other programs."""

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy.core.attribution import Attributor
from proxy.core.events import Event
from proxy.core.policies import POLICIES
from proxy.core.timeline import encode_events
from proxy.truth import view
from proxy.truth.catalogue import Simulated
from proxy.truth.files import Estimate, read_estimates
from proxy.truth.formulas import FORMULAS

NAMES: Final = (*POLICIES, *FORMULAS)
# Longest run of a tool on one case, in seconds; a case is a minute of traffic.
TOOL_SECONDS: Final = 600.0


class ToolError(Exception):
    """A tool under test failed; ``str`` is one line with the command and the reason."""


def by_policy(events: Sequence[Event], policy: str) -> dict[str, Estimate]:
    """Return the estimates of a policy of the proxy or of a formula of the kit, by its name."""
    if policy in FORMULAS:
        return {name: Estimate(joules) for name, joules in FORMULAS[policy](view.read(events)).items()}
    core = Attributor(policy)
    core.feed_all(events)
    core.flush()
    return {s.request: Estimate(s.joules, s.joules_low, s.joules_high) for s in core.drain()}


def command_words(command: str) -> list[str]:
    """Split a command as a shell does; raise ``ValueError`` if it lacks a placeholder."""
    words = shlex.split(command)
    for placeholder in ("{timeline}", "{out}"):
        if not any(placeholder in word for word in words):
            raise ValueError(
                f"must contain {placeholder}, as in 'awk -f tool.awk -v out={{out}} {{timeline}}'"
            )
    return words


def by_command(case: Simulated, words: Sequence[str]) -> dict[str, Estimate]:
    """Run a program on the timeline of a case, and return what it wrote.

    The program is started without a shell and sees no truth. Raises :class:`ToolError` if it cannot be
    started, fails or takes longer than ``TOOL_SECONDS``, :class:`~proxy.timeline_file.FileError` for invalid
    output.
    """
    with tempfile.TemporaryDirectory(prefix="jouleproxy-truth-") as folder:
        timeline, out = Path(folder, "timeline.jsonl"), Path(folder, "out.jsonl")
        timeline.write_bytes(encode_events(case.events))
        places = {"{timeline}": str(timeline), "{out}": str(out)}
        _run([_filled(word, places) for word in words])
        if not out.exists():
            raise ToolError(f"{words[0]}: wrote no output: it must create the file given as {{out}}")
        return read_estimates(out, case.joules)


def _filled(word: str, places: dict[str, str]) -> str:
    for placeholder, path in places.items():
        word = word.replace(placeholder, path)
    return word


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    except OSError as error:
        raise ToolError(f"{words[0]}: cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{words[0]}: not finished after {TOOL_SECONDS:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ToolError(f"{words[0]}: exit status {done.returncode}: {last}")
