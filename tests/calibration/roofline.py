"""What a model costs on GPUs it was never measured on, from its parameters and the GPUs' data sheet.

Each term is a time that physics gives (bytes over bandwidth, operations over peak) or a fixed cost of known
cause; its constant says how far real engines are from it. The constants in ``roofline.toml`` are fitted to
all published points together (``python -m tests.calibration.fit --roofline``). Joules have the same terms:
each times the power limit of the GPUs and a constant of its own.
"""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from math import exp
from pathlib import Path
from typing import Final

import numpy as np

from proxy.simulator.gpu.datasheets import GPUS
from proxy.simulator.profiles.profile import Costs, Experts, Profile
from tests.calibration import least_squares
from tests.calibration.models import WEIGHT_BYTES, Workload, limits, shape, short_name, workload
from tests.calibration.published import Point, Setting

CONSTANTS: Final = Path(__file__).with_name("roofline.toml")  # written by fit --roofline
_MULTIMODAL: Final = ("image-chat", "video-chat")
_GRAPH_STREAMS: Final = 12  # multimodal on B200: published times jump between 8 and 16 streams
_DENSE_SHARE: Final = 0.4  # of a mixture's active parameters: attention and shared layers
_MS: Final = 1e-3
_US10: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Term:
    """A cost in one of the slots of :class:`Costs`, and the seconds physics gives it."""

    name: str
    slot: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Constants:
    """By term: how many times its seconds it takes, and how much of the power limit it draws meanwhile."""

    seconds: dict[str, float]
    joules: dict[str, float]


def terms(setting: Setting) -> list[Term]:
    """The terms of a setting, zero ones left out."""
    gpu, model, gpus = GPUS[setting.gpu], setting.model, setting.gpus
    each_byte, fp8 = WEIGHT_BYTES[model.precision], model.precision == "fp8"
    bandwidth, flops = gpu.bandwidth * gpus, gpu.flops * gpus * (2 if fp8 else 1)
    dense = _DENSE_SHARE * model.active if model.mixture else model.active
    expert_bytes = each_byte * (model.parameters - dense)
    layers = layer_share(setting)
    many, prompt = setting.task in _MULTIMODAL, workload(setting.task).prompt_tokens
    copies = setting.data_parallel - 1
    found = [
        Term("weights", "static", each_byte * dense / bandwidth),
        Term("weights fp8", "static", 0.0 if model.mixture or not fp8 else each_byte * dense / bandwidth),
        Term(f"launch {setting.gpu}", "static", layers * _MS),
        Term("launch mixture", "static", layers * _MS if model.mixture else 0.0),
        Term("launch mixture fp8", "static", layers * _MS if model.mixture and fp8 else 0.0),
        Term("exchange", "static", layers * _MS if gpus > 1 else 0.0),
        Term("copies", "static", copies * _MS),
        Term("reasoning B200", "static", _MS if setting.gpu == "B200" and setting.task == "gpqa" else 0.0),
        Term("multimodal B200", "host", _MS if setting.gpu == "B200" and many else 0.0),
        Term(f"experts {setting.gpu}", "experts", expert_bytes / bandwidth),
        Term("experts fp8", "experts", expert_bytes / bandwidth if fp8 else 0.0),
        Term("operations", "decode", 2 * model.active / flops),
        Term(f"stream {setting.gpu}", "decode", _US10),
        Term("stream layers", "decode", layers * _US10),
        Term("context", "context", shape(model).kv_bytes / bandwidth),
        Term("prompt", "prefill", 2 * model.active / flops),
        Term("picture", "prefill", _MS / prompt if many else 0.0),
        Term("film", "prefill", _MS / prompt if setting.task == "video-chat" else 0.0),
        Term("prompt copies", "prefill", copies * _MS / prompt),
    ]
    return [term for term in found if term.seconds > 0 and (model.mixture or term.slot != "experts")]


def layer_share(setting: Setting) -> float:
    """Layers, estimated from parameters, in units of 40."""
    model = setting.model
    billions = model.parameters / 1e9
    layers: float = 24 * (billions / 20) ** 0.35 if model.mixture else 32 * (billions / 8) ** 0.33
    return layers / 40


def mean_context(work: Workload, output_tokens: float) -> float:
    """Tokens a decoding stream reads, over time: long answers are met more often."""
    return work.prompt_tokens + output_tokens * exp(work.sigma**2) / 2


def typical_prompts(each_step: float) -> float:
    """Prompts computed in the step of median length, from their mean number a step (arrivals at random)."""
    return max(0.0, each_step - 0.5)


def multiplier(slot: str, setting: Setting, point: Point, *, typical: bool = False) -> float:
    """How often a step of a point pays a cost of a slot."""
    work, batch = workload(setting.task), point.batch
    prompts = batch / point.output_tokens
    if typical:
        prompts = typical_prompts(prompts)
    experts = shape(setting.model).experts
    return {
        "static": 1.0,
        "host": float(batch > _GRAPH_STREAMS),
        "decode": float(batch),
        "context": batch * mean_context(work, point.output_tokens),
        "prefill": prompts * work.prompt_tokens,
        "experts": experts.touched(batch) if experts is not None else 0.0,
    }[slot]


def fit(groups: Iterable[tuple[Setting, Sequence[Point]]]) -> Constants:
    """The constants that explain all points best: time from throughput and median ITL, joules too."""
    points = [(setting, point) for setting, some in groups for point in some]
    names = sorted({term.name for setting, _ in points for term in terms(setting)})
    rows = [[_row(names, s, p, typical=typical) for s, p in points] for typical in (False, True)]
    steps = [point.seconds_per_step for _, point in points]
    gaps = [point.median_itl_seconds for _, point in points]
    seconds = least_squares.fit(np.array(rows[0] + rows[1]), np.array(steps + gaps))
    limit = np.array([[GPUS[s.gpu].limit_watts * s.gpus] for s, _ in points])
    joules = least_squares.fit(
        np.array(rows[0]) * limit, np.array([p.joules_per_token * p.batch for _, p in points])
    )
    return Constants(
        dict(zip(names, map(float, seconds), strict=True)), dict(zip(names, map(float, joules), strict=True))
    )


def _row(names: list[str], setting: Setting, point: Point, *, typical: bool) -> list[float]:
    own = {t.name: t.seconds * multiplier(t.slot, setting, point, typical=typical) for t in terms(setting)}
    return [own.get(name, 0.0) for name in names]


def load() -> Constants:
    """The constants of this package."""
    table = tomllib.loads(CONSTANTS.read_text("utf-8"))
    return Constants(table["seconds"], table["joules"])


def predict(setting: Setting, constants: Constants) -> Profile:
    """A profile from parameters alone."""
    gpu, model = GPUS[setting.gpu], setting.model
    limit = gpu.limit_watts * setting.gpus
    experts: Experts | None = shape(model).experts
    found = terms(setting)
    return Profile(
        model=short_name(model),
        device=f"{gpu.name} (simulated)",
        devices=setting.gpus,
        idle_watts=gpu.idle_watts * setting.gpus,
        cap_watts=limit,
        experts=experts,
        graph_streams=_GRAPH_STREAMS if any(term.slot == "host" for term in found) else None,
        joules=_costs(found, constants.joules, limit),
        seconds=_costs(found, constants.seconds, 1.0),
        limits=limits(setting, 1024),
        source="predicted from parameters (roofline.toml)",
    )


def _costs(found: list[Term], constants: dict[str, float], unit: float) -> Costs:
    slots = {field.name: 0.0 for field in fields(Costs)}
    for term in found:
        slots[term.slot] += constants.get(term.name, 0.0) * term.seconds * unit
    return Costs(**slots)
