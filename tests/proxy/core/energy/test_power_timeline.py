import itertools
import struct

import pytest

from proxy.core.energy import power_timeline as layout
from proxy.core.energy.power_timeline import DeviceBlock, mj_between
from proxy.units import NS_PER_MS, NS_PER_SECOND


def _block(segments: list[tuple[int, float, float]], **settings: float) -> DeviceBlock:
    """A device's block with these segments ``(t_ns, energy_mj, watts)``."""
    buffer = bytearray(layout.HEADER.size + layout.DEVICE_BYTES)
    block = DeviceBlock(memoryview(buffer), 0)
    for number, segment in enumerate(segments):
        at = block.base + layout.SEGMENT_OFFSET + number % layout.SEGMENTS * layout.SEGMENT.size
        layout.SEGMENT.pack_into(buffer, at, *segment)
    for name, value in {"gain": 1.0, "segments": len(segments), **settings}.items():
        offset, packer = layout.OFFSETS[name]
        packer.pack_into(buffer, block.base + offset, value)
    return block


def test_energy_is_the_exact_integral_of_the_steps() -> None:
    second = NS_PER_SECOND
    block = _block([(0, 0.0, 100.0), (second, 100_000.0, 300.0), (2 * second, 400_000.0, 50.0)])
    assert block.energy_mj(second // 2) == 50_000.0
    assert block.energy_mj(second) == 100_000.0
    assert block.energy_mj(3 * second) == 450_000.0
    assert block.energy_mj(-second) == -100_000.0  # before the ring: extrapolated


def test_a_wrapped_ring_finds_its_segments() -> None:
    ms = NS_PER_MS
    segments = [(k * ms, k * 100.0, 100.0) for k in range(layout.SEGMENTS + 10)]
    block = _block(segments)
    assert block.oldest_ns() == 10 * ms
    for k in (10, 11, 4000, layout.SEGMENTS + 9):
        assert block.energy_mj(k * ms + ms // 2) == pytest.approx(k * 100.0 + 50.0)


def test_the_counter_shows_the_last_update_in_whole_millijoules() -> None:
    block = _block([(0, 0.0, 100.0)], update_ns=20 * NS_PER_MS, phase_ns=7 * NS_PER_MS)
    assert block.edge_ns(46 * NS_PER_MS) == 27 * NS_PER_MS
    assert block.edge_ns(47 * NS_PER_MS) == 47 * NS_PER_MS
    assert block.counter_mj(46 * NS_PER_MS) == 2_700
    assert _block([(0, 0.0, 100.0)]).edge_ns(123) == 123  # no update period: continuous


def test_gain_and_offset_and_never_below_zero() -> None:
    block = _block([(0, 0.0, 100.0)], gain=1.1, offset_mj=50_000.0)
    assert block.counter_mj(NS_PER_SECOND) == 55_000
    assert block.counter_mj(0) == 0


def test_fields_do_not_overlap() -> None:
    offsets = sorted((offset, packer.size) for offset, packer in layout.OFFSETS.values())
    for (offset, size), (after, _) in itertools.pairwise(offsets):
        assert offset + size == after
    assert offsets[-1][0] + struct.calcsize("<I") == layout.PROCESS_OFFSET


def test_millijoules_of_constant_power() -> None:
    assert mj_between(250.0, NS_PER_SECOND // 2) == 125_000.0
