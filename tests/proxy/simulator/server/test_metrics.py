from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from proxy.simulator.engine.batching import Engine
from proxy.simulator.engine.job import Job
from proxy.simulator.profiles.profile import DEFAULT, Limits, load
from proxy.simulator.server.metrics import Histogram, Metrics

PROFILE = replace(load(DEFAULT), limits=Limits(max_num_seqs=4, max_batched_tokens=64, kv_tokens=1008))


def samples(metrics: Metrics, engine: Engine) -> dict[str, float]:
    """Return the samples of the page by name, and by name and bucket or reason."""
    found = {}
    for family in text_string_to_metric_families(metrics.text(engine)):
        for sample in family.samples:
            own = sample.labels.get("le") or sample.labels.get("finished_reason")
            found[f"{sample.name}{{{own}}}" if own else sample.name] = sample.value
    return found


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value, times in ((1.0, 1), (1.5, 3), (9.0, 2)):
        histogram.observe(value, times)
    assert list(histogram.lines("h", 'model_name="m"')) == [
        'h_bucket{engine="0",le="1.0",model_name="m"} 1.0',
        'h_bucket{engine="0",le="2.0",model_name="m"} 4.0',
        'h_bucket{engine="0",le="+Inf",model_name="m"} 6.0',
        'h_count{engine="0",model_name="m"} 6.0',
        'h_sum{engine="0",model_name="m"} 23.5',
    ]


def test_the_page_has_the_names_of_vllm_and_the_state_of_the_engine() -> None:
    engine, metrics = Engine(PROFILE), Metrics("m")
    job = Job("a", 20, 3)
    engine.submit(job)
    while (plan := engine.plan()) is not None:
        metrics.step(plan, 0.02)
        engine.finish(plan)
    metrics.scheduled(job, 0.5)
    metrics.first(job, 1.0, 0.5)
    metrics.ended(job, 2.0, 1.0)
    metrics.aborted()
    found = samples(metrics, engine)
    assert found["vllm:num_requests_running"] == 0
    assert found["vllm:prompt_tokens_total"] == 20
    assert found["vllm:generation_tokens_total"] == 3
    assert found["vllm:request_success_total{length}"] == 1
    assert found["vllm:request_success_total{abort}"] == 1
    assert found["vllm:time_to_first_token_seconds_sum"] == 1.0
    assert found["vllm:e2e_request_latency_seconds_sum"] == 2.0
    assert found["vllm:inter_token_latency_seconds_count"] == 2, "the first token ends the prompt"


def test_a_running_request_is_counted_until_it_ends() -> None:
    engine, metrics = Engine(PROFILE), Metrics("m")
    engine.submit(Job("a", 20, 3))
    assert samples(metrics, engine)["vllm:num_requests_waiting"] == 1
    plan = engine.plan()
    assert plan is not None
    assert samples(metrics, engine)["vllm:num_requests_running"] == 1
    assert samples(metrics, engine)["vllm:kv_cache_usage_perc"] > 0
