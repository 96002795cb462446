"""Cases: engines, loads, sensors and what blurs the view. Shares nothing with the estimator."""

from dataclasses import dataclass, replace
from typing import Final, Literal

Scheduler = Literal["mixed", "prefill_first", "side_by_side"]
Sensor = Literal["counter", "power", "power_25_of_100_ms", "power_1_s"]


@dataclass(frozen=True, slots=True)
class Case:
    """An engine, its load and what blurs the view. Seconds, joules, tokens.

    ``scheduler``: chunks of prompts beside decoding (vLLM v1, SGLang), complete prompts first (older
    engines), all prompts side by side (slots, as in llama.cpp).
    """

    rate: float
    seconds: float = 60.0
    scheduler: Scheduler = "mixed"
    budget: int = 2048
    seats: int = 256
    static_j: float = 3.24
    decode_j: float = 0.009
    context_j: float = 2.5e-5
    prefill_j: float = 0.0101
    idle_w: float = 74.0
    static_s: float = 6.2e-3
    decode_s: float = 4e-5
    context_s: float = 1.1e-8
    prefill_s: float = 2.6e-5
    roofline: bool = False  # a step takes the longer of memory and compute, not their sum
    step_noise: float = 0.0  # relative, of step times
    speculated: float = 0.0  # chance of each further token in a step
    prompt_median: float = 400.0
    output_median: float = 180.0
    delay_s: float = 1e-3
    jitter_s: float = 0.0
    merged: float = 0.0
    unsized: bool = False  # the proxy counts chunks, not tokens
    whole: float = 0.0  # share of answers that are not streamed
    cancelled: float = 0.0
    cached: float = 0.0
    reported_steps: bool = False
    devices: int = 1
    sensor: Sensor = "counter"
    period_s: float = 0.1
    gain: float = 0.0  # of the sensor, and stated as its error

    @property
    def noisy(self) -> bool:
        """Whether the streams are not seen as they were sent."""
        return bool(self.jitter_s or self.merged or self.whole or self.cancelled or self.unsized)


LIGHT: Final = Case(rate=2)
MEDIUM: Final = Case(rate=10)
HEAVY: Final = Case(rate=25)
SMALL: Final = Case(
    rate=6,
    static_j=0.9,
    decode_j=0.004,
    context_j=9e-6,
    prefill_j=0.0031,
    idle_w=22.0,
    static_s=4.1e-3,
    prefill_s=1.9e-5,
)
LARGE: Final = Case(
    rate=30,
    seconds=40,
    budget=4096,
    seats=512,
    static_j=8.0,
    prefill_j=0.03,
    idle_w=140.0,
    static_s=0.012,
    prefill_s=4e-5,
)
EXPERTS: Final = Case(
    rate=16,
    static_j=5.1,
    decode_j=0.052,
    context_j=7e-6,
    prefill_j=0.0019,
    idle_w=180.0,
    static_s=0.0094,
    decode_s=1.9e-4,
    prefill_s=7e-6,
)


def blurred(case: Case) -> Case:
    """Return the case with jitter, merged, unstreamed, cancelled and cached ones."""
    return replace(case, jitter_s=0.002, merged=0.08, whole=0.15, cancelled=0.05, cached=0.3)


CASES: Final[dict[str, Case]] = {
    "light": LIGHT,
    "medium": MEDIUM,
    "heavy": HEAVY,
    "budget 512": replace(MEDIUM, budget=512),
    "queueing for seats": replace(HEAVY, seats=64),
    "small GPU": SMALL,
    "large GPU, overloaded": LARGE,
    "mixture of experts": EXPERTS,
    "prompts first": replace(MEDIUM, rate=20, scheduler="prefill_first", budget=16_384),
    "prompts side by side": replace(MEDIUM, scheduler="side_by_side"),
    "roofline step times": replace(HEAVY, roofline=True),
    "step times off by 10 %": replace(HEAVY, step_noise=0.1),
    "speculative decoding": replace(MEDIUM, speculated=0.6),
    "two GPUs, tensor parallel": replace(HEAVY, devices=2),
    "counter of 20 ms": replace(MEDIUM, period_s=0.02),
    "counter of 1 s": replace(MEDIUM, period_s=1.0),
    "power instead of a counter": replace(MEDIUM, sensor="power"),
    "power, 25 of 100 ms": replace(MEDIUM, sensor="power_25_of_100_ms"),
    "power, mean of 1 s": replace(MEDIUM, sensor="power_1_s"),
    "gain 4 % high, stated": replace(MEDIUM, gain=0.04),
    "jitter 2 ms": replace(MEDIUM, jitter_s=0.002),
    "jitter 5 ms": replace(MEDIUM, jitter_s=0.005),
    "jitter, speculative": replace(MEDIUM, jitter_s=0.002, speculated=0.6),
    "merged chunks": replace(MEDIUM, merged=0.08),
    "merged, tokens not known": replace(MEDIUM, merged=0.08, unsized=True),
    "15 % not streamed": replace(MEDIUM, whole=0.15),
    "cancelled and cached": replace(MEDIUM, cancelled=0.05, cached=0.3),
    "all of it, light": blurred(LIGHT),
    "all of it": blurred(MEDIUM),
    "all of it, tokens not known": replace(blurred(MEDIUM), unsized=True),
    "all of it, heavy": blurred(HEAVY),
    "all of it, overloaded": blurred(LARGE),
    "engine reports its steps": replace(blurred(HEAVY), reported_steps=True),
}
