from proxy.clock import WallAnchor
from proxy.core.events import Sample
from proxy.energy.sources.ring import PowerRing

ANCHOR = WallAnchor(monotonic_ns=5_000_000, unix_ns=105_000_000)


def test_stamps_become_monotonic_and_equal_powers_are_kept() -> None:
    ring = PowerRing()
    taken = ring.new_samples("gpu0", "nvml", [(101_000, 7.0), (102_000, 7.0)], ANCHOR)
    assert taken == [
        Sample(1_000_000, "gpu0", power_mw=7.0, source="nvml"),
        Sample(2_000_000, "gpu0", power_mw=7.0, source="nvml"),
    ]


def test_a_sample_is_taken_once_and_in_order() -> None:
    ring = PowerRing()
    ring.new_samples("gpu0", "nvml", [(102_000, 1.0)], ANCHOR)
    taken = ring.new_samples("gpu0", "nvml", [(104_000, 4.0), (102_000, 1.0), (103_000, 3.0)], ANCHOR)
    assert [s.power_mw for s in taken] == [3.0, 4.0]
    assert ring.new_samples("gpu0", "nvml", [(104_000, 4.0)], ANCHOR) == []
