"""The parts of a run, each with its results in the report."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pynvml

from proxy.clock import now_ns
from proxy.gpu import closure, curve, forms, nvml_facts, served
from proxy.gpu.device import Device
from proxy.gpu.engine import Runner
from proxy.gpu.measured import CostMeter
from proxy.gpu.report import Report
from proxy.units import seconds_from_ns

PARTS: Final = ("a", "c", "d", "e")
_STATIC_CONTEXT: Final = 256


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of a run: those of a GPU, or tiny ones."""

    slots: int
    length: int
    budget: int
    grain: int  # tokens of context that are measured as one
    seconds: float  # of each load of part a
    sets: tuple[served.RequestSet, ...]
    load: tuple[str, int, int, int]  # levels of concurrency, seconds, prompt and output tokens
    wire: tuple[served.RequestSet, ...]  # sets that are sent through the proxy


REAL: Final = Scale(
    slots=64,
    length=2048,
    budget=2048,
    grain=128,
    seconds=4.0,
    sets=(
        served.RequestSet("one, alone", ((512, 64),)),
        served.RequestSet("two", ((256, 96), (1024, 48))),
        served.RequestSet("three, one long prompt", ((128, 64), (256, 48), (1400, 32))),
        served.RequestSet("four", ((128, 96), (256, 64), (512, 48), (768, 32))),
        served.RequestSet("eight of two kinds", (*((128, 64),) * 4, *((512, 32),) * 4)),
    ),
    load=("1,2,4,8,16,32,64", 8, 256, 64),
    wire=(served.RequestSet("four, on the wire", ((128, 96), (256, 64), (512, 48), (768, 32))),),
)
TINY: Final = Scale(
    slots=16,
    length=1024,
    budget=512,
    grain=64,
    seconds=1.0,
    sets=(
        served.RequestSet("one, alone", ((128, 24),)),
        served.RequestSet("two", ((200, 24), (300, 48))),
        served.RequestSet("four", ((100, 16), (200, 32), (300, 48), (50, 24))),
        served.RequestSet("eight of two kinds", (*((64, 32),) * 4, *((128, 16),) * 4)),
    ),
    load=("1,4", 3, 64, 16),
    wire=(served.RequestSet("four, on the wire", ((100, 16), (200, 32), (300, 48), (50, 24))),),
)


def run(
    parts: Sequence[str],
    found: Report,
    device: Device,
    make_runner: Callable[[], Runner],
    scale: Scale,
    out: Path,
) -> None:
    """Run the parts; a part that fails leaves its error in the report, and the others run.

    Part e comes first, because its server has a model of its own: ``make_runner`` is called after it, so that
    two models are never in the memory of the GPU. The sets that e sends are judged in part c. Part b, the
    engine that a, c and d measure, is built for these only; they are left out if it cannot be.
    """
    on_wire: list[tuple[served.RequestSet, served.Served]] = []

    def wire() -> None:
        words = ("--size", found.model, "--slots", str(scale.slots), "--length", str(scale.length))
        load = curve.Load(*scale.load, server=(*words, "--budget", str(scale.budget)), sets=scale.wire)
        uuid = str(pynvml.nvmlDeviceGetUUID(device.handle))
        results = curve.measure(out, load, uuid, simulated=found.simulated)
        found.curves = results.curves
        on_wire.extend(results.sets)

    if "e" in parts:
        _part("e", found, wire)
    built: list[CostMeter] = []
    if {"a", "c", "d"} & set(parts):
        _part("b", found, lambda: built.append(CostMeter(device, make_runner())))
    if not built:
        return
    (meter,) = built

    def facts() -> None:
        found.readings = nvml_facts.readings(device)
        found.counter = nvml_facts.counter(device)
        found.agreement = nvml_facts.agreement(device, scale.seconds)
        found.observer = nvml_facts.observer(device, meter.runner, scale.seconds)

    def truth() -> None:
        for requests in scale.sets:
            found.truth.append(served.compare(meter, requests, scale.budget, scale.grain))
        for requests, recorded in on_wire:
            found.truth.append(served.judge(meter, requests, recorded, scale.grain))
        found.closure = closure.checks(meter)

    def form() -> None:
        found.points = forms.sweep(meter, forms.grid(meter.runner.slots, scale.length, scale.budget))
        found.forms = forms.fit(found.points)
        found.static_share = forms.static_share(meter, _STATIC_CONTEXT)

    for name, work in {"a": facts, "c": truth, "d": form}.items():
        if name in parts:
            _part(name, found, work)


def _part(name: str, found: Report, work: Callable[[], None]) -> None:
    start = now_ns()
    try:
        work()
    except Exception as error:  # noqa: BLE001 - one part must not cost the others their results
        found.failed[name] = f"{type(error).__name__}: {error}"
    found.seconds[name] = seconds_from_ns(now_ns() - start)
    mark = "SIMULATED: " if found.simulated else ""
    sys.stderr.write(f"{mark}part {name}: {found.failed.get(name, 'done')}, {found.seconds[name]:.0f} s\n")
