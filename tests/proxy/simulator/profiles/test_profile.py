from pathlib import Path

import pytest

from proxy.simulator.profiles.profile import (
    DEFAULT,
    Experts,
    ProfileError,
    Speculation,
    adjusted,
    load,
    names,
    speculation,
)


def test_every_profile_of_the_package_loads_and_names_its_source() -> None:
    assert DEFAULT in names()
    for name in names():
        profile = load(name)
        assert "simulated" in profile.device
        assert profile.limits.kv_tokens > 0


def test_a_profile_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ProfileError, match=names()[0]):
        load("nothing")


def test_a_profile_with_a_wrong_key_says_which(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("model = 'x'\n")
    with pytest.raises(ProfileError, match="missing required field"):
        load(str(path))


def test_a_budget_below_the_streams_is_refused(tmp_path: Path) -> None:
    text = (Path(__file__).parents[4] / "proxy/simulator/profiles" / f"{DEFAULT}.toml").read_text()
    path = tmp_path / "p.toml"
    path.write_text(text.replace("max_batched_tokens = 8192", "max_batched_tokens = 100"))
    with pytest.raises(ProfileError, match="max_batched_tokens is 100"):
        load(str(path))


def test_limits_can_be_given_instead() -> None:
    other = adjusted(load(DEFAULT), max_num_seqs=9000, max_waiting=3, cap_watts=400.0)
    assert (other.limits.max_num_seqs, other.limits.max_batched_tokens) == (9000, 9000)
    assert (other.limits.max_waiting, other.limit_watts) == (3, 400.0)
    assert adjusted(load(DEFAULT)) == load(DEFAULT)
    with pytest.raises(ProfileError, match="not above idle_watts"):
        adjusted(load(DEFAULT), cap_watts=5.0)
    with pytest.raises(ProfileError, match="at least 1"):
        adjusted(load(DEFAULT), max_num_seqs=0)


def test_experts_are_touched_as_tokens_come() -> None:
    experts = Experts(count=8, routed=2)
    assert experts.touched(0) == 0.0
    assert experts.touched(1) == 0.25
    assert experts.touched(500) == pytest.approx(1.0)


def test_speculation_is_read_and_bounded() -> None:
    assert speculation("4,0.7") == Speculation(4, 0.7)
    assert speculation("2,0.5,0.1") == Speculation(2, 0.5, 0.1)
    assert adjusted(load(DEFAULT), speculation=Speculation(1, 0.5)).speculation == Speculation(1, 0.5)
    for wrong in ("0,0.5", "4,1.5", "4,0.5,-1", "4"):
        with pytest.raises(ValueError, match=r"at least one|not enough"):
            speculation(wrong)
