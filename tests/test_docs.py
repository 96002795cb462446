"""Numbers, names and tables in the documentation are those of the program.

``tests/test_readme.py`` runs the examples and follows the links; ``tests/generated.py`` writes complete
tables.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from proxy import agent, subprocesses, supervisor
from proxy.api import endpoints
from proxy.config.settings import OPTIONS
from proxy.core.energy import energy_series, plausible
from proxy.energy.sampling import probe, sampler
from proxy.energy.sources import nvml, prometheus, remote_clock
from proxy.exporters import conventions, labels, otel, otel_settings, store
from proxy.exporters import prometheus as metrics_page
from proxy.meter import intake
from proxy.relay import meter_link
from proxy.relay.exchange import held_error, replay, request
from proxy.units import NS_PER_MS, NS_PER_SECOND
from tests.fakes.finished import finished

DOCS: Final = Path(__file__).parents[1] / "docs"
MIB: Final = 1 << 20


def page(name: str) -> str:
    """Return a page with its white space collapsed, so that phrases may span lines."""
    return " ".join((DOCS / name).read_text(encoding="utf-8").split())


def words(number: float) -> str:
    """Return a small number as prose has it."""
    return {2: "twice", 5: "five", 10: "ten", 60: "a minute", 3600: "an hour"}[int(number)]


def seconds(ns: int) -> str:
    return f"{ns / NS_PER_SECOND:g} s"


PHRASES: Final = [
    ("telemetry.md", f"A label has at most {labels.LABEL_LIMIT} values"),
    ("telemetry.md", f"the energy metric {metrics_page.SERIES_LIMIT:,} series"),
    ("telemetry.md", f"not used for {words(labels.IDLE_NS / NS_PER_SECOND)}"),
    ("telemetry.md", f"up to FILE.{store.KEPT_FILES}"),
    ("telemetry.md", f"A timeout below {otel_settings._IN_MS} is in seconds"),
    ("telemetry.md", f"default {otel._TIMEOUT_SECONDS:g} s"),
    ("telemetry.md", f"after increasing delays (up to {words(subprocesses._BACKOFF_SECONDS[-1])})"),
    ("sensors.md", f"{plausible.EXCURSION:g} times the device's highest power limit"),
    ("sensors.md", f"{prometheus._GPU_WATTS / 1e3:g} kW (a GPU of an exporter or of Zeus)"),
    ("sensors.md", f"{prometheus._NAMED_WATTS / 1e3:g} kW (a metric named by the user"),
    ("sensors.md", f"else {plausible.GENERIC_WATTS / 1e3:g} kW"),
    ("sensors.md", f"power readings change ({seconds(energy_series.STILL_NS)})"),
    ("sensors.md", f"or for {seconds(energy_series.STUCK_NS)} with any power reading"),
    ("sensors.md", f"advanced regularly for {seconds(energy_series.TRUSTED_NS)}"),
    ("sensors.md", f"any device for {seconds(prometheus.STALE_NS)}, the exporter is considered dead"),
    ("sensors.md", f"the narrowest of the last {remote_clock._KEEP} exchanges"),
    ("sensors.md", f"keeps them for {words(agent.KEEP_SAMPLES // (8 * 20) // 60)} minutes"),
    ("sensors.md", f"Calls of more than {probe._SLOW_CALL_NS // NS_PER_MS} ms cannot find updates"),
    ("sensors.md", f"{words(NS_PER_SECOND / sampler._TRACK_NS).capitalize()} a second one of the counters"),
    ("sensors.md", f"Volta and newer | {nvml._GAIN_ERROR:.0%} |".replace("%", " %")),
    ("sensors.md", f"instantaneous on older devices | {nvml._POWER_ERROR:.0%} |".replace("%", " %")),
    (
        "operations.md",
        f"buffered completely before it is forwarded, up to {replay.MAX_READ_BYTES // MIB} MiB",
    ),
    ("operations.md", f"the first {request._MAX_DECOMPRESSED_BYTES // MIB} MiB after decompression"),
    ("operations.md", f"{replay._MAX_REPLAY_BYTES // 1024} KiB of others"),
    ("operations.md", f"not added for {words(held_error.FORGET_SECONDS / 60)} minutes"),
    (
        "operations.md",
        f"restarted after {subprocesses._BACKOFF_SECONDS[0]:g} s, then after increasing delays",
    ),
    ("operations.md", f"up to {supervisor._RELAY_WAIT_SECONDS:g} s for a worker and a minute for the meter"),
    ("architecture.md", f"written every {meter_link._GATHER_SECONDS * 1e3:g} ms"),
    ("architecture.md", f"`settle_seconds` ({OPTIONS['settle_seconds'].default:g} s)"),
    ("../README.md", f"(up to {request._ID_LENGTH} characters)"),
]


@pytest.mark.parametrize(("name", "phrase"), PHRASES, ids=[phrase for _, phrase in PHRASES])
def test_a_number_in_a_page_is_that_of_the_program(name: str, phrase: str) -> None:
    assert phrase in page(name)


def defaults() -> Iterator[tuple[str, str]]:
    """Yield each setting and its default in the table of health checks."""
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", (DOCS / "operations.md").read_text(), re.MULTILINE
    )
    for names, values in rows:
        settings = re.findall(r"`(\w+)`", names)
        if all(name in OPTIONS for name in settings):
            yield from zip(settings, values.replace("`", "").split(", "), strict=True)


@pytest.mark.parametrize(("name", "value"), list(defaults()))
def test_a_default_in_the_operations_page_is_that_of_the_setting(name: str, value: str) -> None:
    default = OPTIONS[name].default
    assert value.strip() == (str(default).lower() if isinstance(default, bool | str) else f"{default:g}")


def paths() -> Iterator[tuple[str, str]]:
    """Yield route and path of each row of the table of metered paths."""
    table = (DOCS / "operations.md").read_text().split("| route in records | paths |")[1].split("\n\n")[0]
    for routes, cell in re.findall(r"^\| (`.*?`) \| (.*) \|$", table, re.MULTILINE):
        names = re.findall(r"`(\w+)`", routes)
        groups = cell.split(";")
        for path in re.findall(r"`(/[\w/.-]+)`", cell):
            yield "|".join(names), path.replace("...", "speech")
        assert len(groups) in {1, len(names)}


def test_the_operations_page_lists_every_metered_path_with_its_route() -> None:
    listed = {path: routes.split("|") for routes, path in paths()}
    for path, routes in listed.items():
        found = endpoints.endpoint_of("POST", path)
        assert found is not None, path
        assert found.route in routes, path
    text = (DOCS / "operations.md").read_text()
    missing = [path for path in endpoints._ENDPOINTS if f"`{path}`" not in text]
    assert [path for path in missing if not path.startswith(tuple(endpoints._FAMILIES))] == []


def test_the_telemetry_page_names_every_attribute_of_a_call() -> None:
    text = (DOCS / "telemetry.md").read_text()
    names = set(conventions.energy_attributes(finished().record))
    missing = [name for name in names if name not in text and not text.count(f"`.{name.rpartition('.')[2]}`")]
    assert missing == []


def test_events_are_never_held_longer_than_the_ledger_waits_for_usage() -> None:
    assert float(str(OPTIONS["settle_seconds"].default)) >= intake.MAX_REORDER_NS / NS_PER_SECOND
