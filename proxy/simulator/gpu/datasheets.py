"""Data sheet values of the GPUs that the simulator has profiles for."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU model according to its data sheet; idle power is assumed, because data sheets omit it.

    ``memory_bytes``: capacity in bytes. ``bandwidth``: memory bandwidth in bytes/s. ``flops``: dense BF16
    operations per second. ``limit_watts``: default power limit. ``idle_watts``: power without work.
    """

    name: str
    memory_bytes: float
    bandwidth: float
    flops: float
    limit_watts: float
    idle_watts: float


GPUS: Final = {
    # NVIDIA's data sheets: H100 SXM5 80GB; B200 in HGX. Idle power: from public nvidia-smi
    # listings, not fitted.
    "H100": Gpu("NVIDIA H100 80GB HBM3", 85.0e9, 3.35e12, 989e12, 700.0, 74.0),
    "B200": Gpu("NVIDIA B200", 192.0e9, 7.7e12, 2250e12, 1000.0, 140.0),
}
