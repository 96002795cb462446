"""The simulated devices of a fleet: sensors, boards, and faults on command."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.clock import now_ns
from proxy.simulator.engine.diffusion import DiffusionProfile
from proxy.simulator.gpu.board import Board
from proxy.simulator.gpu.datasheets import GPUS
from proxy.simulator.gpu.fake_nvml import SM_MHZ, FakeNvml, SimulatedDevice
from proxy.simulator.profiles.profile import Profile
from proxy.simulator.server.image_server import ImageServer
from proxy.simulator.server.text_server import Server
from proxy.simulator.server.web_app import Fault
from proxy.units import NS_PER_MS, ns_from_seconds


class HardwareError(ValueError):
    """An invalid option; the message states the valid form."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Options of each device: sensor update period and gain, constants of its board; watts per device."""

    update_ns: int = 20 * NS_PER_MS
    gain: float = 1.0
    ramp_seconds: float = 0.0
    deep_watts: float | None = None
    deep_seconds: float = math.inf
    hot: float | None = None

    def devices(self, profile: Profile | DiffusionProfile) -> list[SimulatedDevice]:
        """Return the devices that an engine with this profile computes on."""
        one = SimulatedDevice(
            name=profile.device,
            idle_watts=profile.idle_watts / profile.devices,
            update_ns=self.update_ns,
            gain=self.gain,
            limit_watts=_limit_watts(profile),
        )
        return [one] * profile.devices

    def servers(
        self, profiles: Sequence[Profile | DiffusionProfile], fake_nvml: FakeNvml
    ) -> list[Server | ImageServer]:
        """Return one server per profile; each gets the devices after those of the previous one."""
        servers: list[Server | ImageServer] = []
        first = 0
        for profile in profiles:
            servers.append(_Engine(profile, self.board(profile), fake_nvml, first).server())
            first += profile.devices
        return servers

    def board(self, profile: Profile | DiffusionProfile) -> Board:
        """Return the boards of one engine as one; raise :class:`HardwareError` if deep idle exceeds idle."""
        each = profile.devices
        if self.deep_watts is not None and self.deep_watts * each > profile.idle_watts:
            raise HardwareError(f"--deep-idle {self.deep_watts:g}: idle is {profile.idle_watts / each:g} W")
        return Board(
            profile.idle_watts,
            devices=each,
            ramp_seconds=self.ramp_seconds,
            deep_watts=None if self.deep_watts is None else self.deep_watts * each,
            deep_seconds=self.deep_seconds,
            hot=self.hot,
        )


def deep_idle(text: str) -> tuple[float, float]:
    """Parse ``WATTS,SECONDS``; raise :class:`HardwareError` if malformed."""
    try:
        watts, seconds = (float(part) for part in text.split(","))
    except ValueError:
        watts = seconds = -1.0
    if watts < 0 or seconds < 0:
        raise HardwareError(f"--deep-idle {text}: must be WATTS,SECONDS, as 45,10")
    return watts, seconds


def _limit_watts(profile: Profile | DiffusionProfile) -> float:
    """Return the power limit of one device: its share of the profile's limits, or the data sheet's value."""
    if isinstance(profile, Profile):
        limits = [watts for watts in (profile.limit_watts, profile.cap_watts) if watts is not None]
        if limits:
            return min(limits) / profile.devices
    known = (gpu.limit_watts for gpu in GPUS.values() if profile.device.startswith(gpu.name))
    return next(known, GPUS["H100"].limit_watts)


@dataclass(slots=True)
class _Engine:
    """Connects an engine to its devices, whose numbers begin at ``first``."""

    profile: Profile | DiffusionProfile
    board: Board
    fake_nvml: FakeNvml
    first: int
    shown: tuple[int, int, int] = (-1, -1, -1)  # temperature, clock, utilization
    served: Server | ImageServer | None = None

    def server(self) -> Server | ImageServer:
        """Create the server; it reports its power and its faults to this object."""
        if isinstance(self.profile, DiffusionProfile):
            self.served = ImageServer(self.profile, self.draw, self.fault, self.board)
        else:
            self.served = Server(self.profile, self.draw, self.fault, self.board)
        return self.served

    def draw(self, t_ns: int, watts: float) -> None:
        """Set the power of all devices from ``t_ns`` on, and update temperature, clock and utilization."""
        count = self.profile.devices
        for device in range(self.first, self.first + count):
            self.fake_nvml.append(device, t_ns, watts / count)
        busy = self.served is not None and not self.served.engine.idle
        clock = self._throttle() if busy else 1.0
        shown = (round(self.board.celsius), round(SM_MHZ * clock), 100 if busy else 0)
        if shown != self.shown:
            self.shown = shown
            for device in range(self.first, self.first + count):
                self.fake_nvml.configure(device, temperature=shown[0], sm_mhz=shown[1], utilization=shown[2])

    def _throttle(self) -> float:
        """Apply the set and the thermal power limit to a text engine; return its clock as a share."""
        if not isinstance(self.served, Server) or not isinstance(self.profile, Profile):
            return 1.0
        limits = (self.profile.limit_watts, self.board.limit())
        costs = self.served.engine.costs
        costs.limit_watts = min((watts for watts in limits if watts is not None), default=None)
        return costs.clock

    def fault(self, fault: Fault) -> None:
        """Inject a fault into a device; raise ``IndexError`` if the device does not exist."""
        if not 0 <= fault.device < self.profile.devices:
            raise IndexError(f"no device {fault.device}; there are {self.profile.devices}, from 0")
        device = self.first + fault.device
        if fault.kind == "reset":
            self.fake_nvml.reset(device, now_ns())
        elif fault.kind == "lost":
            self.fake_nvml.lose(device)
        elif fault.kind == "restored":
            self.fake_nvml.restore(device)
        else:
            self.fake_nvml.configure(device, call_ns=ns_from_seconds(fault.call_seconds))
