"""Run simulated engines as servers, seen through the substitute NVML library: ``python -m proxy.simulator``.

``--profile`` and ``--port`` may be given several times, for a fleet with each engine on devices of its own.
"""

import argparse
import asyncio
import math
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from proxy.clock import now_ns
from proxy.simulator.engine import diffusion
from proxy.simulator.engine.diffusion import DiffusionProfile
from proxy.simulator.gpu.fake_nvml import FakeNvml, FakeNvmlError
from proxy.simulator.hardware import Hardware, HardwareError, deep_idle
from proxy.simulator.profiles.profile import (
    DEFAULT,
    Profile,
    ProfileError,
    adjusted,
    load,
    names,
    speculation,
)
from proxy.simulator.server.text_server import Server
from proxy.simulator.server.web_app import WebApp
from proxy.units import MS_PER_SECOND, NS_PER_MS


def main() -> int:
    """Run until SIGTERM or SIGINT; return exit status 0, or 2 for a profile or file that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m proxy.simulator", description=__doc__)
    parser.add_argument(
        "--port", type=int, action="append", help="on 127.0.0.1, one a profile; default 8000 and those after"
    )
    parser.add_argument("--state", type=Path, required=True, help="file of the NVML stand-in, made anew")
    parser.add_argument("--profile", action="append", help="a TOML file or a name; see --profiles")
    parser.add_argument("--profiles", action="store_true", help="print the names of all profiles and end")
    parser.add_argument("--update-ms", type=int, default=20, help="update period of the energy counter")
    parser.add_argument("--max-num-seqs", type=int, help="streams at once, instead of the profile's")
    parser.add_argument("--max-waiting", type=int, help="requests in the queue; more are refused with 503")
    parser.add_argument("--cap-watts", type=float, help="power cap of all devices together")
    parser.add_argument(
        "--speculate",
        type=speculation,
        metavar="TOKENS,ACCEPTANCE[,DRAFT]",
        help="speculative decoding; DRAFT: what a draft pass costs, over the model's own step",
    )
    parser.add_argument("--gain", type=float, default=1.0, help="calibration error of the board: 1.05")
    parser.add_argument("--otlp", metavar="URL", help="where language models send spans, as vLLM does")
    parser.add_argument("--ramp-ms", type=float, default=0.0, help="time constant of power, default 0")
    parser.add_argument("--deep-idle", metavar="WATTS,SECONDS", help="of a device without work for so long")
    parser.add_argument("--hot", type=float, metavar="CELSIUS", help="temperature at which it throttles")
    if "--profiles" in sys.argv[1:]:
        sys.stdout.write("\n".join((*names(), *diffusion.names())) + "\n")
        return 0
    given = parser.parse_args()
    try:
        profiles = [_profile(given, name) for name in given.profile or [DEFAULT]]
        how = _hardware(given)
        devices = [device for profile in profiles for device in how.devices(profile)]
        with FakeNvml(given.state, devices, now_ns()) as fake_nvml:
            servers = how.servers(profiles, fake_nvml)
            for server in servers:
                if given.otlp is not None and isinstance(server, Server):
                    server.trace(given.otlp)
            return uvloop.run(_serve(servers, _ports(given.port or [8000], len(profiles))))
    except (ProfileError, FakeNvmlError, HardwareError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2


def _profile(given: argparse.Namespace, name: str) -> Profile | DiffusionProfile:
    """Load a profile and apply the given limits; of a diffusion model only the queue has one."""
    if not _diffuses(name):
        return adjusted(
            load(name),
            max_num_seqs=given.max_num_seqs,
            max_waiting=given.max_waiting,
            cap_watts=given.cap_watts,
            speculation=given.speculate,
        )
    if any(value is not None for value in (given.max_num_seqs, given.cap_watts, given.speculate)):
        what = "--max-num-seqs, --cap-watts and --speculate"
        raise ProfileError(f"profile {name}: {what} are for language models")
    return replace(diffusion.load(name), max_waiting=given.max_waiting)


def _hardware(given: argparse.Namespace) -> Hardware:
    watts, seconds = deep_idle(given.deep_idle) if given.deep_idle is not None else (None, math.inf)
    return Hardware(
        update_ns=given.update_ms * NS_PER_MS,
        gain=given.gain,
        ramp_seconds=given.ramp_ms / MS_PER_SECOND,
        deep_watts=watts,
        deep_seconds=seconds,
        hot=given.hot,
    )


def _ports(given: list[int], count: int) -> list[int]:
    """Return a port for each of ``count`` servers: those given, then the numbers after the last one."""
    return [*given, *range(given[-1] + 1, given[-1] + 1 + count)][:count]


def _diffuses(name: str) -> bool:
    """Return whether a profile is of a diffusion model, by its name or by the key ``kind`` of its file."""
    if not name.endswith(".toml"):
        return name in diffusion.names()
    path = Path(name)
    return path.exists() and any(line.startswith("kind") for line in path.read_text("utf-8").splitlines())


async def _serve(servers: Sequence[WebApp[Any, Any]], ports: Sequence[int]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for server, port in zip(servers, ports, strict=True):
        await server.start(port=port)
    await stop.wait()
    for server in servers:
        await server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
