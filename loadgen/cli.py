"""``loadgen [run] | sweep | report | plot | compare | selfcheck``: argv to a run, and its exit status.

Exit status: 0 within the SLO, 1 SLO missed, 2 usage or cannot start, 3 the generator itself was the
bottleneck, 130 interrupted.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from loadgen.config import Config, Spec
from loadgen.records import Run, encode_run
from loadgen.slo import parse_duration
from loadgen.sweep import parse_levels
from loadgen.window import RULES
from loadgen.workload import PATHS

if TYPE_CHECKING:
    from loadgen.runner import Session, View

_EXIT = {"pass": 0, "fail": 1, "generator-bound": 3, "interrupted": 130}
_USAGE = 2
_EXAMPLES = """examples:
  loadgen --rate 32 --slo 200ms                       open loop, Poisson, judged
  loadgen --concurrency 64 --slo ttft=200ms,tpot=50ms closed loop
  loadgen sweep --concurrency 1..64 --slo p95:ttft=1s throughput-per-watt curve, best point
  loadgen sweep --search --slo p95:ttft=200ms         the highest rate within the SLO, by itself
  loadgen report RUN                                  rebuild report and curve from a run directory
  loadgen compare A B                                 what changed, and where the joules went
  loadgen selfcheck                                   what this client can be believed for here
exit: 0 within the SLO, 1 missed, 2 cannot start, 3 generator-bound, 130 interrupted"""


class _Parser(argparse.ArgumentParser):
    """Errors are one line that says what would be right."""

    def error(self, message: str) -> NoReturn:
        """Exit 2."""
        self.exit(_USAGE, f"loadgen: {message} (see loadgen --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words and not words[0].startswith("-") else "run"
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": lambda rest: _measure("run", rest),
        "sweep": lambda rest: _measure("sweep", rest),
        "report": _report,
        "plot": _report,
        "compare": _compare,
        "selfcheck": _selfcheck,
    }
    if command not in commands:
        return _refuse(f"no command {command!r}: one of {', '.join(commands)}")
    try:
        return commands[command](words)
    except ValueError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _EXIT["interrupted"]


def _refuse(message: str) -> int:
    sys.stderr.write(f"loadgen: {message}\n")
    return _USAGE


def _parser(command: str) -> _Parser:
    many = command == "sweep"
    parser = _Parser(
        prog="loadgen sweep" if many else "loadgen",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Load an OpenAI-compatible server; judge latency, goodput and joules.",
        epilog=_EXAMPLES,
        usage="%(prog)s (--rate R | --concurrency N) [options]",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--rate", metavar="R", help="requests/s" + (": 1..64 or 1,2,4" if many else ""))
    add("--concurrency", metavar="N", help="in flight" + (": 1..64 or 1,2,4" if many else ""))
    add("--slo", metavar="SLO", help="[pNN:]metric=duration,... or 200ms")
    if many:
        add("--search", action="store_true", help="find the knee within --rate or --concurrency LO..HI")
        add("--resume", type=Path, metavar="RUN", help="go on with an interrupted grid")
        add("--cool-down", default="0s", metavar="T", help="pause between points")
        add("--power-limits", metavar="W,..", help="each in turn, restored; --source nvml, root")
        add("--budget", default="82s", metavar="T", help="of a search: %(default)s")
    add("--url", default="http://127.0.0.1:9000", metavar="URL", help="%(default)s")
    add("--admin-url", default="http://127.0.0.1:9001", metavar="URL", help="joules: %(default)s")
    add("--source", choices=("proxy", "nvml"), default="proxy", help="nvml: this machine, no proxy")
    add("--duration", metavar="T", help=f"of each point, {'10s' if many else '30s'} by default")
    add("--requests", type=int, metavar="N", help="of each point")
    add("--warmup", default="auto", metavar="W", help=f"{', '.join(RULES)} or 10s")
    add("--arrivals", default="poisson", metavar="A", help="constant, gamma:CV, trace:FILE, ...")
    add("--endpoint", default="chat", metavar="E", help=", ".join(PATHS))
    add("--model", metavar="NAME", help="the server's first by default")
    add("--input", default="128", metavar="LEN", help="tokens: 512, uniform:1..9, lognormal:300,1")
    add("--output", default="64", metavar="LEN", help="likewise")
    add("--prefix-share", type=float, default=0.0, metavar="X", help="shared part of prompts, 0..1")
    add("--dataset", metavar="FILE", help="JSONL of OpenAI's or ShareGPT's shape")
    add("--turns", type=int, default=1, metavar="N", help="conversations of N turns")
    add("--picture", metavar="WxH", help="vision input, or size of images and videos")
    add("--natural-output", action="store_true", help="answers may end early (no ignore_eos)")
    add("--no-stream", action="store_true", help="whole answers; e2e only")
    add("--max-in-flight", type=int, metavar="N", help="cap of an open loop; said when it binds")
    add("--drain", default="30s", metavar="T", help="wait for the last answers")
    add("--seed", type=int, default=0, metavar="S", help="%(default)s")
    add("--api-key", default=os.environ.get("OPENAI_API_KEY"), metavar="KEY", help="bearer token")
    add("--header", action="append", default=[], metavar="K=V", help="more headers")
    add("--out", type=Path, metavar="DIR", help="run directory, runs/ID by default")
    add("--json", action="store_true", help="run.json on standard output")
    add("--quiet", action="store_true", help="no progress, no table")
    return parser


def _config(command: str, argv: list[str]) -> Config:
    args = _parser(command).parse_args(argv)
    spec = _resumed(args.resume) if command == "sweep" and args.resume else _spec(command, args)
    for header in args.header:
        if "=" not in header or "\n" in header or "\r" in header:
            raise ValueError(f"--header {header!r}: write NAME=VALUE")
    resume = args.resume if command == "sweep" else None
    return Config(
        spec=spec,
        out=resume or args.out or Path(),
        api_key=args.api_key,
        headers=tuple(args.header),
        json=args.json,
        quiet=args.quiet,
        resume=resume is not None,
    )


def _resumed(out: Path) -> Spec:
    from loadgen.rundir import resumable  # noqa: PLC0415  # it draws as well

    return msgspec.convert(resumable(out)[0].spec, Spec).check()


def _spec(command: str, args: argparse.Namespace) -> Spec:
    search = command == "sweep" and args.search
    if search and args.rate is None and args.concurrency is None:
        args.rate = "1..100000"
    if (args.rate is None) == (args.concurrency is None):
        raise ValueError("say one of --rate R (open loop) and --concurrency N (closed loop)")
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
    return Spec(
        command=command,  # type: ignore[arg-type]  # one of the two keys of main
        mode=mode,  # type: ignore[arg-type]
        levels=levels,
        url=args.url,
        admin_url=args.admin_url,
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
        drain_seconds=parse_duration(args.drain),
        source=args.source,
        power_limits=_limits(args.power_limits) if command == "sweep" else (),
        cool_down_seconds=parse_duration(args.cool_down) if command == "sweep" else 0.0,
        dataset=args.dataset,
        turns=args.turns,
        picture=args.picture,
        search=search,
        budget_seconds=parse_duration(args.budget) if search else 82.0,
    ).check()


def _duration(text: str | None, requests: int | None, command: str) -> float | None:
    if text is None:
        return (10.0 if command == "sweep" else 30.0) if requests is None else None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"--duration {error}") from None


def _limits(text: str | None) -> tuple[float, ...]:
    return parse_levels(text, "--power-limits", whole=False) if text else ()


def _measure(command: str, argv: list[str]) -> int:
    config = _config(command, argv)
    # Late, so that a usage error costs no imports.
    from loadgen.datasets import read_dataset  # noqa: PLC0415
    from loadgen.live import Terminal  # noqa: PLC0415
    from loadgen.preflight import PreflightError  # noqa: PLC0415
    from loadgen.runner import Finished, plan  # noqa: PLC0415

    plan(config.spec, config.spec.levels[0])  # reads a trace, and refuses a bad one
    if config.spec.dataset:
        read_dataset(Path(config.spec.dataset))
    stream = sys.stderr if config.json else sys.stdout
    with Terminal(stream, quiet=config.quiet) as terminal:
        session = _session(config, terminal)
        try:
            finished: Finished = _run(session.run())
        except PreflightError as error:
            return _refuse(str(error))
        # After the run: drawing takes most of a second to import.
        from loadgen.rundir import save  # noqa: PLC0415

        out = _out(config, session)
        save(out, finished.run, finished.records)
        terminal.finished(finished.run)
        terminal.say(f"results: {out}/report.html, run.json, curve.svg")
    if config.json:
        sys.stdout.write(encode_run(finished.run).decode())
    return exit_status(finished.run)


def _out(config: Config, session: "Session") -> Path:
    return config.out if config.out != Path() else Path("runs") / session.run_id


def _session(config: Config, view: "View") -> "Session":
    """A new one, or one that goes on from what its run directory holds."""
    from loadgen.runner import Finished, Session  # noqa: PLC0415

    session = Session(config, view)
    if config.resume:
        from loadgen.rundir import resumable  # noqa: PLC0415

        run, records = resumable(config.out)
        session = Session(config, view, run.run_id, list(run.points), records)

    def keep_so_far(finished: Finished) -> None:
        from loadgen.rundir import keep  # noqa: PLC0415  # it imports what draws

        keep(_out(config, session), finished.run, finished.records)

    if config.spec.command == "sweep" and not config.spec.search:
        session.save = keep_so_far
    return session


def exit_status(run: Run) -> int:
    """The status of a verdict."""
    return _EXIT[run.verdict]


def _run(main_: Coroutine[Any, Any, Any]) -> Any:
    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ImportError:
        return asyncio.run(main_)
    return uvloop.run(main_)


def _report(argv: list[str]) -> int:
    parser = _Parser(prog="loadgen report", description="Rebuild report and curve of a run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--html", type=Path, metavar="FILE", help="where to write the report")
    parser.add_argument("--requests-csv", type=Path, metavar="FILE", help="also one row a request")
    args = parser.parse_args(argv)
    from loadgen.flat import requests_csv  # noqa: PLC0415
    from loadgen.rundir import load, rebuild  # noqa: PLC0415

    run, records = load(args.run)
    rebuild(args.run, run, records, args.html)
    if args.requests_csv is not None:
        args.requests_csv.write_bytes(requests_csv(records))
    sys.stdout.write(
        f"rebuilt {args.html or args.run / 'report.html'} and points.csv, curve.svg, curve.png\n"
    )
    return 0


def _compare(argv: list[str]) -> int:
    parser = _Parser(
        prog="loadgen compare", description="What changed from run A to run B, and where the joules went."
    )
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    args = parser.parse_args(argv)
    from loadgen.compare import as_text, compare  # noqa: PLC0415
    from loadgen.rundir import load  # noqa: PLC0415

    found = compare(load(args.a), load(args.b))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if args.json else as_text(found))
    return 0


def _selfcheck(argv: list[str]) -> int:
    _Parser(prog="loadgen selfcheck", description="Measure servers of known truth.").parse_args(argv)
    from loadgen.selfcheck import selfcheck  # noqa: PLC0415  # it runs this very command

    return selfcheck()


if __name__ == "__main__":
    sys.exit(main())
