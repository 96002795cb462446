import json

import pytest

from proxy.meter import feed as module
from proxy.meter.feed import Feed
from tests.fakes.metered import WATTS, a_meter, story


def test_the_history_is_bounded_and_knows_the_unknown() -> None:
    meter, relay = a_meter()
    feed = Feed(meter)
    feed.record_point()
    story(meter, relay, "a")
    for _ in range(module._KEPT - 1):
        feed.record_point()
    points = json.loads(feed.history())
    assert points[0][1] is None, "no reading yet is not zero watts"
    assert points[-1][1:] == [pytest.approx(WATTS, rel=1e-6), 0]
    feed.record_point()
    assert len(json.loads(feed.history())) == module._KEPT


def test_the_state_is_made_once_for_all_who_look() -> None:
    meter, relay = a_meter()
    story(meter, relay, "a")
    feed = Feed(meter)
    first = feed.state()
    assert feed.state() is first
    state = json.loads(first)
    assert state["window_s"] == 60.0
    assert state["parts"] is None, "overlap knows no parts"
    assert state["devices"][0]["device"] == "gpu0"
