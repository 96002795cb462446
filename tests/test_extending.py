"""The worked examples of docs/extending.md work as described there.

Each example is taken out of the page, added to its register and used.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.api import endpoints
from proxy.api.endpoints import Endpoint, endpoint_of
from proxy.cli import main
from proxy.config import ConfigError, MeterConfig
from proxy.config.settings import load
from proxy.config.sources import SOURCES, SourceKind
from proxy.energy.choice import choose
from proxy.evidence.engine_metrics import ENGINES, EngineMetrics, EngineState, parse_metrics
from proxy.exporters.metrics import REQUEST_METRICS, Metric, RequestMetric, Snapshot
from proxy.exporters.prometheus import PrometheusExporter
from tests import generated
from tests.fakes.finished import RECORD, finished

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
UPSTREAM = {"upstream": "http://127.0.0.1:8000"}


def examples(heading: str) -> list[str]:
    """Return the Python blocks below a heading of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def evaluate(example: str) -> Any:
    """Return the entry of an example."""
    names = (Endpoint, EngineMetrics, Metric, RequestMetric, SourceKind)
    return eval(example, {name.__name__: name for name in names})


@pytest.mark.parametrize(
    "heading", ["An energy source", "A metered endpoint", "A metric", "An engine's load"]
)
def test_the_examples_are_formatted_and_pass_the_linter(heading: str) -> None:
    for example in examples(heading):
        for command in (["format", "--check"], ["check", "--ignore", "D100,B018,F821"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--stdin-filename", "proxy/example.py", "-"],
                input=example,
                capture_output=True,
                text=True,
                check=False,
                cwd=Path(__file__).parents[1],
            )
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def hwmon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SourceKind:
    """Return the example of a source, as a module of ``proxy.energy`` and an entry of the register."""
    code, entry = examples("An energy source")
    file = tmp_path / "hwmon.py"
    file.write_text(code)
    kind = evaluate(entry)
    assert isinstance(kind, SourceKind)
    name = kind.factory.partition(":")[0]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(SOURCES, kind.name, kind)
    return kind


def test_a_new_source_is_opened_and_read_by_its_name(hwmon: SourceKind, tmp_path: Path) -> None:
    sensor = tmp_path / "power1_input"
    sensor.write_text("123456000\n")
    argument = f"{hwmon.name}:{sensor}"
    config = load({**UPSTREAM, "source": argument}, {})
    choice = choose(config.meter)
    assert choice.name == "hwmon"
    assert [(sample.device, sample.power_mw) for sample in choice.opened[0].source.read()] == [
        ("board0", 123_456.0)
    ]
    choice.close()
    both = choose(MeterConfig(source=f"{argument},estimate:cpu=100"))
    assert both.name == "hwmon+estimate"
    both.close()


def test_a_new_source_that_cannot_be_opened_or_lacks_its_argument_is_an_error(hwmon: SourceKind) -> None:
    with pytest.raises(ConfigError, match="hwmon: cannot read /absent"):
        choose(MeterConfig(source="hwmon:/absent"))
    with pytest.raises(ConfigError, match=f"{hwmon.name} takes an argument"):
        load({**UPSTREAM, "source": "hwmon"}, {})


def test_help_errors_and_documentation_name_a_new_source(
    hwmon: SourceKind, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help"]) == 0
    assert hwmon.syntax in capsys.readouterr().out.split()
    with pytest.raises(ConfigError, match=r"is not one of auto, nvml, .*hwmon, none"):
        choose(MeterConfig(source="nvlm"))
    assert f"| `hwmon:FILE` | {hwmon.reads} |" in generated.sources()


@pytest.mark.parametrize("path", ["/v1/describe", "/openai/v1/describe", "/describe", "/describe/"])
def test_a_new_endpoint_is_metered_under_all_its_prefixes(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    assert endpoint_of("POST", path) is None
    (entry,) = examples("A metered endpoint")
    for name, endpoint in evaluate(entry).items():
        monkeypatch.setitem(endpoints._ENDPOINTS, name, endpoint)
    found = endpoint_of("POST", path)
    assert found is not None
    assert (found.route, found.asks_usage, found.repeatable) == ("chat", True, True)


def test_a_new_metric_is_counted_and_an_unknown_value_is_not() -> None:
    (entry,) = examples("A metric")
    exporter = PrometheusExporter(lambda: Snapshot([], {}, 0), (*REQUEST_METRICS, evaluate(entry)))
    for cached in (40, None, 2):
        exporter.export(finished(msgspec.structs.replace(RECORD, cached_tokens=cached)))
    page = exporter.render("")[0].decode()
    assert f'jouleproxy_cached_tokens_total{{model="{RECORD.model}"}} 42.0' in page
    assert "# HELP jouleproxy_cached_tokens_total Prompt tokens read from the prefix cache." in page


def test_the_load_of_a_new_engine_is_read_and_vllms_still_is() -> None:
    (entry,) = examples("An engine's load")
    engines = (*ENGINES, evaluate(entry))
    page = "acme_running_requests 3\nacme_queued_requests 1\nacme_output_tokens_total 77\n"
    assert parse_metrics(page) is None
    assert parse_metrics(page, engines) == EngineState(3.0, 1.0, 77.0)
    assert parse_metrics("vllm:num_requests_running 2\n", engines) == EngineState(2.0, 0.0, 0.0)
