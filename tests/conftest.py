"""Settings that all tests share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is a property of the machine and of what else runs on it: neither the deadline
# of an example nor the health check that counts the seconds of drawing data may fail a test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_FIRST = "test_compiled.py"  # a build of half a minute, then test processes of their own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no test process works alone at the end."""
    items.sort(key=lambda item: Path(item.path).name != _FIRST)
