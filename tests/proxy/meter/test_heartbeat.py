from pathlib import Path

from proxy.meter.heartbeat import Heartbeat


def test_the_first_meter_has_none_before_it(tmp_path: Path) -> None:
    beat = Heartbeat(tmp_path / "alive")
    assert beat.previous_ns is None
    beat.close()


def test_the_next_meter_knows_when_the_last_one_lived(tmp_path: Path) -> None:
    killed = Heartbeat(tmp_path / "alive")
    killed.beat(1)
    killed.beat(7)
    beat = Heartbeat(tmp_path / "alive")  # nobody closed the other
    assert beat.previous_ns == 7
    beat.close()
    killed.close()
