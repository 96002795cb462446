"""The server's ``/metrics``: names, labels and buckets of vLLM v0.32, what a simulated engine has of them."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from proxy.simulator.engine.batching import BLOCK, Engine, Plan
from proxy.simulator.engine.job import Job

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"
_REASONS: Final = ("stop", "length", "abort", "error", "repetition")
_TTFT: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_ITL: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_LATENCY: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_TOKENS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
_STEP_TOKENS: Final = tuple(float(1 << n) for n in (0, *range(3, 15)))


class Histogram:
    """Observations in buckets."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield the samples: cumulative buckets, count, sum."""
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{engine="0",le="{bound}",{labels}}} {float(total)}'
        yield f'{name}_count{{engine="0",{labels}}} {float(total)}'
        yield f'{name}_sum{{engine="0",{labels}}} {self.sum}'


class Metrics:
    """Counters and histograms since the start; totals of the engine are read at the scrape."""

    def __init__(self, model: str) -> None:
        self._labels = f'model_name="{model}"'
        self.success = dict.fromkeys(_REASONS, 0)
        self.rejected = 0
        self.queried_tokens = 0
        self.cached_tokens = 0
        self.histograms = {
            "vllm:time_to_first_token_seconds": Histogram(_TTFT),
            "vllm:inter_token_latency_seconds": Histogram(_ITL),
            "vllm:e2e_request_latency_seconds": Histogram(_LATENCY),
            "vllm:request_queue_time_seconds": Histogram(_LATENCY),
            "vllm:request_prefill_time_seconds": Histogram(_LATENCY),
            "vllm:request_decode_time_seconds": Histogram(_LATENCY),
            "vllm:request_prompt_tokens": Histogram(_TOKENS),
            "vllm:request_generation_tokens": Histogram(_TOKENS),
            "vllm:iteration_tokens_total": Histogram(_STEP_TOKENS),
        }

    def step(self, plan: Plan, seconds: float) -> None:
        """Count a step of the engine."""
        prompt = sum(chunk for _, chunk in plan.prefill)
        self._observe("iteration_tokens_total", plan.decode + prompt)
        self._observe("inter_token_latency_seconds", seconds, plan.decode)

    def scheduled(self, job: Job, waited: float) -> None:
        """Record how long a job waited for its first step."""
        self.queried_tokens += job.prompt_tokens
        self.cached_tokens += job.cached_tokens
        self._observe("request_queue_time_seconds", waited)

    def first(self, job: Job, waited: float, computed: float) -> None:
        """Record the time to the first token of a job."""
        self._observe("time_to_first_token_seconds", waited)
        self._observe("request_prefill_time_seconds", computed)
        self._observe("request_prompt_tokens", job.prompt_tokens)

    def ended(self, job: Job, duration: float, after_first: float) -> None:
        """Record the durations of a job that has ended."""
        self.success["length"] += 1
        self._observe("e2e_request_latency_seconds", duration)
        self._observe("request_decode_time_seconds", after_first)
        self._observe("request_generation_tokens", job.emitted)

    def aborted(self) -> None:
        """Count a client that disconnected."""
        self.success["abort"] += 1

    def _observe(self, name: str, value: float, times: int = 1) -> None:
        self.histograms[f"vllm:{name}"].observe(value, times)

    def text(self, engine: Engine) -> str:
        """Return the metrics in Prometheus' text format."""
        return "\n".join((*self._lines(engine), ""))

    def _lines(self, engine: Engine) -> Iterator[str]:
        totals, labels = engine.totals, f'engine="0",{self._labels}'
        gauges = {
            "vllm:num_requests_running": engine.running,
            "vllm:num_requests_waiting": engine.waiting,
            "vllm:kv_cache_usage_perc": engine.cache.used / engine.cache.blocks,
        }
        counters = {
            "vllm:prefix_cache_queries": self.queried_tokens,
            "vllm:prefix_cache_hits": self.cached_tokens,
            "vllm:num_preemptions": totals.preemptions,
            "vllm:prompt_tokens": totals.prompt_tokens,
            "vllm:prompt_tokens_cached": self.cached_tokens,
            "vllm:generation_tokens": totals.output_tokens,
            "vllm:spec_decode_num_drafts": totals.drafts,
            "vllm:spec_decode_num_draft_tokens": totals.drafted_tokens,
            "vllm:spec_decode_num_accepted_tokens": totals.accepted_tokens,
        }
        for name, value in gauges.items():
            yield from (f"# TYPE {name} gauge", f"{name}{{{labels}}} {float(value)}")
        for name, count in counters.items():
            yield from (f"# TYPE {name}_total counter", f"{name}_total{{{labels}}} {float(count)}")
        yield "# TYPE vllm:request_success_total counter"
        for reason, count in self.success.items():
            own = f'engine="0",finished_reason="{reason}",{self._labels}'
            yield f"vllm:request_success_total{{{own}}} {float(count)}"
        yield "# TYPE vllm:admission_rejections_total counter"
        own = f'{self._labels},reason="max_num_queued_reqs"'
        yield f"vllm:admission_rejections_total{{{own}}} {float(self.rejected)}"
        for name, histogram in self.histograms.items():
            yield f"# TYPE {name} histogram"
            yield from histogram.lines(name, self._labels)
        yield "# TYPE vllm:cache_config_info gauge"
        config = f'block_size="{BLOCK}",engine="0",num_gpu_blocks="{engine.cache.blocks}"'
        yield f"vllm:cache_config_info{{{config}}} 1.0"
