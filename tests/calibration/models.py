"""Published facts about models and tasks; a value that nobody publishes is marked as assumed."""

from dataclasses import dataclass
from typing import Final

from proxy.simulator.gpu.datasheets import GPUS
from proxy.simulator.profiles.profile import Experts, Limits
from tests.calibration.published import Model, Setting

WEIGHT_BYTES: Final = {"bfloat16": 2.0, "float16": 2.0, "fp8": 1.0, "mxfp4": 0.56}
GPU_MEMORY_SHARE: Final = 0.9  # vLLM's default gpu_memory_utilization
ACTIVATION_BYTES: Final = 3e9  # a GPU, beside weights and cache: assumed


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model's published configuration: KV cache bytes a token (16 bit), and its experts."""

    kv_bytes: float
    experts: Experts | None = None


# layers * 2 * KV heads * head size * 2 bytes, of the models' config.json; the first name that fits counts.
_SHAPES: Final = {
    "Llama-3.1-8B": Shape(32 * 2 * 8 * 128 * 2),
    "Llama-3.1-70B": Shape(80 * 2 * 8 * 128 * 2),
    "Llama-3.3-70B": Shape(80 * 2 * 8 * 128 * 2),
    "Llama-3.1-405B": Shape(126 * 2 * 8 * 128 * 2),
    "Llama-4-Scout": Shape(48 * 2 * 8 * 128 * 2, Experts(16, 1)),
    "Llama-4-Maverick": Shape(48 * 2 * 8 * 128 * 2, Experts(128, 1)),
    "Qwen3-14B": Shape(40 * 2 * 8 * 128 * 2),
    "Qwen3-VL-32B": Shape(64 * 2 * 8 * 128 * 2),
    "Qwen3-30B-A3B": Shape(48 * 2 * 4 * 128 * 2, Experts(128, 8)),
    "Qwen3-VL-30B": Shape(48 * 2 * 4 * 128 * 2, Experts(128, 8)),
    "Qwen3-Omni-30B": Shape(48 * 2 * 4 * 128 * 2, Experts(128, 8)),
    "Qwen3-Coder-30B": Shape(48 * 2 * 4 * 128 * 2, Experts(128, 8)),
    "Qwen3-235B": Shape(94 * 2 * 4 * 128 * 2, Experts(128, 8)),
    "Qwen3-Coder-480B": Shape(62 * 2 * 8 * 128 * 2, Experts(160, 8)),
    "DeepSeek": Shape(61 * 576 * 2, Experts(256, 8)),
    "gpt-oss-20b": Shape(24 * 2 * 8 * 64 * 2, Experts(32, 4)),
    "NVIDIA-Nemotron-Nano-12B": Shape(6 * 2 * 8 * 128 * 2),
}


def short_name(model: Model) -> str:
    """As a profile calls it: ``llama-3.1-8b``."""
    return model.name.lower().removesuffix("-bf16").replace("-instruct", "")


def shape(model: Model) -> Shape:
    """Of a known model its configuration; of another one estimated from its parameters."""
    for name, known in _SHAPES.items():
        if model.name.startswith(name):
            return known
    layers = 32 * (model.parameters / 8e9) ** 0.33
    if not model.mixture:
        return Shape(layers * 2 * 1024 * 2)
    # Attention and shared parts are 40 % of the active parameters of the models above, in the middle.
    share = 0.6 * model.active / model.parameters
    return Shape(layers * 2 * 512 * 2, Experts(1000, max(1, round(1000 * share))))


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of a task: mean prompt tokens (assumed: not in the tables), spread of lengths (log-normal).

    They were chosen so that the published batch sizes end where the cache would: 768 for Llama-3.1-8B on an
    H100, 96 for Qwen3-Coder-30B, 128 for Qwen3-VL-32B on two.
    """

    prompt_tokens: int
    sigma: float = 0.7


WORKLOADS: Final = {
    "lm-arena-chat": Workload(320),
    "gpqa": Workload(250, sigma=0.5),
    "sourcegraph-fim": Workload(1100),
    "image-chat": Workload(1700),
    "video-chat": Workload(2000),
}


def workload(task: str) -> Workload:
    """Of a task; of an unknown one that of chat."""
    return WORKLOADS.get(task, WORKLOADS["lm-arena-chat"])


def limits(setting: Setting, streams: int) -> Limits:
    """The scheduler's limits: what memory the weights leave holds the KV cache."""
    gpu, model = GPUS[setting.gpu], setting.model
    weights = model.parameters * WEIGHT_BYTES[model.precision]
    room = setting.gpus * (GPU_MEMORY_SHARE * gpu.memory_bytes - ACTIVATION_BYTES) - weights
    tokens = max(int(room / shape(model).kv_bytes), 16_384)
    return Limits(
        max_num_seqs=streams, max_batched_tokens=max(8192 * setting.data_parallel, streams), kv_tokens=tokens
    )
