import pytest

from proxy.energy.device_names import Selection, pick
from proxy.energy.source import SensorError

UUIDS = ["GPU-aa-1", "GPU-bb-2", "GPU-cc-3"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [0, 1, 2]),
        (Selection(visible="2,0"), [2, 0]),
        (Selection(visible="GPU-bb"), [1]),
        (Selection(visible="1,7,0"), [1]),  # CUDA ignores what follows an invalid entry
        (Selection(visible=""), []),
        (Selection(visible="-1"), []),
        (Selection("0,GPU-cc-3", visible="1"), [0, 2]),
        (Selection("1,1"), [1]),
    ],
)
def test_picks(selection: Selection, expected: list[int]) -> None:
    assert pick(selection, UUIDS) == expected


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (Selection("3"), "devices: no device 3; there are 3"),
        (Selection("GPU-"), "matches 3 devices"),
        (Selection("MIG-123"), "MIG instance"),
        (Selection(visible="MIG-123"), "CUDA_VISIBLE_DEVICES: MIG-123"),
    ],
)
def test_says_why_not(selection: Selection, reason: str) -> None:
    with pytest.raises(SensorError, match=reason):
        pick(selection, UUIDS)
