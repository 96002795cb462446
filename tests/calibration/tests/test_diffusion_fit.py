from pathlib import Path

import pytest

from proxy.simulator.engine.diffusion import load, names
from tests.calibration import diffusion_fit
from tests.calibration.published import TableError

HEAD = (
    "model_id,gpu_model,num_gpus,batch_size,inference_steps,height,width,num_frames,fps,batch_latency_s,"
    "energy_per_generation_joules"
)


def table(path: Path) -> Path:
    rows = [f"maker/Film-1B,H100,1,{b},10,480,832,81,16,{10 * (0.1 + 0.5 * b)},{600 * 5}" for b in (1, 2, 4)]
    slower = "maker/Film-1B,H100,1,2,10,480,832,81,16,99,9999"
    path.write_text("\n".join([HEAD, *rows, slower]) + "\n")
    return path


def test_the_fastest_layout_of_each_batch_is_fitted(tmp_path: Path) -> None:
    ((key, points),) = diffusion_fit.read(table(tmp_path / "t.csv")).items()
    assert [point.samples for point in points] == [1, 2, 4]
    profile = diffusion_fit.fit(key, points)
    assert profile.kind == "video"
    assert profile.seconds.static == pytest.approx(0.1, rel=0.01)
    assert profile.seconds.sample(points[0].shape.tokens) == pytest.approx(0.5, rel=0.01)
    assert max(diffusion_fit.errors(profile, points)) < 0.01
    assert diffusion_fit.file_name(key) == "h100-film-1b"


def test_profiles_survive_being_written(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text(diffusion_fit.toml(load(names()[0])))
    assert load(str(path)) == load(names()[0])


def test_attention_grows_with_length() -> None:
    assert 0.6 < diffusion_fit.attention_share("Wan2.1-T2V-1.3B-Diffusers", 32_760) < 0.8
    assert diffusion_fit.attention_share("unknown", 32_760) == 0.0


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    path.write_text(path.read_text().replace(",480,", ",tall,", 1))
    with pytest.raises(TableError, match="line 2: ValueError"):
        diffusion_fit.read(path)
