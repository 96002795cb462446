"""Captured answers of real engines; they lie outside the project, and tests skip without them."""

from dataclasses import dataclass

import pytest

from tests.beside import beside

FOLDER = beside("JOULEPROXY_CAPTURES", "engines")


@dataclass(frozen=True, slots=True)
class Capture:
    status: int
    body: bytes

    @property
    def events(self) -> list[bytes]:
        """The events of a stream, each with its blank line."""
        lines = [line for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return [line + b"\n\n" for line in lines]


def capture(name: str) -> Capture:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no captures of real engines: {path} (JOULEPROXY_CAPTURES)")
    raw = path.read_bytes().replace(b"\r\n", b"\n")
    start = raw.index(b"HTTP/1.1 ")
    head, _, body = raw[start:].partition(b"\n\n")
    return Capture(int(head.split()[1]), body.strip(b"\n"))
