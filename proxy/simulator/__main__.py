"""``python -m proxy.simulator``: a simulated engine as a server, its power on the NVML stand-in's file."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from proxy.clock import now_ns
from proxy.simulator import diffusion
from proxy.simulator.diffusion import DiffusionProfile
from proxy.simulator.imageserver import ImageServer
from proxy.simulator.profile import DEFAULT, Profile, ProfileError, load, names
from proxy.simulator.server import Server
from proxy.simulator.standin import SimulatedDevice, Standin, StandinError
from proxy.simulator.webapp import Fault, WebApp
from proxy.units import NS_PER_MS, ns_from_seconds


def main() -> int:
    """Run until SIGTERM or SIGINT; exit status 0, 2 for a profile or file that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m proxy.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="on 127.0.0.1; default 8000")
    parser.add_argument("--state", type=Path, required=True, help="file of the NVML stand-in, made anew")
    parser.add_argument("--profile", default=DEFAULT, help="a TOML file or a name; see --profiles")
    parser.add_argument("--profiles", action="store_true", help="print the names of all profiles and end")
    parser.add_argument("--update-ms", type=int, default=20, help="update period of the energy counter")
    parser.add_argument("--gain", type=float, default=1.0, help="calibration error of the board: 1.05")
    if "--profiles" in sys.argv[1:]:
        sys.stdout.write("\n".join((*names(), *diffusion.names())) + "\n")
        return 0
    given = parser.parse_args()
    try:
        profile = diffusion.load(given.profile) if _diffuses(given.profile) else load(given.profile)
        device = SimulatedDevice(
            name=profile.device,
            idle_watts=profile.idle_watts / profile.devices,
            update_ns=given.update_ms * NS_PER_MS,
            gain=given.gain,
        )
        with Standin(given.state, [device] * profile.devices, now_ns()) as standin:
            return uvloop.run(_serve(_server(profile, standin), given.port))
    except (ProfileError, StandinError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2


def _diffuses(name: str) -> bool:
    """Whether a profile is of a diffusion model: its name is, or its file says what kind it makes."""
    if not name.endswith(".toml"):
        return name in diffusion.names()
    path = Path(name)
    return path.exists() and any(line.startswith("kind") for line in path.read_text("utf-8").splitlines())


def _server(profile: Profile | DiffusionProfile, standin: Standin) -> WebApp[Any, Any]:
    count = profile.devices

    def draw(t_ns: int, watts: float) -> None:
        for device in range(count):
            standin.append(device, t_ns, watts / count)

    def fault(asked: Fault) -> None:
        if not 0 <= asked.device < count:
            raise IndexError(f"no device {asked.device}; there are {count}, from 0")
        if asked.kind == "reset":
            standin.reset(asked.device, now_ns())
        elif asked.kind == "lost":
            standin.lose(asked.device)
        elif asked.kind == "restored":
            standin.restore(asked.device)
        else:
            standin.configure(asked.device, call_ns=ns_from_seconds(asked.call_seconds))

    if isinstance(profile, DiffusionProfile):
        return ImageServer(profile, draw, fault)
    return Server(profile, draw, fault)


async def _serve(server: WebApp[Any, Any], port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start(port=port)
    await stop.wait()
    await server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
