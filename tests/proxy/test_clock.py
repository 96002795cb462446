from proxy.clock import WallAnchor


def test_an_anchor_is_the_middle_of_the_quickest_of_several_readings() -> None:
    """The thread was off the CPU within the first and the last reading."""
    readings = [(0, 1_000, 9_000), (9_100, 2_000, 9_300), (9_400, 3_000, 90_000)]
    assert WallAnchor.closest(readings) == WallAnchor(monotonic_ns=9_200, unix_ns=2_000)
    assert WallAnchor.closest(readings).unix(9_300) == 2_100
