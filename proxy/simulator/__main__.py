"""``python -m proxy.simulator``: a simulated engine as a server, its power on the NVML stand-in's file."""

import argparse
import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import uvloop

from proxy.clock import now_ns
from proxy.simulator import diffusion
from proxy.simulator.diffusion import DiffusionProfile
from proxy.simulator.imageserver import ImageServer
from proxy.simulator.profile import DEFAULT, Profile, ProfileError, adjusted, load, names
from proxy.simulator.server import Server
from proxy.simulator.standin import SimulatedDevice, Standin, StandinError
from proxy.simulator.webapp import Fault, WebApp
from proxy.units import NS_PER_MS, ns_from_seconds

H100_WATTS: Final = 700.0


def main() -> int:
    """Run until SIGTERM or SIGINT; exit status 0, 2 for a profile or file that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m proxy.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="on 127.0.0.1; default 8000")
    parser.add_argument("--state", type=Path, required=True, help="file of the NVML stand-in, made anew")
    parser.add_argument("--profile", default=DEFAULT, help="a TOML file or a name; see --profiles")
    parser.add_argument("--profiles", action="store_true", help="print the names of all profiles and end")
    parser.add_argument("--update-ms", type=int, default=20, help="update period of the energy counter")
    parser.add_argument("--max-num-seqs", type=int, help="streams at once, instead of the profile's")
    parser.add_argument("--max-waiting", type=int, help="requests in the queue; more are refused with 503")
    parser.add_argument("--cap-watts", type=float, help="power cap of all devices together")
    parser.add_argument("--gain", type=float, default=1.0, help="calibration error of the board: 1.05")
    if "--profiles" in sys.argv[1:]:
        sys.stdout.write("\n".join((*names(), *diffusion.names())) + "\n")
        return 0
    given = parser.parse_args()
    try:
        profile = _profile(given)
        device = SimulatedDevice(
            name=profile.device,
            idle_watts=profile.idle_watts / profile.devices,
            update_ns=given.update_ms * NS_PER_MS,
            gain=given.gain,
            limit_watts=_limit_watts(profile),
        )
        with Standin(given.state, [device] * profile.devices, now_ns()) as standin:
            return uvloop.run(_serve(_server(profile, standin), given.port))
    except (ProfileError, StandinError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2


def _profile(given: argparse.Namespace) -> Profile | DiffusionProfile:
    """The profile with the limits that were given; of a diffusion model only the queue has one."""
    if not _diffuses(given.profile):
        return adjusted(
            load(given.profile),
            max_num_seqs=given.max_num_seqs,
            max_waiting=given.max_waiting,
            cap_watts=given.cap_watts,
        )
    if given.max_num_seqs is not None or given.cap_watts is not None:
        raise ProfileError(f"profile {given.profile}: --max-num-seqs and --cap-watts are for language models")
    return replace(diffusion.load(given.profile), max_waiting=given.max_waiting)


def _limit_watts(profile: Profile | DiffusionProfile) -> float:
    """Of one device: its share of the cap, else an H100's."""
    cap = profile.cap_watts if isinstance(profile, Profile) else None
    return H100_WATTS if cap is None else cap / profile.devices


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
