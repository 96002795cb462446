"""``--simulate PROFILE``: a complete run in virtual time, as a grid of points or a search."""

import contextlib
import signal
from collections.abc import Iterator

from loadgen.drive.attack import Progress
from loadgen.drive.planning import plan
from loadgen.measure.operating_points import level_of
from loadgen.measure.window import steady_window
from loadgen.results.records import INTERRUPTED, Knee
from loadgen.run.session import Finished, Session, label
from loadgen.virtual.attack import VirtualAttack, keep
from loadgen.virtual.search import search_virtually
from loadgen.virtual.simulator import Simulator


def simulate(session: Session, profile: str) -> Finished:
    """Run in virtual time.

    Raises ``PreflightError`` for an invalid profile. The run is noted as simulated.
    """
    session.notes.append(f"simulated in virtual time by profile {profile}: nothing was measured")
    with _signals(session):
        knee: Knee | None = None
        if session.config.spec.search:
            with Simulator(profile) as simulator:
                model, knee = simulator.hello.model, search_virtually(session, simulator)
        else:
            model = _grid(session, profile)
    return session.finished(model, knee)


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run with the points so far."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: session.interrupt()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _grid(session: Session, profile: str) -> str:
    spec, model = session.config.spec, session.config.spec.model or ""
    done = {level_of(point) for point in session.points}
    for level in spec.levels:
        if level in done or session.interrupted:
            continue
        with Simulator(profile) as simulator:
            model = simulator.hello.model
            session.view.watch(label(spec, level), progress := Progress())
            _point(session, simulator, level, progress)
        if session.save is not None and len(session.points) < len(spec.levels):
            session.save(session.finished(model, None, over=False))
    return model


def _point(session: Session, simulator: Simulator, level: float, progress: Progress) -> None:
    spec = session.config.spec
    lengths, pacer = plan(spec, level, trace=session.inputs.trace)
    attack = VirtualAttack(
        simulator, pacer, lengths, spec, len(session.points), lambda: session.interrupted, progress=progress
    )
    end_ns = attack.run()
    concurrency = int(level) if spec.mode == "concurrency" else None
    window = steady_window(attack.records, end_ns, spec.warmup_rule, concurrency)
    notes = (INTERRUPTED,) if session.interrupted else ()
    session.view.point_ended(keep(session, attack, level, window, notes))
