"""The subcommands ``run`` and ``sweep``: measure, save the results, report them.

This module composes the packages: it reads the options, creates the session, selects how it is measured
(grid or search, in real or virtual time) and writes the run directory. ``cli`` and ``selfcheck`` call it.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadgen.config.options import USAGE, read_config
from loadgen.config.spec import Config
from loadgen.report.figures import MATPLOTLIB_HINT
from loadgen.results.records import Run, encode_run

if TYPE_CHECKING:
    from loadgen.report.terminal import Terminal
    from loadgen.run.session import Finished, Session
    from loadgen.run.view import View

_EXIT: Final = {"pass": 0, "fail": 1, "generator-bound": 3, "interrupted": 130}
INTERRUPTED_STATUS: Final = _EXIT["interrupted"]


def exit_status(run: Run) -> int:
    """Return the process exit status for the verdict of a run."""
    return _EXIT[run.verdict]


def refuse(message: str) -> int:
    """Write an error line to standard error and return the exit status of usage errors, 2."""
    sys.stderr.write(f"loadgen: {message}\n")
    return USAGE


def describe(error: OSError) -> str:
    """Return ``FILE: reason`` for an I/O error, as far as both are known."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def has_curve(paths: Sequence[Path]) -> bool:
    """Return whether the rebuilt files include the curve, which needs matplotlib."""
    return any(path.suffix == ".svg" for path in paths)


def run_command(command: str, argv: list[str]) -> int:
    """Run ``loadgen run`` or ``loadgen sweep`` and return the exit status.

    The run directory is claimed before anything is measured, so that no results are lost because they
    cannot be saved. Raises ``ValueError`` for invalid options and ``OSError`` for files.
    """
    config = read_config(command, argv)
    # Imported late, so that a usage error costs no imports.
    from loadgen.drive.preflight import PreflightError  # noqa: PLC0415
    from loadgen.report.terminal import Terminal  # noqa: PLC0415
    from loadgen.results.output_files import claim, release  # noqa: PLC0415

    stream = sys.stderr if config.json else sys.stdout
    with Terminal(stream, quiet=config.quiet) as terminal:
        session = _session(config, terminal)
        for note in session.inputs.notes:  # --quiet does not hide them: they change the numbers
            sys.stderr.write(f"loadgen: note: {note}\n")
        out = _out(config, session)
        new = claim(out, overwrite=config.force or config.resume)
        try:
            finished = _run(session)
        except BaseException as error:
            release(new)
            if isinstance(error, PreflightError):
                return refuse(str(error))
            raise
        _save(out, finished, terminal)
    if config.json:
        sys.stdout.write(encode_run(finished.run).decode())
    return exit_status(finished.run)


def _session(config: Config, view: "View") -> "Session":
    """Return a new session, or with ``--resume`` one with the points of an interrupted sweep."""
    from loadgen.run.session import Finished, Session  # noqa: PLC0415

    if config.resume:
        from loadgen.results.run_directory import resumable  # noqa: PLC0415

        run, records = resumable(config.out)
        session = Session(config, view, run.run_id, list(run.points), records)
    else:
        session = Session(config, view)

    def keep_so_far(finished: Finished) -> None:
        from loadgen.results.run_directory import keep  # noqa: PLC0415  # zstd: not before the first request

        try:
            keep(_out(config, session), finished.run, finished.records)
        except OSError as error:  # not fatal: the disk may have room again at the end
            view.note(f"the points so far are not saved: {describe(error)}")

    if config.spec.command == "sweep" and not config.spec.search:
        session.save = keep_so_far
    return session


def _out(config: Config, session: "Session") -> Path:
    return config.out if config.out != Path() else Path("runs") / session.run_id


def _run(session: "Session") -> "Finished":
    """Measure in virtual time with ``--simulate``, else on an event loop in real time."""
    profile = session.config.spec.simulate
    if profile is not None:
        from loadgen.virtual.run import simulate  # noqa: PLC0415

        return simulate(session, profile)
    from loadgen.drive.event_loop import run_event_loop  # noqa: PLC0415

    if session.config.spec.search:
        from loadgen.search.runner import search_knee  # noqa: PLC0415

        return run_event_loop(session.run(search_knee))
    return run_event_loop(session.run())


def _save(out: Path, finished: "Finished", terminal: "Terminal") -> None:
    """Write the results, show them, then draw them: a failure of a later step loses no measurement.

    A file that cannot be written is reported; the exit status remains that of the verdict.
    """
    # Imported after the run: matplotlib takes most of a second.
    from loadgen.report.rebuild import rebuild  # noqa: PLC0415
    from loadgen.results.run_directory import keep, load  # noqa: PLC0415

    try:
        with _signals_ignored():
            keep(out, finished.run, finished.records)
    except OSError as error:
        terminal.finished(finished.run)
        refuse(f"the results are not saved: {describe(error)}")
        return
    terminal.finished(finished.run)
    try:
        # From the files, not from memory: a later `loadgen report` has nothing else.
        made = rebuild(out, *load(out))
    except OSError as error:
        refuse(f"{describe(error)}; when that is fixed, run: loadgen report {out}")
        return
    terminal.say(f"results: {out}/run.json, {', '.join(path.name for path in made)}")
    if not has_curve(made):
        terminal.note(MATPLOTLIB_HINT)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP, so that a second Ctrl-C does not truncate the results."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
