"""A supervisor with stand-in children, as a program: ``python -m tests.fakes.supervised LOG [FAILING]``.

Each child appends ``NAME PID`` to LOG when it starts and ``NAME end`` when told to stop; the child named
FAILING ends by itself, once; ``meter refused`` cannot use its settings.
"""

import signal
import sys
from pathlib import Path

from proxy.app import Supervisor
from proxy.config import Backend, Config, ConfigError
from proxy.config import RelayConfig as Relay


def main(log: Path, failing: str = "") -> int:
    """Run until told to stop."""

    def child(name: str, ready_fd: int) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        started = log.read_text().count(f"{name} start") if log.exists() else 0
        note(f"{name} start")
        if failing == f"{name} refused":
            raise ConfigError("source: no such device")
        with open(ready_fd, "wb") as ready:
            ready.write(b"1")
        if name == failing and not started:
            return 3
        signal.sigwait([signal.SIGTERM])
        note(f"{name} end")
        return 0

    def note(line: str) -> None:
        with log.open("a") as file:
            file.write(line + "\n")

    def load() -> Config:
        return Config((Backend("http://127.0.0.1:1"),), Relay(workers=2))

    supervisor = Supervisor(
        load(), load, "", lambda _c, _s, fd: child("relay", fd), lambda _c, _s, fd: child("meter", fd)
    )
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
