"""The specification of a run: checked before anything starts, and saved in ``run.json``."""

from pathlib import Path
from typing import Literal

import msgspec

from loadgen.config.slo import Objective, parse_slo
from loadgen.workload.arrivals import parse_arrivals
from loadgen.workload.images import parse_size
from loadgen.workload.lengths import parse_length
from loadgen.workload.request_bodies import PATHS
from proxy.inputs import named, parse_duration, parse_header, parse_key, parse_url

RULES = ("auto", "mlenergy", "none")  # of loadgen.measure.window.steady_window
# The default timeout of OpenAI's client libraries; videos take longer than any text.
REQUEST_TIMEOUT_S = 600.0
VIDEO_TIMEOUT_S = 3600.0
_TEST_REQUEST_S = 120.0  # time limit of the request before the run
_STEADY = ("poisson", "constant", "gamma")
_LEAST_BUDGET_S = 5
_MOST_TURNS = 100
_MOST_WORKERS = 1024  # processes here, or actors of a cluster


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """All settings that determine the numbers of a run; no credentials and no output options.

    The same spec and seed send the same requests. Field names are part of the format of ``run.json``.
    """

    command: Literal["run", "sweep"]
    mode: Literal["rate", "concurrency"]
    levels: tuple[float, ...]
    url: str
    admin_url: str
    endpoint: str = "chat"
    model: str | None = None
    requests: int | None = None
    duration_seconds: float | None = 30.0
    warmup: str = "auto"
    arrivals: str = "poisson"
    input: str = "128"
    output: str = "64"
    exact_output: bool = True
    prefix_share: float = 0.0
    stream: bool = True
    slo: str | None = None
    seed: int = 0
    max_in_flight: int | None = None
    drain_seconds: float = 30.0
    request_timeout_seconds: float = REQUEST_TIMEOUT_S
    silence_seconds: float = REQUEST_TIMEOUT_S
    dataset: str | None = None
    strict: bool = False
    tokenizer: str | None = None
    turns: int = 1
    picture: str | None = None
    source: Literal["proxy", "nvml"] = "proxy"
    devices: tuple[str, ...] = ()
    power_limits: tuple[float, ...] = ()
    cool_down_seconds: float = 0.0
    search: bool = False
    workers: int = 1
    ray: str | None = None
    simulate: str | None = None
    budget_seconds: float = 80.0

    @property
    def streamed(self) -> bool:
        """Whether responses are streamed."""
        return self.stream and self.endpoint in {"chat", "completions"}

    @property
    def try_seconds(self) -> float:
        """Time limit of the test request before the run, seconds.

        Short, so that a hung server is found soon.
        """
        given = self.request_timeout_seconds not in {REQUEST_TIMEOUT_S, VIDEO_TIMEOUT_S}
        return self.request_timeout_seconds if given else _TEST_REQUEST_S

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The parsed ``--slo``; empty without one."""
        return parse_slo(self.slo, streamed=self.streamed) if self.slo else ()

    @property
    def warmup_rule(self) -> str | float:
        """The name of a warm-up rule, or seconds."""
        return self.warmup if self.warmup in RULES else parse_duration(self.warmup)

    def check(self) -> "Spec":
        """Check all values and combinations; return this spec.

        Raises ``ValueError`` with the option and a valid value.
        """
        named("--url", self.url, parse_url)
        named("--admin-url", self.admin_url, parse_url)
        self._check_values()
        if self.duration_seconds is None and self.requests is None:
            raise ValueError("a run needs an end: --duration 60s or --requests N")
        if self.requests is not None and self.requests < 1:
            raise ValueError(f"--requests {self.requests}: must be at least 1")
        if self.duration_seconds is not None and self.duration_seconds <= 0:
            raise ValueError("--duration must be above zero")
        if self.request_timeout_seconds <= 0:
            raise ValueError("--request-timeout must be above zero")
        if not 0 <= self.prefix_share <= 1:
            raise ValueError(f"--prefix-share {self.prefix_share:g}: must be from 0 to 1")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}: must be 0 or more")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise ValueError(f"--max-in-flight {self.max_in_flight}: must be at least 1")
        self._check_kinds()
        self._check_workers()
        if self.search:
            self._check_search()
        if self.simulate is not None:
            self._check_simulate()
        return self

    def _check_simulate(self) -> None:
        """Check that the simulator supports the workload: single-turn text of given lengths."""
        wrong = {
            "--dataset": self.dataset is not None,
            "--tokenizer": self.tokenizer is not None,
            "--turns": self.turns > 1,
            "--endpoint": self.endpoint not in {"chat", "completions"},
            "--power-limits": bool(self.power_limits),
        }
        for name, given in wrong.items():
            if given:
                raise ValueError(f"{name} is not supported in virtual time: leave it out with --simulate")

    def _check_workers(self) -> None:
        if not 1 <= self.workers <= _MOST_WORKERS:
            raise ValueError(f"--workers {self.workers}: must be from 1 to {_MOST_WORKERS}")
        if self.workers == 1 and self.ray is None:
            return
        option = "--workers" if self.ray is None else "--ray"
        if self.search or self.simulate is not None:
            other = "--search" if self.search else "--simulate"
            raise ValueError(f"{option}: several workers support a run or a grid, not {other}")
        if self.max_in_flight is not None and self.max_in_flight < self.workers:
            raise ValueError(
                f"--max-in-flight {self.max_in_flight}: must be at least one for each of --workers"
            )

    def _check_kinds(self) -> None:
        if self.picture is not None:
            parse_size(self.picture, "--picture")
        if not 1 <= self.turns <= _MOST_TURNS:
            raise ValueError(f"--turns {self.turns}: must be from 1 to {_MOST_TURNS}")
        if self.turns > 1 and (self.endpoint != "chat" or self.dataset):
            raise ValueError(
                "--turns: conversations are generated for --endpoint chat only, without --dataset"
            )
        if self.tokenizer is not None and self.endpoint not in {"chat", "completions"}:
            raise ValueError("--tokenizer: counts text; use --endpoint chat or completions")
        if self.source not in {"proxy", "nvml"}:
            raise ValueError(f"--source {self.source!r}: write proxy or nvml")
        if self.devices and self.source != "proxy":
            raise ValueError("--devices: selects devices of a proxy; not supported with --source nvml")
        if self.power_limits and (self.search or self.source != "nvml"):
            raise ValueError("--power-limits: needs a grid and --source nvml (the GPUs of this machine)")

    def _check_search(self) -> None:
        if not self.slo:
            raise ValueError("--search needs an SLO, such as --slo p95:ttft=200ms")
        if self.arrivals.partition(":")[0] not in _STEADY:
            raise ValueError(f"--arrivals {self.arrivals!r}: a search supports {', '.join(_STEADY)}")
        if self.requests is not None:
            raise ValueError("--requests: not supported with --search; give --budget 90s")
        if self.budget_seconds < _LEAST_BUDGET_S:
            raise ValueError(f"--budget {self.budget_seconds:g}s: must be at least {_LEAST_BUDGET_S}s")

    def _check_values(self) -> None:
        parse_arrivals(self.arrivals)
        parse_length(self.input, "--input")
        parse_length(self.output, "--output")
        if self.endpoint not in PATHS:
            raise ValueError(f"--endpoint {self.endpoint!r}: must be one of {', '.join(PATHS)}")
        if self.slo is not None:
            judged = {objective.metric for objective in self.objectives}
            if not self.streamed and judged - {"e2e"}:
                wrong = min(judged - {"e2e"})
                raise ValueError(f"--slo {self.slo!r}: {wrong} needs streamed text; e2e does not")
        if self.warmup not in RULES:
            try:
                parse_duration(self.warmup)
            except ValueError:
                raise ValueError(
                    f"--warmup {self.warmup!r}: write {', '.join(RULES)} or a duration such as 10s"
                ) from None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A spec, with credentials (never saved) and options that do not change the numbers."""

    spec: Spec
    out: Path
    api_key: str | None = None
    admin_token: str | None = None
    headers: tuple[str, ...] = ()
    json: bool = False
    quiet: bool = False
    resume: bool = False
    force: bool = False

    def header_lines(self) -> bytes:
        """Return the header lines of every request; an Authorization in ``headers`` overrides ``api_key``."""
        headers = [parse_header(header) for header in self.headers]
        if self.api_key and all(name.lower() != "authorization" for name, _ in headers):
            headers.append(("Authorization", f"Bearer {parse_key(self.api_key)}"))
        return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
