"""A published table that is not one: points of a machine whose constants are known."""

from pathlib import Path

from tests.calibration.published import Model, Point, Setting

SETTING = Setting(Model("Tiny-8B-Instruct", 8e9, 8e9, "bfloat16"), "lm-arena-chat", "H100", 1)
MIXTURE = Setting(Model("Tiny-30B-A3B", 30e9, 3e9, "bfloat16"), "lm-arena-chat", "H100", 2)
HEAD = (
    "task,model_id,total_params_billions,activated_params_billions,weight_precision,gpu_model,num_gpus,"
    "data_parallel,max_num_seqs,avg_output_len,energy_per_token_joules,avg_power_watts,"
    "output_throughput_tokens_per_sec,median_itl_ms"
)


def points(once: float = 7e-3, stream: float = 6e-5, watts: float = 500.0) -> list[Point]:
    """Steps of ``once + stream * batch`` seconds, prompts of 4 ms."""
    made = []
    for batch in (8, 16, 32, 64, 128, 256):
        gap = once + stream * batch
        step = gap + 4e-3 * batch / 400
        made.append(Point(batch, 400.0, watts * step / batch, watts, batch / step, gap))
    return made


def table(path: Path, setting: Setting = SETTING) -> Path:
    """The points as a CSV file."""
    model = setting.model
    rows = [
        f"{setting.task},maker/{model.name},{model.parameters / 1e9},{model.active / 1e9},{model.precision},"
        f"{setting.gpu},{setting.gpus},1,{p.batch},{p.output_tokens},{p.joules_per_token},{p.watts},"
        f"{p.tokens_per_second},{p.median_itl_seconds * 1e3}"
        for p in points()
    ]
    path.write_text("\n".join([HEAD, *reversed(rows)]) + "\n")
    return path
