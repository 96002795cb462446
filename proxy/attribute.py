"""``jouleproxy attribute``: compute the energy of requests from a recorded timeline, as JSON lines.

It runs the same core on the same events as the meter did, so that the results are equal to the last bit.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from proxy.core.attribution import Attributor, Share
from proxy.core.timeline import TimelineError, TimelineReader
from proxy.schema import DeviceAccount, ModelTerms
from proxy.timeline_file import FileError, read_blocks

_ENCODER: Final = msgspec.json.Encoder()


def request_line(share: Share) -> dict[str, object]:
    """Return the ``request`` line of a share."""
    parts = share.parts
    return {
        "type": "request",
        "request": share.request,
        "joules": share.joules,
        "joules_low": share.joules_low,
        "joules_high": share.joules_high,
        "parts": parts
        and {
            "static": parts.static,
            "prefill": parts.prefill,
            "decode": parts.decode,
            "context": parts.context,
            "unseparated": parts.unseparated,
        },
        "policy": share.policy,
        "evidence": share.evidence,
        "cached_from": share.cached_from,
        "devices": share.devices,
        "unknown": share.unknown,
        "engines": share.engines,
    }


def device_line(account: DeviceAccount) -> dict[str, object]:
    """Return the ``device`` line of an account."""
    return {
        "type": "device",
        "device": account.device,
        "measured": account.measured_joules,
        "requests": account.requests_joules,
        "idle": account.idle_joules,
        "unattributed": account.unattributed_joules,
        "gaps": account.gaps,
    }


def model_line(terms: ModelTerms) -> dict[str, object]:
    """Return the ``model`` line of a group's fitted terms."""
    return {
        "type": "model",
        "group": terms.group,
        "static_j": terms.static_j,
        "decode_j": terms.decode_j,
        "context_j": terms.context_j,
        "prefill_j": terms.prefill_j,
        "idle_w": terms.idle_w,
        "r2": terms.r2,
        "unseparated": terms.unseparated,
        "prior": terms.prior,
    }


def attribute(timeline: Path, policy: str, out: IO[bytes]) -> int | None:
    """Write the lines of all requests, devices and groups of a timeline.

    Args:
        timeline: The file, plain, zstd or gzip.
        policy: Name of the policy.
        out: Receives the lines.

    Returns:
        Number of an incomplete last line, which was ignored; None if there was none.

    Raises:
        OSError: if a file cannot be read or written.
        FileError: if the timeline is damaged.
        TimelineError: for an invalid line.
    """
    reader = TimelineReader()
    core = Attributor(policy=policy)
    for events in read_blocks(timeline, reader):
        core.feed_all(events)
        out.writelines(_line(request_line(share)) for share in core.drain())
    core.flush()
    out.writelines(_line(request_line(share)) for share in core.drain())
    out.writelines(_line(device_line(account)) for account in core.accounts())
    out.writelines(_line(model_line(terms)) for terms in core.terms())
    return reader.torn


def _line(record: dict[str, object]) -> bytes:
    return _ENCODER.encode(record) + b"\n"


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name only after it was written completely; it is removed on an error."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def run(timeline: Path, policy: str, out: Path | None) -> int:
    """Run the command; return exit status 0, or 2 after ``file:line: reason`` on stderr."""
    try:
        if out is None:
            torn = attribute(timeline, policy, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with atomic(out) as file:
                torn = attribute(timeline, policy, file)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TimelineError as error:
        return _fail(f"{timeline}:{error.line}: {error.reason}")
    except FileError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or timeline}: {error.strerror or error}")
    if torn is not None:
        sys.stderr.write(f"{timeline}:{torn}: the last line is incomplete and was ignored\n")
    return 0


def _fail(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 2
