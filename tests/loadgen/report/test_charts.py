import msgspec

from loadgen.report.charts import distributions, energy
from loadgen.results.records import Run
from tests.loadgen.report.test_html_page import measured, run
from tests.loadgen.samples import point, record

MS = 1_000_000


def test_distributions_of_the_chosen_points() -> None:
    records = [
        msgspec.structs.replace(
            record(i, scheduled=i * MS, first=(i + 20 + i % 7) * MS, end=(i + 90) * MS, tokens=4), point=p
        )
        for p in range(9)
        for i in range(50)
    ]
    whole = run(*(point(n) for n in range(1, 10)), best=4)
    picture = distributions(whole, records)
    assert picture is not None
    assert picture.startswith(b"<svg")
    assert picture == distributions(whole, records)
    assert distributions(whole, []) is None


def test_energy_is_drawn_only_where_it_was_measured() -> None:
    known = [
        msgspec.structs.replace(measured(n, "nvml"), mean_in_flight=n - 0.5, joules_per_request=40.0)
        for n in (1, 4, 16)
    ]
    shown = energy(run(*known, best=1))
    assert shown is not None
    assert shown.startswith(b"<svg")
    assert energy(run(point(1))) is None
    assert energy(Run(run_id="", spec={}, seed=0, versions={}, verdict="fail", best=None, points=[])) is None


def test_devices_without_parts_are_drawn_without_a_panel_of_parts() -> None:
    alone = msgspec.structs.replace(measured(4, "nvml"), mean_in_flight=3.5, parts_joules={})
    shown = energy(run(alone))  # warnings are errors: an empty legend would be one
    assert shown is not None
    assert shown.count(b'<g id="axes_') == 1
