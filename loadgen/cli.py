"""``loadgen [run] | sweep | report | plot | compare | selfcheck``: argv to a run, and its exit status.

Exit status: 0 within the SLO, 1 SLO missed, 2 usage or cannot start, 3 the generator itself was the
bottleneck, 130 interrupted.
"""

import asyncio
import contextlib
import errno
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from loadgen.config import Config
from loadgen.options import USAGE, Parser, read_config
from loadgen.pictures import HOW
from loadgen.records import Run, encode_run
from proxy import stdio

if TYPE_CHECKING:
    from loadgen.live import Terminal
    from loadgen.runner import Finished, Session, View

_EXIT = {"pass": 0, "fail": 1, "generator-bound": 3, "interrupted": 130}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status."""
    if argv is None:  # the process is ours: its standard streams, too
        stdio.protect()
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
        status = commands[command](words)
    except ValueError as error:
        return _refuse(str(error))
    except OSError as error:  # a file to be written
        return _refuse(_reason(error))
    except KeyboardInterrupt:
        return _EXIT["interrupted"]
    return _check_output(command, status)


def _check_output(command: str, status: int) -> int:
    """Report that standard output could not be written; a reader that went away is no failure.

    A run is in its directory all the same and keeps its verdict; of other commands the output is the result.
    """
    lost = stdio.failure(sys.stdout)
    if lost is None or lost.errno == errno.EPIPE:
        return status
    _refuse(f"standard output: {lost.strerror}")
    return status if command in {"run", "sweep"} else status or USAGE


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _refuse(message: str) -> int:
    sys.stderr.write(f"loadgen: {message}\n")
    return USAGE


def _measure(command: str, argv: list[str]) -> int:
    config = read_config(command, argv)
    # Late, so that a usage error costs no imports.
    from loadgen.live import Terminal  # noqa: PLC0415
    from loadgen.outdir import claim, release  # noqa: PLC0415
    from loadgen.preflight import PreflightError  # noqa: PLC0415

    stream = sys.stderr if config.json else sys.stdout
    with Terminal(stream, quiet=config.quiet) as terminal:
        session = _session(config, terminal)
        for note in session.inputs.notes:  # whatever --quiet leaves out, these change the numbers
            sys.stderr.write(f"loadgen: note: {note}\n")
        out = _out(config, session)
        # Before anything is measured that could not be kept.
        new = claim(out, overwrite=config.force or config.resume)
        try:
            finished = _run(session)
        except BaseException as error:
            release(new)
            if isinstance(error, PreflightError):
                return _refuse(str(error))
            raise
        _save(out, finished, terminal)
    if config.json:
        sys.stdout.write(encode_run(finished.run).decode())
    return exit_status(finished.run)


def _save(out: Path, finished: "Finished", terminal: "Terminal") -> None:
    """Write the run, then show it, then draw it: no failure of the later steps loses what was measured.

    A file that cannot be written is named; the exit status remains that of the verdict.
    """
    # After the run: it imports what draws, which takes most of a second.
    from loadgen.rundir import keep, load, rebuild  # noqa: PLC0415

    try:
        with _signals_ignored():
            keep(out, finished.run, finished.records)
    except OSError as error:
        terminal.finished(finished.run)
        _refuse(f"the results are not saved: {_reason(error)}")
        return
    terminal.finished(finished.run)
    try:
        # From what was written, not from memory: a later rebuild has nothing else.
        made = rebuild(out, *load(out))
    except OSError as error:
        _refuse(f"{_reason(error)}; when that is mended: loadgen report {out}")
        return
    terminal.say(f"results: {out}/run.json, {', '.join(path.name for path in made)}")
    if not _drawn(made):
        terminal.note(HOW)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Let no second Ctrl-C cut off the writing of results."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(session: "Session") -> "Finished":
    profile = session.config.spec.simulate
    if profile is None:
        found: Finished = event_loop(session.run())
        return found
    from loadgen.virtualtime import simulate  # noqa: PLC0415  # only where asked for

    return simulate(session, profile)


def _out(config: Config, session: "Session") -> Path:
    return config.out if config.out != Path() else Path("runs") / session.run_id


def _session(config: Config, view: "View") -> "Session":
    """A new one, or one that goes on from what its run directory holds."""
    from loadgen.runner import Finished, Session  # noqa: PLC0415

    if config.resume:
        from loadgen.rundir import resumable  # noqa: PLC0415

        run, records = resumable(config.out)
        session = Session(config, view, run.run_id, list(run.points), records)
    else:
        session = Session(config, view)

    def keep_so_far(finished: Finished) -> None:
        from loadgen.rundir import keep  # noqa: PLC0415  # it imports what draws

        try:
            keep(_out(config, session), finished.run, finished.records)
        except OSError as error:  # a disk may have room again at the end
            view.note(f"the points so far are not saved: {_reason(error)}")

    if config.spec.command == "sweep" and not config.spec.search:
        session.save = keep_so_far
    return session


def exit_status(run: Run) -> int:
    """The status of a verdict."""
    return _EXIT[run.verdict]


def event_loop(main_: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end, on uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ImportError:
        return asyncio.run(main_)
    return uvloop.run(main_)


def _report(argv: list[str]) -> int:
    parser = Parser(prog="loadgen report", description="Rebuild report and curve of a run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--html", type=Path, metavar="FILE", help="where to write the report")
    parser.add_argument("--requests-csv", type=Path, metavar="FILE", help="also one row a request")
    args = parser.parse_args(argv)
    from loadgen.flat import requests_csv  # noqa: PLC0415
    from loadgen.outdir import write_file  # noqa: PLC0415
    from loadgen.rundir import load, rebuild  # noqa: PLC0415

    run, records = load(args.run)
    made = rebuild(args.run, run, records, args.html)
    if args.requests_csv is not None:
        write_file(args.requests_csv, requests_csv(records))
    sys.stdout.write(f"rebuilt {', '.join(map(str, made))}\n")
    if not _drawn(made):
        sys.stderr.write(f"note: {HOW}\n")
    return 0


def _drawn(made: Sequence[Path]) -> bool:
    return any(path.suffix == ".svg" for path in made)


def _compare(argv: list[str]) -> int:
    parser = Parser(
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
    Parser(prog="loadgen selfcheck", description="Measure servers of known truth.").parse_args(argv)
    from loadgen.selfcheck import selfcheck  # noqa: PLC0415  # it runs this very command

    return selfcheck()


if __name__ == "__main__":
    sys.exit(main())
