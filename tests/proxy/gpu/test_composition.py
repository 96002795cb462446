from proxy.gpu.composition import Composition, Work, in_grain


def test_requests_with_the_same_work_are_of_one_kind() -> None:
    found = Composition.of([Work(1, 100), Work(64, 0), Work(1, 100)])
    assert found == Composition((Work(1, 100), Work(64, 0)), (2, 1))
    assert found.works() == [Work(1, 100), Work(1, 100), Work(64, 0)]
    assert (found.tokens, found.context) == (66, 200)


def test_a_coalition_leaves_out_kinds_without_members() -> None:
    found = Composition.of([Work(1, 100), Work(64, 0)]).coalition((0, 1))
    assert found == Composition.of([Work(64, 0)])


def test_only_the_context_of_decoding_is_rounded() -> None:
    assert in_grain(Work(1, 100), 64) == Work(1, 96)
    assert in_grain(Work(20, 100), 64) == Work(20, 100)
