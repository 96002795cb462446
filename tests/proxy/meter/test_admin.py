import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.clock import now_ns
from proxy.exporters.metrics import Snapshot
from proxy.exporters.prometheus import PrometheusExporter
from proxy.ipc import BackendState
from proxy.meter.admin import application
from proxy.meter.feed import Feed
from proxy.meter.meter import Meter
from proxy.units import NS_PER_SECOND
from tests.fakes.metered import WATTS, a_meter, begin, samples, story

Client = TestClient[Any, Any]


@asynccontextmanager
async def admin(meter: Meter, token: str | None = None) -> AsyncIterator[Client]:
    metrics = PrometheusExporter(lambda: Snapshot(meter.attributor.accounts(), {}, 0))
    async with TestClient(TestServer(application(meter, metrics, Feed(meter), token))) as client:
        yield client


async def get(client: Client, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/json"
    return await answer.json()


async def test_a_record_by_its_id_and_lists_of_them() -> None:
    meter, relay = a_meter()
    story(meter, relay, "a", "b")
    async with admin(meter) as client:
        record = await get(client, "/energy/requests/a")
        assert record["joules"] == pytest.approx(WATTS / 2, rel=1e-6)
        assert (record["final"], record["model"], record["unknown"]) == (True, "m", None)
        assert [r["request_id"] for r in await get(client, "/energy/requests")] == ["b", "a"]
        assert len(await get(client, "/energy/requests?limit=1")) == 1
        assert await get(client, "/energy/requests?model=other") == []
        assert len(await get(client, "/energy/requests?tenant=t&since=1.5e9")) == 2
        assert await get(client, f"/energy/requests?since={9e9}") == []
        assert [r["request_id"] for r in await get(client, "/energy/requests?ids=b,nobody")] == ["b"]
        answer = await client.post("/energy/requests", json=["a", "b"])
        assert [r["request_id"] for r in await answer.json()] == ["a", "b"]


async def test_backends_are_shown_as_the_relays_see_them() -> None:
    meter, relay = a_meter()
    async with admin(meter) as client:
        (backend,) = (await get(client, "/backends"))["backends"]
        assert (backend["name"], backend["devices"], backend["state"]) == ("b", ["gpu0"], None)
        since = now_ns() - 2 * NS_PER_SECOND
        meter.receive(relay, [BackendState("b", "down", 3, since, "refused", ("m",))])
        (backend,) = (await get(client, "/backends"))["backends"]
        assert (backend["state"], backend["outstanding"], backend["models"]) == ("down", 3, ["m"])
        (seen,) = backend["workers"]
        assert (seen["reason"], seen["for_seconds"]) == ("refused", pytest.approx(2.0, abs=0.5))
        assert (await get(client, "/readyz"))["backends"] == {"b": "down"}
        meter.connection_lost(relay, now_ns())
        (backend,) = (await get(client, "/backends"))["backends"]
        assert (backend["state"], backend["workers"]) == (None, [])


async def test_asked_to_wait_it_answers_when_the_record_is_final() -> None:
    meter, relay = a_meter()
    now = now_ns()
    samples(meter, now - 3 * NS_PER_SECOND, now)
    begin(meter, relay, "a", now - 2 * NS_PER_SECOND)
    meter.tick(0)
    meter.tick(now)
    async with admin(meter) as client:
        early = await get(client, "/energy/requests/a?wait_seconds=0.05")
        assert early["final"] is False
        waiting = asyncio.ensure_future(get(client, "/energy/requests/a?wait_seconds=10"))
        meter.intake.connection_lost(relay, now)
        samples(meter, now, now + NS_PER_SECOND)
        meter.tick(now + 2 * NS_PER_SECOND)
        assert (await waiting)["final"] is True


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/energy/requests/nobody", 404, None),
        ("/energy/nothing", 404, None),
        ("/energy/requests?limit=many", 400, "limit"),
        ("/energy/requests?limit=-1", 400, "limit"),
        ("/energy/requests?since=1e400", 400, "since"),
        ("/energy/requests?since=nan", 400, "since"),
        ("/energy/requests/a?wait_seconds=3600", 400, "wait_seconds"),
        ("/energy/summary?by=colour", 400, "by"),
        ("/energy/summary?window=1e999", 400, "window"),
        ("/energy/window", 400, "start_ns"),
        ("/energy/window?start_ns=5", 400, "end_ns"),
        ("/energy/window?start_ns=5&end_ns=5", 400, "end_ns"),
        ("/energy/window?start_ns=inf&end_ns=5", 400, "start_ns"),
    ],
)
async def test_wrong_questions_are_named_in_openais_shape(path: str, status: int, param: str | None) -> None:
    meter, _ = a_meter()
    async with admin(meter) as client:
        error = (await get(client, path, status))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert param is None or error["message"].startswith(f"{param}: ")


async def test_wrong_methods_and_bodies_are_named() -> None:
    meter, _ = a_meter()
    async with admin(meter) as client:
        assert (await client.delete("/energy/devices")).status == 405
        for body in (b'{"ids": 1}', b'["\xff"]'):
            answer = await client.post("/energy/requests", data=body)
            assert (answer.status, (await answer.json())["error"]["param"]) == (400, "body")
        many = await client.post("/energy/requests", json=["x"] * 10_001)
        assert (many.status, (await many.json())["error"]["param"]) == (400, "ids")


async def test_with_a_token_all_but_health_and_the_empty_page_ask_for_it() -> None:
    meter, _ = a_meter()
    async with admin(meter, "secret") as client:
        for path in ("/healthz", "/readyz", "/", "/dashboard.js"):
            assert (await client.get(path)).status == 200
        for path in ("/metrics", "/energy/requests", "/energy/devices", "/energy/model", "/events", "/none"):
            refused = await client.get(path)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "Bearer TOKEN" in (await refused.json())["error"]["message"]
        for given in ("secret", "Bearer", "Bearer secret2", "Basic secret"):
            assert (await client.get("/metrics", headers={"Authorization": given})).status == 401
        right = {"Authorization": "Bearer secret"}
        assert (await client.get("/energy/devices", headers=right)).status == 200


async def test_it_is_ready_while_a_relay_is_there() -> None:
    meter, relay = a_meter()
    async with admin(meter) as client:
        assert (await get(client, "/readyz"))["relays"] == 1
        meter.intake.connection_lost(relay, now_ns())
        assert (await get(client, "/readyz", 503))["error"]["code"] == "not_ready"
        assert (await get(client, "/healthz"))["source"] == "simulated"


async def test_devices_and_windows_add_up() -> None:
    meter, relay = a_meter()
    start, end = story(meter, relay, "a", "b")
    async with admin(meter) as client:
        (total,) = (await get(client, "/energy/devices"))["devices"]
        (during,) = (await get(client, f"/energy/window?start_ns={start}&end_ns={end}"))["devices"]
        clock = await get(client, "/energy/clock")
    assert clock["now_ns"] >= end
    for account in (total, during):
        parts = (account[f"{name}_joules"] for name in ("requests", "idle", "unattributed"))
        assert sum(parts) == pytest.approx(account["measured_joules"], rel=1e-9)
    assert total["requests_joules"] == pytest.approx(WATTS, rel=1e-6)
    assert during["measured_joules"] == pytest.approx(WATTS, rel=1e-6)
    assert total["measured_joules"] > 2 * WATTS


async def test_the_summary_groups_and_looks_back() -> None:
    meter, relay = a_meter()
    story(meter, relay, "a", "b")
    async with admin(meter) as client:
        (group,) = await get(client, "/energy/summary?by=tenant")
        assert (group["group"], group["requests"], group["unknown"]) == ("t", 2, 0)
        assert group["joules_per_output_token"] == pytest.approx(WATTS / 10, rel=1e-6)
        assert await get(client, "/energy/summary?by=route&window=0.5") == []
        assert await get(client, "/energy/model") == {"policy": "overlap", "terms": []}


async def test_a_scheme_has_no_case_and_a_header_any_bytes() -> None:
    meter, _ = a_meter()
    async with admin(meter, "secret") as client:
        for given, status in (("bearer secret", 200), ("BEARER secret", 200), ("Bearer \udcff", 401)):
            answer = await client.get("/metrics", headers={"Authorization": given})
            assert answer.status == status


async def test_the_links_of_the_page_lead_somewhere_and_are_fetched_with_the_token() -> None:
    meter, _ = a_meter()
    async with admin(meter, "secret") as client:
        footer = (await (await client.get("/")).text()).partition("<footer")[2]
        links = re.findall(r'href="([^"]+)"', footer)
        assert len(links) == 5
        for link in links:
            assert (await client.get(f"/{link}")).status == 401
            assert (await client.get(f"/{link}", headers={"Authorization": "Bearer secret"})).status == 200
        script = await (await client.get("/dashboard.js")).text()
        assert 'document.querySelectorAll("footer a")' in script
        assert 'addEventListener("click", openWithToken)' in script


async def test_metrics_and_the_page_are_served() -> None:
    meter, _ = a_meter()
    async with admin(meter) as client:
        plain = await client.get("/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain")
        asked = {"Accept": "application/openmetrics-text"}
        assert "openmetrics" in (await client.get("/metrics", headers=asked)).headers["Content-Type"]
        page = await client.get("/")
        assert page.content_type == "text/html"
        assert "<title>jouleproxy</title>" in await page.text()
        for name in re.findall(r'(?:src|href)="(dashboard[^"]+)"', await page.text()):
            assert (await client.get(f"/{name}")).status == 200


async def test_the_feed_begins_with_the_history_then_tells_the_state() -> None:
    meter, relay = a_meter()
    story(meter, relay, "a")
    async with admin(meter) as client, client.get("/events") as feed:
        assert feed.content_type == "text/event-stream"
        assert await feed.content.readuntil(b"\n\n") == b"event: history\ndata: []\n\n"
        for _ in range(2):
            event = await feed.content.readuntil(b"\n\n")
            state = json.loads(event.removeprefix(b"data: "))
            assert state["simulated"] is True
            assert [r["request_id"] for r in state["requests"]] == ["a"]
            assert state["summary"][0]["joules"] == pytest.approx(WATTS, rel=1e-6)


async def test_an_error_of_ours_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    meter, _ = a_meter()
    del meter.attributor
    async with admin(meter) as client:
        error = (await get(client, "/energy/devices", 500))["error"]
    assert error["code"] == "internal_error"
    assert "/energy/devices failed" in caplog.text
