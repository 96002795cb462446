from tests.calibration.models import limits, shape, short_name, workload
from tests.calibration.published import Model, Setting


def test_known_models_have_their_published_shape() -> None:
    llama = Model("Llama-3.1-8B-Instruct", 8e9, 8e9, "bfloat16")
    assert shape(llama).kv_bytes == 131_072
    assert short_name(llama) == "llama-3.1-8b"
    held = limits(Setting(llama, "lm-arena-chat", "H100", 1), 256).kv_tokens
    assert 400_000 < held < 500_000


def test_unknown_models_are_estimated() -> None:
    dense = shape(Model("New-8B", 8e9, 8e9, "bfloat16"))
    assert 0.5 < dense.kv_bytes / 131_072 < 2
    assert dense.experts is None
    mixed = shape(Model("New-30B-A3B", 30e9, 3e9, "bfloat16"))
    assert mixed.experts is not None
    assert 0.03 < mixed.experts.touched(1) < 0.12, "Qwen3-30B-A3B routes to 8 of 128"


def test_a_model_larger_than_memory_still_has_a_cache() -> None:
    setting = Setting(Model("Big", 4e11, 4e11, "bfloat16"), "lm-arena-chat", "H100", 1)
    assert limits(setting, 8).kv_tokens > 0


def test_an_unknown_task_is_taken_for_chat() -> None:
    assert workload("unheard-of") == workload("lm-arena-chat")
