"""Without Ray; with it, on a real cluster: ``tests/engines/test_ray.py``."""

import importlib.util
from pathlib import Path

import pytest

from loadgen.config.spec import Config, Spec
from loadgen.drive.preflight import PreflightError
from loadgen.fleet.leader import fleet


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
async def test_without_the_extra_it_says_what_to_install() -> None:
    spec = Spec(
        command="run", mode="rate", levels=(1.0,), url="http://h:1", admin_url="http://h:2", ray="auto"
    )
    with pytest.raises(PreflightError, match=r"--ray needs Ray: pip install 'jouleproxy\[ray\]'"):
        await fleet(Config(spec=spec, out=Path()), "m", "r")
