"""``python -m proxy.simulator``: the simulated engine as a server, its power on the NVML stand-in's file."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from proxy.clock import now_ns
from proxy.simulator.profile import DEFAULT, Profile, ProfileError, load, names
from proxy.simulator.server import Server
from proxy.simulator.standin import SimulatedDevice, Standin, StandinError


def main() -> int:
    """Run until SIGTERM or SIGINT; exit status 0, 2 for a profile or file that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m proxy.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="on 127.0.0.1; default 8000")
    parser.add_argument("--state", type=Path, required=True, help="file of the NVML stand-in, made anew")
    parser.add_argument("--profile", default=DEFAULT, help=f"a TOML file or one of {', '.join(names())}")
    given = parser.parse_args()
    try:
        profile = load(given.profile)
        device = SimulatedDevice(name=profile.device)
        with Standin(given.state, [device], now_ns()) as standin:
            return uvloop.run(_serve(profile, standin, given.port))
    except (ProfileError, StandinError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2


async def _serve(profile: Profile, standin: Standin, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(profile, lambda t_ns, watts: standin.append(0, t_ns, watts))
    await server.start(port=port)
    await stop.wait()
    await server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
