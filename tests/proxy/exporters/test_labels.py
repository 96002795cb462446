"""Values of labels are bounded in number and length."""

from proxy.exporters.labels import MAX_LENGTH, OTHER, BoundedValues


def test_values_beyond_the_limit_are_other() -> None:
    limited: list[int] = []
    values = BoundedValues(2, lambda: limited.append(1))
    assert [values.value(text, 0) for text in ("a", "b", "c", "a", None)] == ["a", "b", OTHER, "a", OTHER]
    assert len(limited) == 2


def test_a_value_that_may_take_no_slot_is_shown_if_it_has_one() -> None:
    values = BoundedValues(2)
    assert values.value("a", 0, claim=False) == OTHER
    values.value("a", 0)
    assert values.value("a", 0, claim=False) == "a"


def test_the_slot_of_the_longest_idle_value_is_given_to_a_new_one() -> None:
    gone: list[str] = []
    values = BoundedValues(2, on_reclaimed=gone.append, idle_ns=10)
    values.value("a", 0)
    values.value("b", 1)
    values.value("a", 5)
    assert [values.value("c", 10), values.value("c", 11), gone] == [OTHER, "c", ["b"]]
    assert values.value("b", 12) == OTHER


def test_long_values_are_cut() -> None:
    assert BoundedValues(2).value("x" * 1000, 0) == "x" * MAX_LENGTH
