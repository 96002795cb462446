import msgspec

from loadgen.report.figures import MATPLOTLIB_HINT, draw_figures
from loadgen.report.html_page import report_html
from loadgen.report.plot import draw
from loadgen.report.table import COLUMNS, headline, number, row
from loadgen.results.records import Distribution, Knee, Point, Run, decode_run, encode_run
from tests.loadgen.samples import point


def run(*points: Point, best: int | None = None) -> Run:
    return Run(
        run_id="abc", spec={"slo": "p95:ttft=200ms", "mode": "concurrency", "model": "<m>"}, seed=0,
        versions={"python": "3"}, verdict="pass", best=best, points=list(points),
    )  # fmt: skip


def page(run: Run) -> str:
    return report_html(run, [], draw_figures(run, [])).decode()


def measured(concurrency: int, source: str) -> Point:
    return point(
        concurrency, watts=200.0, joules=400.0, tokens_per_joule=0.2, energy_source=source,
        idle_watts=80.0, parts_joules={"decode": 300.0, "idle": 100.0, "prefill": None},
    )  # fmt: skip


def test_the_same_run_gives_the_same_bytes() -> None:
    one = run(measured(1, "nvml"), measured(4, "nvml"), best=1)
    again = decode_run(encode_run(one))
    assert draw(one) == draw(again)
    assert page(one) == page(again)


def test_the_page_of_a_simulation_is_marked() -> None:
    simulated = page(run(measured(1, "simulated"), measured(2, "simulated")))
    assert "Simulated device" in simulated
    assert "Simulated device" not in page(run(measured(1, "nvml")))
    assert "<m>" not in simulated  # names from the server are escaped


def test_a_run_without_points_or_energy_still_draws() -> None:
    assert draw(run(), "png").startswith(b"\x89PNG")
    assert "<svg" in page(run(point(1)))


def test_without_matplotlib_the_page_explains_how_to_get_figures() -> None:
    bare = report_html(run(measured(1, "nvml")), [], None).decode()
    assert "jouleproxy[plot]" in bare
    assert "<svg" not in bare
    assert "pip install" in MATPLOTLIB_HINT


def test_rows() -> None:
    cells = row(msgspec.structs.replace(point(3), slo_confidence="undecided"))
    assert len(cells) == len(COLUMNS)
    assert (cells[0], cells[-1]) == ("3", "met?")
    assert row(point(3, generator_bound=True))[-1] == "generator!"
    assert [number(v) for v in (None, 0.01234, 12.34, 1234.5)] == ["-", "0.0123", "12.3", "1,234"]


def test_headlines() -> None:
    assert headline(msgspec.structs.replace(run(point(1), best=0), spec={})).startswith("DONE: no SLO")
    assert headline(run(point(1), point(2), best=1)).startswith("PASS (SLO")
    assert "concurrency 2" in headline(run(point(1), point(2), best=1))
    bound = msgspec.structs.replace(run(), verdict="generator-bound")
    assert headline(bound).startswith("GENERATOR-BOUND")
    knee = Knee(kind="concurrency", level=2.0, low=1.0, high=3.0, reason="", probes=2, seconds=8.0)
    unconfirmed = msgspec.structs.replace(run(point(1), point(2)), verdict="fail", knee=knee)
    assert headline(unconfirmed).startswith("FAIL: no load was confirmed within the SLO")
    grew = msgspec.structs.replace(run(point(1, stable=False)), verdict="fail", spec={})
    assert headline(grew).startswith("FAIL: no point was stable")


def test_responses_without_a_first_token_are_drawn_by_their_end() -> None:
    def drawn(one: Point) -> bytes:
        return draw(msgspec.structs.replace(run(one), spec={"mode": "concurrency"}))

    nothing = point(2, ttft_seconds=Distribution(), output_tokens_per_second=None)
    ended = msgspec.structs.replace(nothing, e2e_seconds=Distribution(count=9, mean=3.0, p50=3.0))
    # With a first token its curve is drawn instead, and the end changes nothing.
    assert drawn(ended) != drawn(nothing)
    first = Distribution(count=9, mean=0.1, p50=0.1)
    streamed = [msgspec.structs.replace(one, ttft_seconds=first) for one in (ended, nothing)]
    assert drawn(streamed[0]) == drawn(streamed[1])
