import json
from pathlib import Path

from proxy.gpu import curve

POINT = {
    "concurrency": 4,
    "requests": 69,
    "failed": 0,
    "output_tokens_per_second": 548.4,
    "watts": 359.7,
    "tokens_per_joule": 1.52,
    "energy_source": "nvml-simulated",
    "slo_met": True,
}


def test_a_curve_is_read_from_the_load_generators_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"points": [POINT]}))
    found = curve.read("direct", tmp_path)
    assert found.energy_source == "nvml-simulated"
    assert found.levels == [curve.Level(4, 69, 0, 548.4, 359.7, 1.52, True)]


def test_a_point_without_energy_has_none(tmp_path: Path) -> None:
    point = POINT | {"watts": None, "tokens_per_joule": None, "energy_source": None}
    (tmp_path / "run.json").write_text(json.dumps({"points": [point]}))
    (level,) = curve.read("direct", tmp_path).levels
    assert (level.watts, level.tokens_per_joule) == (None, None)
