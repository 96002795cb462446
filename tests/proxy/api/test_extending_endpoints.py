"""The worked example of docs/extending-endpoints.md works as that page says."""

import re
from pathlib import Path

import pytest

from proxy.api import endpoints
from proxy.api.endpoints import Endpoint, endpoint_of

PAGE = Path(__file__).parents[3] / "docs" / "extending-endpoints.md"


@pytest.fixture
def entry() -> dict[str, Endpoint]:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, "the page has an example"
    made = eval(f"{{{found[1]}}}", {"Endpoint": Endpoint})
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize("path", ["/v1/describe", "/openai/v1/describe", "/describe", "/describe/"])
def test_the_entry_of_the_page_makes_the_endpoint_metered(
    entry: dict[str, Endpoint], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    assert endpoint_of("POST", path) is None
    for name, endpoint in entry.items():
        monkeypatch.setitem(endpoints._ENDPOINTS, name, endpoint)
    found = endpoint_of("POST", path)
    assert found is not None
    assert (found.route, found.asks_usage, found.repeatable) == ("chat", True, True)
