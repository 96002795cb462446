"""Average: the output tokens of a request times the run's joules per output token.

Source: the per-response figures of benchmarks: ML.ENERGY Leaderboard v3.0 ("energy per response is energy per
token multiplied by the number of output tokens",
https://ml.energy/blog/measurement/energy/diagnosing-inference-energy-consumption-with-the-mlenergy-leaderboard-v30),
and joules per output token of InferenceX (joules_per_output_token) and AIPerf's GPU telemetry. The run is the
time from the first request to the end of the last one.
"""

from typing import Final

import numpy as np

from proxy.truth.view import View

SOURCE: Final = (
    "output length times the run's J/token ([ML.ENERGY](https://ml.energy/blog/measurement/energy/"
    "diagnosing-inference-energy-consumption-with-the-mlenergy-leaderboard-v30), AIPerf, InferenceX)"
)


def attribute(view: View) -> dict[str, float]:
    """Return the joules of each request."""
    start = min((r.start_s for r in view.requests), default=0.0)
    end = max((r.end_s for r in view.requests), default=0.0)
    joules = 0.0
    for windows in view.windows:
        inside = (windows.edges[:-1] >= start) & (windows.edges[1:] <= end)
        joules += float(np.sum(windows.joules[inside]))
    output = sum(r.output for r in view.requests)
    return {r.name: joules * r.output / output if output else 0.0 for r in view.requests}
