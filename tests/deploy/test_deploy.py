"""Dashboards, rules and manifests name only what the program really has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.config.settings import OPTIONS, load
from proxy.exporters.metrics import Snapshot, all_metrics
from proxy.exporters.prometheus import PrometheusExporter
from proxy.schema import DeviceAccount
from tests.fakes.finished import RECORD, finished

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
RULES: Final = DEPLOY / "prometheus" / "rules.yml"
DASHBOARDS: Final = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

# The metrics of the register: name -> labels. Dashboards and rules may use no other.
METRICS: Final[dict[str, frozenset[str]]] = {
    metric.name: frozenset((*metric.labels, *(("le",) if metric.buckets else ()))) for metric in all_metrics()
}
SCRAPE_LABELS: Final = frozenset({"job", "instance"})
HISTOGRAM_PARTS: Final = ("_bucket", "_count", "_sum")
NAME: Final = re.compile(r"(?<![\w:$])jouleproxy_\w+")
LABELS: Final = re.compile(r"by \(([\w, ]+)\)|\{\{ ?(?:\$labels\.)?(\w+) ?\}\}|(\w+)=~?\"")


def _expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert", rule.get("record")), rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in json.loads(dashboard.read_text())["panels"]:
            for target in panel["targets"]:
                yield panel["title"], f"{target['expr']} {target['legendFormat']}"


EXPRESSIONS: Final = list(_expressions())


def test_the_page_has_every_metric_of_the_register_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.exporters.prometheus.LABEL_LIMIT", 2)
    account = DeviceAccount(device="gpu0", watts=1.0, sample_age_s=0.1)
    metrics = PrometheusExporter(lambda: Snapshot([account], {"b": 1}, 2, {"ledger": 1}, {"b": True}))
    for tenant in "abc":
        metrics.export(finished(msgspec.structs.replace(RECORD, tenant=tenant)))
    metrics.export(finished(msgspec.structs.replace(RECORD, joules=None, unknown="no_samples")))
    shown: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render("")[0].decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                shown.setdefault(_base(sample.name), set()).update(sample.labels)
    assert shown == METRICS


def _base(name: str) -> str:
    for part in HISTOGRAM_PARTS:
        if name.removesuffix(part) in METRICS:
            return name.removesuffix(part)
    return name


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[w for w, _ in EXPRESSIONS])
def test_metrics_and_labels_exist(where: str, expression: str) -> None:
    names = {_base(name) for name in NAME.findall(expression)}
    assert names <= METRICS.keys(), where
    known = SCRAPE_LABELS.union(*(METRICS[name] for name in names))
    used = {
        label.strip()
        for found in LABELS.findall(expression)
        for label in ",".join(found).split(",")
        if label.strip()
    }
    assert used <= known, where


def test_every_metric_but_rare_ones_is_shown() -> None:
    shown = {_base(name) for _, expression in EXPRESSIONS for name in NAME.findall(expression)}
    assert METRICS.keys() - shown == {"jouleproxy_labels_limited_total", "jouleproxy_unread_fields_total"}


def _manifests() -> list[Any]:
    files = [*(DEPLOY / "kubernetes").glob("*.yaml"), *DEPLOY.glob("*.yaml")]
    return [part for file in files for part in yaml.safe_load_all(file.read_text())]


def test_manifests_parse() -> None:
    kinds = {manifest.get("kind") for manifest in _manifests()}
    assert {"DaemonSet", "Deployment", "Service"} <= kinds


def _arguments() -> Iterator[list[str]]:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    yield compose["services"]["jouleproxy"]["command"]
    for manifest in _manifests():
        if "kind" in manifest and manifest["kind"] in {"DaemonSet", "Deployment"}:
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                if container["image"] == "jouleproxy":
                    yield container["args"]


@pytest.mark.parametrize("arguments", list(_arguments()), ids=["compose", "kubernetes", "kubernetes"])
def test_commands_are_understood(arguments: list[str]) -> None:
    assert arguments[0] == "serve"
    flags = {}
    for argument in arguments[1:]:
        flag, equals, value = argument.removeprefix("--").partition("=")
        name = flag.removeprefix("no-").replace("-", "_")
        flags[name] = value if equals else str(not flag.startswith("no-")).lower()
    flags["upstream"] = flags["upstream"].replace("$(NODE_IP)", "10.0.0.1")
    config = load(flags, {"JOULEPROXY_ADMIN_TOKEN": "secret"})
    assert flags.keys() <= {"upstream", *OPTIONS}
    assert config.backends
    assert config.meter.source == "nvml"


def test_the_services_file_is_understood() -> None:
    config = load({"config": str(DEPLOY / "systemd" / "jouleproxy.toml")}, {})
    assert config.backends[0].url == "http://127.0.0.1:8000"


def test_the_image_does_not_run_as_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}


def test_rules_with_promtool() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian: prometheus)")
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(
            [promtool, *command], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
