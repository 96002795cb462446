"""How long a child that keeps ending waits before it is started again."""

from proxy.subprocesses import REFUSED, Child


def waits(child: Child, statuses: list[int]) -> list[str]:
    child.started_ns = 1 << 62  # in the future: none of them lived long
    return [child.ended(status).rpartition(": ")[2] for status in statuses]


def test_a_crash_loop_backs_off_and_says_so() -> None:
    child = Child("meter", lambda _fd: 1)
    found = waits(child, [1] * 10)
    assert found[:3] == [
        "starting it again in 0.2 s",
        "starting it again in 0.5 s",
        "starting it again in 1 s",
    ]
    assert found[-1] == "starting it again in 60 s"
    assert child.ended(-9).startswith("meter ended with status -9, 11 times in a row")
    child.start_soon()
    assert waits(child, [1]) == found[:1]


def test_a_child_has_a_longest_wait() -> None:
    assert waits(Child("relay worker 1", lambda _fd: 1, 5.0), [1] * 10)[-1] == "starting it again in 5 s"


def test_a_child_that_refused_its_settings_waits_the_longest_at_once() -> None:
    assert waits(Child("meter", lambda _fd: 2), [REFUSED]) == ["trying again in 60 s, or at SIGHUP"]
