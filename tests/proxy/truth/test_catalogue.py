from dataclasses import replace

import pytest

from proxy.core.timeline import encode_events
from proxy.truth import catalogue
from proxy.truth.cases import CASES


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(CASES, "short", replace(CASES["medium"], seconds=4.0))
    return "short"


def test_a_case_is_found_by_name_and_by_slug() -> None:
    assert catalogue.find("roofline, heavy") == catalogue.find("roofline-heavy") == "roofline, heavy"
    assert catalogue.find("roofline") is None


def test_the_slugs_of_all_cases_differ() -> None:
    slugs = [catalogue.slug(name) for name in catalogue.names()]
    assert len(set(slugs)) == len(slugs)


def test_the_description_lists_what_differs_from_the_defaults() -> None:
    assert catalogue.describe("budget 512") == "budget=512"
    assert catalogue.describe("2 replicas") == "rate=24.0, replicas=2"


def test_a_seed_gives_the_same_bytes_and_another_seed_others(short: str) -> None:
    first, again, other = (catalogue.simulate(short, seed) for seed in (5, 5, 6))
    assert encode_events(first.events) == encode_events(again.events)
    assert first.joules == again.joules
    assert encode_events(first.events) != encode_events(other.events)


def test_the_fingerprint_changes_with_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    before = catalogue.fingerprint()
    monkeypatch.setitem(CASES, "medium", replace(CASES["medium"], budget=1024))
    assert catalogue.fingerprint() != before
