"""A supervisor with stand-in children, as a program: ``python -m tests.fakes.supervised LOG [FAILING]``.

Each child appends ``NAME PID`` to LOG when it starts and ``NAME end`` when stopped; the child named
FAILING ends by itself, once; ``meter refused`` cannot use its settings, ``meter refused again`` ends once and
cannot use them from then on. SETTINGS (LOG.settings) holds
``workers admin-port sample-hz``, read at the start and at SIGHUP; words that are not are refused.
"""

import signal
import sys
from pathlib import Path

from proxy.config import Address, Backend, Config, ConfigError, MeterConfig
from proxy.config import RelayConfig as Relay
from proxy.supervisor import Supervisor


def main(log: Path, failing: str = "") -> int:
    """Run until stopped."""

    def child(name: str, ready_fd: int) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])
        started = log.read_text().count(f"{name} start") if log.exists() else 0
        note(f"{name} start")
        if failing == f"{name} refused" or (started and failing == f"{name} refused again"):
            raise ConfigError("source: no such device")
        with open(ready_fd, "wb") as ready:
            ready.write(b"1")
        if failing in {name, f"{name} refused again"} and not started:
            return 3
        while signal.sigwait([signal.SIGTERM, signal.SIGHUP]) == signal.SIGHUP:
            note(f"{name} hup")
        note(f"{name} end")
        return 0

    def note(line: str) -> None:
        with log.open("a") as file:
            file.write(line + "\n")

    def load() -> Config:
        file = log.with_suffix(".settings")
        workers, port, rate = (file.read_text() if file.exists() else "2 9001 20").split()
        if not workers.isdigit():
            raise ConfigError(f"workers {workers!r}: must be a whole number above 0")
        meter = MeterConfig(admin=Address("127.0.0.1", int(port)), sample_hz=float(rate))
        return Config((Backend("http://127.0.0.1:1"),), Relay(workers=int(workers)), meter)

    supervisor = Supervisor(
        load(), load, "", lambda _c, _s, fd, _l: child("relay", fd), lambda _c, _s, fd, _l: child("meter", fd)
    )
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
