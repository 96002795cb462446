from tests.calibration.findings import Row, table


def test_a_table_holds_both_numbers_and_their_ratio() -> None:
    lines = table([Row("a finding", 4.0, 3.0, "J")], ["| more | | | |"], titles="theirs | ours").splitlines()
    assert lines[0] == "| finding | theirs | ours | ratio |"
    assert lines[2:] == ["| a finding | 4 J | 3 J | 0.75 |", "| more | | | |"]
