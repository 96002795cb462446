"""The ``loadgen`` command: dispatch to its subcommands, and its exit status.

Exit status: 0 SLO met, 1 SLO missed, 2 usage error or cannot start, 3 the load generator itself was the
bottleneck, 130 interrupted.

Modules that a subcommand needs are imported inside it, so that a usage error costs no imports.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from loadgen.config.options import USAGE, Parser
from loadgen.report.figures import MATPLOTLIB_HINT
from loadgen.run_command import INTERRUPTED_STATUS, describe, has_curve, refuse, run_command
from proxy import stdio


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status; ``argv`` defaults to the process's arguments.

    Invalid input and files that cannot be read or written are reported as one line on standard error.
    """
    if argv is None:  # a process of its own: protect its standard streams, too
        stdio.protect()
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words and not words[0].startswith("-") else "run"
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": lambda rest: run_command("run", rest),
        "sweep": lambda rest: run_command("sweep", rest),
        "report": _report,
        "plot": _report,
        "compare": _compare,
        "selfcheck": _selfcheck,
    }
    if command not in commands:
        return refuse(f"no command {command!r}: one of {', '.join(commands)}")
    try:
        status = commands[command](words)
    except ValueError as error:
        return refuse(str(error))
    except OSError as error:  # an output file cannot be written
        return refuse(describe(error))
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    return _check_output(command, status)


def _check_output(command: str, status: int) -> int:
    """Return the exit status after a check of standard output; a closed pipe is not an error.

    ``run`` and ``sweep`` keep the status of their verdict, since their results are in the run directory. For
    the other commands the output is the result.
    """
    lost = stdio.failure(sys.stdout)
    if lost is None or lost.errno == errno.EPIPE:
        return status
    refuse(f"standard output: {lost.strerror}")
    return status if command in {"run", "sweep"} else status or USAGE


def _report(argv: list[str]) -> int:
    parser = Parser(prog="loadgen report", description="Rebuild report and curve of a run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--html", type=Path, metavar="FILE", help="where to write the report")
    parser.add_argument("--requests-csv", type=Path, metavar="FILE", help="also one row a request")
    args = parser.parse_args(argv)
    from loadgen.report.csv_export import requests_csv  # noqa: PLC0415
    from loadgen.report.rebuild import rebuild  # noqa: PLC0415
    from loadgen.results.output_files import write_file  # noqa: PLC0415
    from loadgen.results.run_directory import load  # noqa: PLC0415

    run, records = load(args.run)
    made = rebuild(args.run, run, records, args.html)
    if args.requests_csv is not None:
        write_file(args.requests_csv, requests_csv(records))
    sys.stdout.write(f"rebuilt {', '.join(map(str, made))}\n")
    if not has_curve(made):
        sys.stderr.write(f"note: {MATPLOTLIB_HINT}\n")
    return 0


def _compare(argv: list[str]) -> int:
    parser = Parser(
        prog="loadgen compare",
        description="Show the differences between runs A and B in latency, throughput and joules.",
    )
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    args = parser.parse_args(argv)
    from loadgen.report.compare import as_text, compare  # noqa: PLC0415
    from loadgen.results.run_directory import load  # noqa: PLC0415

    found = compare(load(args.a), load(args.b))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if args.json else as_text(found))
    return 0


def _selfcheck(argv: list[str]) -> int:
    Parser(prog="loadgen selfcheck", description="Measure servers of known truth.").parse_args(argv)
    from loadgen.selfcheck.checks import selfcheck  # noqa: PLC0415

    return selfcheck()


if __name__ == "__main__":
    sys.exit(main())
