import msgspec

from proxy.schema import Parts, RequestEnergy, Unknown, decode_request, encode, sum_parts


def test_parts_are_summed_and_what_is_not_known_stays_apart() -> None:
    one = Parts(static=1.0, decode=2.0)
    two = Parts(static=3.0, decode=None, idle=0.5, unseparated=4.0)
    assert sum_parts([one, two]) == Parts(static=4.0, decode=2.0, idle=0.5, unseparated=4.0)
    assert sum_parts([two]) == two
    assert sum_parts([]) is None


def test_a_reason_is_one_word_on_the_wire_and_has_a_meaning_and_a_remedy_of_its_own() -> None:
    for reason in Unknown:
        record = RequestEnergy(request_id="a", unknown=reason)
        assert decode_request(encode(record)).unknown == reason.value
        assert msgspec.json.encode(reason) == f'"{reason}"'.encode()
        assert reason.meaning.endswith(".")
        assert reason.remedy.endswith(".")
    assert len({reason.meaning for reason in Unknown}) == len(Unknown)


def test_a_reason_of_a_newer_program_is_read() -> None:
    assert decode_request('{"request_id": "a", "unknown": "of_tomorrow"}').unknown == "of_tomorrow"
