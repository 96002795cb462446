"""``jouleproxy serve``: check the settings, start one meter and N relay workers, and keep them running.

Exit status: 0 after SIGTERM or SIGINT, both of which drain (running responses end, new connections are
refused; a second signal ends at once, with status 130 for SIGINT), and 2 if it cannot start. SIGHUP reads the
settings again: workers and meter apply them while they run; the meter restarts only if its own settings
changed.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from proxy.clock import now_ns
from proxy.config import Address, Config, ConfigError
from proxy.start_checks import (
    check_backend,
    check_certificates,
    check_output,
    free_address,
    reserved,
    show,
)
from proxy.subprocesses import REFUSED, SIGNALS, Child, reap
from proxy.units import NS_PER_SECOND, ns_from_seconds, seconds_from_ns

READY_SECONDS: Final = 30.0
METER_STOP_SECONDS: Final = 15.0
_RELAY_WAIT_SECONDS: Final = 5.0  # longest delay of a restart of a relay worker: clients wait for it

Load = Callable[[], Config]
Run = Callable[[Config, str, int, Load], int]  # (settings, meter socket, descriptor for say_ready, reload)


def serve(load: Load) -> int:
    """Run until SIGTERM or SIGINT; return the exit status.

    Args:
        load: Reads the settings; called again at SIGHUP.

    Raises:
        ConfigError: for settings, ports, files or backends that cannot be used.
    """
    config = load()
    with contextlib.ExitStack() as stack:
        relay = replace(config.relay, listen=stack.enter_context(reserved(config.relay.listen, "--listen")))
        meter = replace(config.meter, admin=free_address(config.meter.admin, "--admin"))
        config = replace(config, relay=relay, meter=meter)
        check_certificates(config)
        for option, path in (("--record", config.meter.record), ("--ledger", config.meter.ledger)):
            if path is not None:
                check_output(option, Path(path))
        if config.check_upstream:
            for backend in config.backends:
                check_backend(backend, config.relay.connect_timeout_seconds)
        folder = tempfile.mkdtemp(prefix="jouleproxy-")  # mode 0700: no other user can connect to the socket
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return Supervisor(config, load, str(Path(folder) / "meter.sock")).run()


class Supervisor:
    """Starts and restarts the children; one thread that waits for signals only.

    Args:
        config: The settings, with free ports chosen.
        load: Reads the settings again.
        meter_socket: Path of the Unix socket between relays and meter.
        relay: Body of a relay worker; tests replace it.
        meter: Body of the meter; tests replace it.
    """

    def __init__(
        self,
        config: Config,
        load: Load,
        meter_socket: str,
        relay: Run | None = None,
        meter: Run | None = None,
    ) -> None:
        self._run_relay, self._run_meter = relay or run_relay, meter or run_meter
        self._config = config
        self._load = load
        self._socket = meter_socket
        self._meter = Child("meter", self._meter_body(config))
        self._workers = self._new_workers(config)
        self._leaving: list[Child] = []  # replaced workers that drain

    def run(self) -> int:
        """Start all children and wait for a signal to end; return the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return self._until_signal() if self._start() else 2
        finally:
            self._kill_all()

    def _start(self) -> bool:
        self._meter.start()
        if not self._meter.wait_ready(READY_SECONDS):
            signal.sigtimedwait([signal.SIGCHLD], 5.0)  # it closed its pipe and is about to end
            status = reap().get(self._meter.pid or 0)
            if status == REFUSED:
                return False  # it has logged the reason; serving on would look like zero joules
            if status is not None:
                say(self._meter.ended(status))
            say("meter failed to start; continuing without energy measurement until it does")
        for worker in self._workers:
            worker.start()
        if not all(worker.wait_ready(READY_SECONDS) for worker in self._workers):
            say("a relay worker failed to start: see above")
            return False
        self._greet()
        return True

    def _greet(self) -> None:
        relay, meter = self._config.relay, self._config.meter
        scheme = "https" if relay.tls_certificate else "http"
        names = ", ".join(backend.url for backend in self._config.backends)
        say(f"listening on {scheme}://{show(relay.listen)} -> {names}")
        say(f"metrics, records and dashboard on http://{show(meter.admin)}/")

    def _until_signal(self) -> int:
        while True:
            number = self._wait()
            if number == signal.SIGHUP:
                self._reload()
            elif number in {signal.SIGTERM, signal.SIGINT}:
                return self._stop()

    def _wait(self) -> int | None:
        """Restart children that are due; return the next signal if it arrives before the next restart."""
        self._reap()
        idle = [child for child in self._children() if child.pid is None]
        for child in idle:
            if child.due_ns <= now_ns():
                child.start()
        for child in self._children():
            child.wait_ready(
                0
            )  # closes the pipe of a restarted child, so that later children do not inherit it
        due = [child.due_ns for child in idle if child.pid is None]
        wait = max(min(due) - now_ns(), 0) if due else NS_PER_SECOND
        info = signal.sigtimedwait(SIGNALS, seconds_from_ns(wait))
        return info.si_signo if info else None

    def _children(self) -> list[Child]:
        return [self._meter, *self._workers]

    def _reap(self) -> None:
        for pid, status in reap().items():
            self._leaving = [child for child in self._leaving if child.pid != pid]
            for child in self._children():
                if child.pid == pid:
                    say(child.ended(status))

    def _reload(self) -> None:
        """Read the settings again; running children apply them, so that no request is lost."""
        try:
            new = self._load()
            check_certificates(new)
        except ConfigError as error:
            say(f"settings not reloaded, the old ones remain in effect: {error}")
            return
        old = self._config
        self._config = config = settled(new, old)
        if stays := fixed(new, old):
            say(f"unchanged until a restart: {', '.join(stays)}")
        self._reload_meter(old, config)
        self._reload_workers(config)
        say(f"settings reloaded: {', '.join(backend.url for backend in config.backends)}")

    def _reload_meter(self, old: Config, config: Config) -> None:
        self._meter.body = self._meter_body(config)
        self._meter.start_soon()
        if config.meter == old.meter:
            self._meter.send(signal.SIGHUP)
        else:
            say("the meter's settings changed: it restarts, the energy of running requests is known in part")
            self._meter.send(signal.SIGTERM)  # it is restarted like any meter that ends

    def _reload_workers(self, config: Config) -> None:
        """Apply new settings to the running workers; stop or start some if their number changed."""
        count = config.relay.workers
        leaving, self._workers = self._workers[count:], self._workers[:count]
        for worker in self._workers:
            worker.body = self._relay_body(config)
            worker.start_soon()
            worker.send(signal.SIGHUP)
        for worker in leaving:
            worker.send(signal.SIGTERM)
        self._leaving += [worker for worker in leaving if worker.pid is not None]
        self._workers += self._new_workers(config)[
            len(self._workers) :
        ]  # started like any child that does not run

    def _stop(self) -> int:
        """Drain the workers, then stop the meter, so that the last records are written."""
        workers = self._workers + self._leaving
        say("draining: running responses may end, a second signal stops at once")
        for worker in workers:
            worker.send(signal.SIGTERM)
        status = self._wait_gone(workers, self._config.relay.drain_timeout_seconds + 5)
        if status is None:
            self._meter.send(signal.SIGTERM)
            status = self._wait_gone([self._meter], METER_STOP_SECONDS)
        return status or 0

    def _wait_gone(self, children: list[Child], seconds: float) -> int | None:
        """Wait until the children have ended or ``seconds`` have passed.

        Returns:
            The exit status if a second signal ended the wait, else None.
        """
        deadline = now_ns() + ns_from_seconds(seconds)
        while True:
            ended = reap()
            for child in (
                *self._children(),
                *self._leaving,
            ):  # reap() reports each end once, so all are checked
                if child.pid in ended:
                    child.pid = None
            left = deadline - now_ns()
            if left <= 0 or all(child.pid is None for child in children):
                return None
            info = signal.sigtimedwait(SIGNALS, seconds_from_ns(left))
            if info and info.si_signo in {signal.SIGTERM, signal.SIGINT}:
                return 128 + info.si_signo

    def _kill_all(self) -> None:
        for child in (*self._children(), *self._leaving):
            child.send(signal.SIGKILL)
            child.forget_pipe()

    def _new_workers(self, config: Config) -> list[Child]:
        return [
            Child(f"relay worker {n}", self._relay_body(config), _RELAY_WAIT_SECONDS)
            for n in range(1, config.relay.workers + 1)
        ]

    def _relay_body(self, config: Config) -> Callable[[int], int]:
        return lambda fd: self._run_relay(config, self._socket, fd, lambda: settled(self._load(), config))

    def _meter_body(self, config: Config) -> Callable[[int], int]:
        return lambda fd: self._run_meter(config, self._socket, fd, lambda: settled(self._load(), config))


def settled(new: Config, running: Config) -> Config:
    """Return new settings, with those that cannot change while it runs kept as they are."""
    old = running.relay
    relay = replace(new.relay, listen=old.listen, event_buffer_messages=old.event_buffer_messages)
    if (relay.tls_certificate is None) != (old.tls_certificate is None):
        relay = replace(relay, tls_certificate=old.tls_certificate, tls_key=old.tls_key)
    return replace(new, relay=relay, meter=replace(new.meter, admin=running.meter.admin))


def fixed(new: Config, running: Config) -> list[str]:
    """Return the names of changed settings that need a restart; a port 0 equals the port chosen for it."""
    kept = settled(new, running)
    pairs = [
        (f"{table}.{field.name}", getattr(given, field.name), getattr(used, field.name))
        for table, given, used in (("relay", new.relay, kept.relay), ("meter", new.meter, kept.meter))
        for field in fields(given)
    ]
    return [
        name
        for name, given, used in pairs
        if given != used and not (isinstance(given, Address) and given == Address(used.host, 0))
    ]


def run_relay(config: Config, meter_socket: str, ready_fd: int, load: Load) -> int:
    """Run a relay worker in the present process; return its exit status."""
    from proxy.relay.worker import run  # noqa: PLC0415 - only children import it

    log_to_stderr(config.log_level)
    return run(config.relay, config.backends, meter_socket, ready_fd, load)


def run_meter(config: Config, meter_socket: str, ready_fd: int, load: Load) -> int:
    """Run the meter in the present process; return its exit status."""
    from proxy.meter.process import run  # noqa: PLC0415 - as above

    log_to_stderr(config.log_level)
    return run(config.meter, config.backends, meter_socket, ready_fd, load)


def log_to_stderr(level: str) -> None:
    """Configure logging of a child process in the format of the supervisor's lines."""
    import logging  # noqa: PLC0415 - as above

    logging.basicConfig(level=level.upper(), format="jouleproxy[%(process)d]: %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request


def say(line: str) -> None:
    """Write one line for the operator to stderr."""
    sys.stderr.write(f"jouleproxy[{os.getpid()}]: {line}\n")
    sys.stderr.flush()
