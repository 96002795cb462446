"""Options of ``loadgen [run]`` and ``loadgen sweep``: one table, from which parser and ``Spec`` are made."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec

from loadgen.config.levels import parse_levels
from loadgen.config.spec import REQUEST_TIMEOUT_S, RULES, VIDEO_TIMEOUT_S, Config, Spec
from loadgen.workload.request_bodies import PATHS
from proxy.inputs import named, parse_duration, parse_header, parse_key, parse_number, parse_url, parse_whole

USAGE: Final = 2
_EXAMPLES = """examples:
  loadgen --rate 32 --slo 200ms                       open loop, Poisson arrivals, with a verdict
  loadgen --concurrency 64 --slo ttft=200ms,tpot=50ms closed loop
  loadgen sweep --concurrency 1..64 --slo p95:ttft=1s throughput-per-watt curve, best point
  loadgen sweep --search --slo p95:ttft=200ms         search for the highest rate within the SLO
  loadgen report RUN | loadgen compare A B            rebuild a report; compare two runs
  loadgen selfcheck                                   what this client can be trusted_range for here
exit: 0 within the SLO, 1 missed, 2 cannot start, 3 generator-bound, 130 interrupted"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line without the usage."""

    def error(self, message: str) -> NoReturn:
        """Write the error and exit with status 2."""
        self.exit(USAGE, f"loadgen: {message} (see loadgen --help)\n")


@dataclass(frozen=True, slots=True)
class _Option:
    """One option; a switch if it has no metavar.

    ``only`` is the subcommand that has it, None for both. An empty ``secret`` means none, since an
    environment variable may be set to nothing.
    """

    name: str
    metavar: str | None
    help: str
    default: Any = None
    kind: Any = str
    only: Literal["run", "sweep"] | None = None
    secret: bool = False


_COMMON = (
    _Option("--slo", "SLO", "[pNN:]metric=duration,... or 200ms; ttft, tpot, itl, e2e"),
    _Option(
        "--search",
        None,
        "find the highest load within the SLO, in --rate or --concurrency LO..HI",
        only="sweep",
    ),
    _Option("--url", "URL", "server or proxy: %(default)s", "http://127.0.0.1:9000"),
    _Option(
        "--admin-url", "URL", "admin port of the proxy, for joules: %(default)s", "http://127.0.0.1:9001"
    ),
    _Option("--duration", "T", "duration of each point: 30s, 10s in a sweep"),
    _Option("--endpoint", "E", ", ".join(PATHS), "chat"),
    _Option("--model", "NAME", "model; the server's first by default"),
    _Option("--input", "LEN", "prompt tokens: 512, uniform:1..9, lognormal:300,1", "128"),
    _Option("--output", "LEN", "output tokens, likewise", "64"),
    _Option("--dataset", "FILE", "conversations: JSONL of OpenAI's or ShareGPT's format"),
    _Option("--out", "DIR", "run directory, runs/ID by default", kind=Path),
    _Option("--force", None, "replace the run in --out"),
    _Option("--json", None, "run.json on standard output"),
    _Option("--help-all", None, "more: arrivals, energy source, workloads, limits, resuming"),
)
_RARE = (
    _Option("--source", "S", "proxy, or nvml: this machine's GPUs without one", "proxy"),
    _Option("--devices", "ID,..", "devices of the proxy to count: gpu0,gpu1"),
    _Option("--requests", "N", "requests of each point", kind=int),
    _Option("--warmup", "W", f"{', '.join(RULES)} or 10s", "auto"),
    _Option("--arrivals", "A", "poisson, constant, gamma:CV, ramp:A..B, sine:D,P, trace:FILE", "poisson"),
    _Option("--prefix-share", "X", "shared part of prompts, 0..1", 0.0, float),
    _Option("--tokenizer", "FILE", "count tokens by this tokenizer.json, not by the server's usage"),
    _Option("--strict", None, "refuse a data set or trace with rows that cannot be used"),
    _Option("--turns", "N", "conversations of N turns", 1, int),
    _Option("--picture", "WxH", "vision input, or size of images and videos"),
    _Option("--natural-output", None, "responses may end early (no ignore_eos)"),
    _Option("--no-stream", None, "non-streamed responses; e2e only"),
    _Option("--max-in-flight", "N", "limit of an open loop; noted when it delays requests", kind=int),
    _Option("--request-timeout", "T", "a request that takes longer fails: 10m, videos 1h"),
    _Option("--drain", "T", "wait for the last responses: 30s; if given, also for a silent server"),
    _Option("--workers", "N", "processes that share one schedule: %(default)s", 1, int),
    _Option("--ray", "ADDRESS", "workers on a Ray cluster (auto, HOST:PORT); one a node, or --workers N"),
    _Option("--seed", "S", "seed of all random values: %(default)s", 0, int),
    _Option("--api-key", "KEY", "bearer token; or OPENAI_API_KEY", secret=True),
    _Option("--admin-token", "T", "token of the admin port; or JOULEPROXY_ADMIN_TOKEN", secret=True),
    _Option("--header", "K=V", "additional header; repeatable"),
    _Option("--quiet", None, "no progress, no table"),
    _Option("--simulate", "PROFILE", "plan in virtual time against the simulator: no server", only="sweep"),
    _Option("--budget", "T", "time budget of a search: %(default)s", "80s", only="sweep"),
    _Option("--resume", "RUN", "continue an interrupted grid", kind=Path, only="sweep"),
    _Option("--cool-down", "T", "pause between points: %(default)s", "0s", only="sweep"),
    _Option("--power-limits", "W,..", "each in turn, restored; needs --source nvml and root", only="sweep"),
)


def _argument(parse: Callable[[str], float]) -> Callable[[str], float]:
    """Return a number parser that raises the errors which argparse shows."""

    def read(text: str) -> float:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

    return read


def _non_empty(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser that rejects empty text, such as an unset variable of a script."""

    def read(text: str) -> Any:
        if not text.strip():
            raise argparse.ArgumentTypeError("is empty: give a value, or leave the option out")
        return kind(text)

    return read


_NUMBERS: Final[dict[Any, Callable[[str], float]]] = {
    int: _argument(parse_whole),
    float: _argument(parse_number),
}


def _parser(command: str, *, everything: bool) -> Parser:
    many = command == "sweep"
    parser = Parser(
        prog="loadgen sweep" if many else "loadgen",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=22),
        description="Load an OpenAI-compatible server; judge latency, goodput and joules.",
        epilog=_EXAMPLES,
        usage="%(prog)s (--rate R | --concurrency N) [options]",
        allow_abbrev=False,
    )
    levels = ": 1..64 or 1,2,4" if many else ""
    parser.add_argument("--rate", metavar="R", type=_non_empty(str), help="open loop, requests/s" + levels)
    parser.add_argument(
        "--concurrency", metavar="N", type=_non_empty(str), help="closed loop, requests in flight" + levels
    )
    for option in (*_COMMON, *_RARE):
        if option.only in {None, command}:
            _add(parser, option, shown=everything or option in _COMMON)
    parser.set_defaults(
        api_key=os.environ.get("OPENAI_API_KEY"),
        admin_token=os.environ.get("JOULEPROXY_ADMIN_TOKEN"),
        header=[],
    )
    return parser


def _add(parser: Parser, option: _Option, *, shown: bool) -> None:
    text = option.help if shown else argparse.SUPPRESS
    if option.name == "--help-all":
        parser.add_argument(option.name, action="help", help=text)
    elif option.metavar is None:
        parser.add_argument(option.name, action="store_true", help=text)
    elif option.name == "--header":
        parser.add_argument(option.name, action="append", metavar=option.metavar, help=text)
    else:
        parser.add_argument(
            option.name,
            metavar=option.metavar,
            default=option.default,
            type=_NUMBERS.get(option.kind) or (option.kind if option.secret else _non_empty(option.kind)),
            help=text,
        )


def read_config(command: str, argv: list[str]) -> Config:
    """Parse the arguments of ``run`` or ``sweep``.

    Raises ``ValueError`` with the option and a valid value.
    """
    args = _parser(command, everything="--help-all" in argv).parse_args(argv)
    spec = _resumed(args.resume) if command == "sweep" and args.resume else _spec(command, args)
    for header in args.header:
        named("--header", header, parse_header)
    resume = args.resume if command == "sweep" else None
    return Config(
        spec=spec,
        out=resume or args.out or Path(),
        api_key=_key("--api-key", args.api_key),
        admin_token=_key("--admin-token", args.admin_token),
        headers=tuple(args.header),
        json=args.json,
        quiet=args.quiet,
        resume=resume is not None,
        force=args.force,
    )


def _key(option: str, text: str | None) -> str | None:
    return named(option, text, parse_key) or None if text is not None else None


def _resumed(out: Path) -> Spec:
    from loadgen.results.run_directory import resumable  # noqa: PLC0415  # imports zstd

    return msgspec.convert(resumable(out)[0].spec, Spec).check()


def _spec(command: str, args: argparse.Namespace) -> Spec:
    search = command == "sweep" and args.search
    if search and args.rate is None and args.concurrency is None:
        args.rate = "1..100000"
    if (args.rate is None) == (args.concurrency is None):
        raise ValueError("give one of --rate R (open loop) and --concurrency N (closed loop)")
    mode = "rate" if args.rate is not None else "concurrency"
    levels = parse_levels(
        args.rate if mode == "rate" else args.concurrency,
        f"--{mode}",
        whole=mode == "concurrency",
    )
    if search:
        levels = (levels[0], levels[-1])
    if command == "run" and len(levels) != 1:
        raise ValueError(f"--{mode} with several levels is a sweep: loadgen sweep --{mode} ...")
    timeout = _request_timeout(args.request_timeout, args.endpoint)
    return Spec(
        command=command,  # type: ignore[arg-type]  # one of the two subcommands
        mode=mode,  # type: ignore[arg-type]
        levels=levels,
        url=named("--url", args.url, parse_url).url,
        admin_url=named("--admin-url", args.admin_url, parse_url).url,
        devices=_devices(args.devices),
        endpoint=args.endpoint,
        model=args.model,
        requests=args.requests,
        duration_seconds=_duration(args.duration, args.requests, command),
        warmup=args.warmup,
        arrivals=args.arrivals,
        input=args.input,
        output=args.output,
        exact_output=not args.natural_output,
        prefix_share=args.prefix_share,
        stream=not args.no_stream,
        slo=args.slo,
        seed=args.seed,
        max_in_flight=args.max_in_flight,
        drain_seconds=named("--drain", args.drain or "30s", parse_duration),
        request_timeout_seconds=timeout,
        silence_seconds=timeout if args.drain is None else named("--drain", args.drain, parse_duration),
        source=args.source,
        power_limits=_limits(args.power_limits) if command == "sweep" else (),
        cool_down_seconds=named("--cool-down", args.cool_down, parse_duration) if command == "sweep" else 0.0,
        dataset=args.dataset,
        strict=args.strict,
        tokenizer=args.tokenizer,
        turns=args.turns,
        picture=args.picture,
        search=search,
        workers=args.workers,
        ray=args.ray,
        simulate=args.simulate if command == "sweep" else None,
        budget_seconds=named("--budget", args.budget, parse_duration) if search else 80.0,
    ).check()


def _duration(text: str | None, requests: int | None, command: str) -> float | None:
    if text is None:
        return (10.0 if command == "sweep" else 30.0) if requests is None else None
    return named("--duration", text, parse_duration)


def _request_timeout(text: str | None, endpoint: str) -> float:
    if text is None:
        return VIDEO_TIMEOUT_S if endpoint == "videos" else REQUEST_TIMEOUT_S
    return named("--request-timeout", text, parse_duration)


def _devices(text: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text is not None else ()
    if not all(names):
        raise ValueError(f"--devices {text!r}: write names separated by commas, such as gpu0,gpu1")
    return names


def _limits(text: str | None) -> tuple[float, ...]:
    return parse_levels(text, "--power-limits", whole=False) if text else ()
