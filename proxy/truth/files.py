"""Truth files and the output of a tool under test: JSON lines, version 1.

A truth file has one line for each kind of fact::

    {"type": "truth", "version": 1, "case": "medium", "seed": 1, "case_set": 1, "fingerprint": "0f31..."}
    {"type": "request", "request": "r0", "joules": 21.4}
    {"type": "idle", "joules": 812.0}

A tool writes one line for each request: ``request`` and ``joules``, and its 90 % interval as ``joules_low``
and ``joules_high`` if it has one. ``joules`` is null where the tool has no estimate. Lines with another
``type`` are ignored, so that the output of ``jouleproxy attribute`` is valid as it is.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from proxy.timeline_file import FileError, lines
from proxy.truth.catalogue import CASE_SET_VERSION, Simulated, fingerprint

TRUTH_VERSION: Final = 1
_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Estimate:
    """Joules of one request as a tool reports them; None where it has no estimate or no interval."""

    joules: float | None
    low: float | None = None
    high: float | None = None


class _Line(msgspec.Struct):
    """One line of either file; fields that a kind does not have stay at their defaults."""

    type: str = "request"
    version: int | None = None
    request: str | None = None
    joules: float | None = None
    joules_low: float | None = None
    joules_high: float | None = None


def write_truth(path: Path, name: str, seed: int, case: Simulated) -> None:
    """Write the truth file of a simulated case."""
    head = {
        "type": "truth",
        "version": TRUTH_VERSION,
        "case": name,
        "seed": seed,
        "case_set": CASE_SET_VERSION,
        "fingerprint": fingerprint(),
    }
    rows: list[dict[str, object]] = [head]
    rows += [{"type": "request", "request": r, "joules": joules} for r, joules in case.joules.items()]
    rows.append({"type": "idle", "joules": case.idle_joules})
    path.write_bytes(_ENCODER.encode_lines(rows))


def read_truth(path: Path) -> dict[str, float]:
    """Return the joules of each request; raise :class:`FileError` or ``OSError``."""
    joules: dict[str, float] = {}
    seen_head = False
    for number, line in _decoded(path):
        if line.type == "truth":
            if line.version != TRUTH_VERSION:
                raise FileError(
                    f"{path}:{number}: version {line.version}, this program reads {TRUTH_VERSION}"
                )
            seen_head = True
        elif line.type == "request":
            if line.request is None or line.joules is None or not line.joules > 0.0:
                raise FileError(
                    f"{path}:{number}: a request of a truth file needs request and joules above 0"
                )
            joules[line.request] = line.joules
    if not seen_head:
        raise FileError(f'{path}: not a truth file: no line {{"type": "truth", "version": 1, ...}}')
    if not joules:
        raise FileError(f"{path}: no request in it")
    return joules


def read_estimates(path: Path, known: Mapping[str, float]) -> dict[str, Estimate]:
    """Return the estimates of a tool; raise :class:`FileError` or ``OSError``.

    A request that the truth does not have, that comes twice, or whose joules are negative is an error.
    """
    found: dict[str, Estimate] = {}
    for number, line in _decoded(path):
        if line.type != "request":
            continue
        where = f"{path}:{number}"
        if line.request is None:
            raise FileError(f'{where}: no "request": each line needs the request\'s name and "joules"')
        if line.request in found:
            raise FileError(f"{where}: request {line.request!r} a second time")
        if line.request not in known:
            raise FileError(f"{where}: request {line.request!r} is not in the truth file")
        for key in ("joules", "joules_low", "joules_high"):
            value = getattr(line, key)
            if value is not None and not 0.0 <= value < math.inf:
                raise FileError(
                    f"{where}: {key} is {value}: it must be a number of joules, 0 or more, or null"
                )
        found[line.request] = Estimate(line.joules, line.joules_low, line.joules_high)
    return found


def _decoded(path: Path) -> Iterator[tuple[int, _Line]]:
    decoder = msgspec.json.Decoder(_Line)
    for number, text in enumerate(lines(path), 1):
        if not text.strip():
            continue
        try:
            yield number, decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FileError(f"{path}:{number}: {error}: one JSON object a line is expected") from error
