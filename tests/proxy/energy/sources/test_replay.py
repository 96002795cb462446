from pathlib import Path

import pytest

from proxy import zstd
from proxy.energy.source import SensorError
from proxy.energy.sources.replay import ReplaySource

LINES = (
    b'{"type":"header","version":1,"devices":[{"id":"gpu0","name":"A"}]}\n'
    b'{"type":"sample","t_ns":1000,"device":"gpu0","energy_mj":5}\n'
    b'{"type":"sample","t_ns":1100,"device":"gpu0","energy_mj":6}\n'
    b'{"type":"sample","t_ns":1200,"device":"gpu0","energy_mj":7}\n'
)


@pytest.mark.parametrize("packed", [False, True])
def test_samples_come_when_due_none_lost(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("t.jsonl.zst" if packed else "t.jsonl")
    path.write_bytes(zstd.compress(LINES) if packed else LINES)
    now = [500]
    source = ReplaySource(path, clock=lambda: now[0])
    (found,) = source.open()
    assert found.device.name == "A"
    assert [(s.t_ns, s.energy_mj) for s in source.read()] == [(500, 5)]
    now[0] = 750
    assert [(s.t_ns, s.energy_mj) for s in source.read()] == [(600, 6), (700, 7)]
    assert source.read() == []


def test_a_torn_last_line_is_dropped_and_another_bad_line_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(LINES + b'{"type":"sam')
    assert len(ReplaySource(path, clock=lambda: 0).open()) == 1
    path.write_bytes(b'{"type":"sam\n' + LINES)
    with pytest.raises(SensorError, match=r"t\.jsonl:1:"):
        ReplaySource(path).open()


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(LINES.split(b"\n")[0] + b"\n")
    with pytest.raises(SensorError, match="holds no sample"):
        ReplaySource(path).open()
