"""Which code is valid, when it ends, and how often it may be tried. The clock is an argument."""

import threading

import pytest

from toolkit.channel import Address
from toolkit.security.admission import Method
from toolkit.security.code_admission import MAX_WRONG_TRIES, CodeAdmission, CodeEnd
from toolkit.security.code_words import Code

SECOND_NS = 1_000_000_000
HOST = Address("192.0.2.7", 0).network


class Receiver:
    """A receiver's user, who sees codes come and go."""

    def __init__(self, *, uses: int = 1, is_renewed: bool = True, session_key: bytes | None = None) -> None:
        self.ended: list[tuple[Code, CodeEnd]] = []
        self.new: list[Code] = []
        self.admission = CodeAdmission(
            lambda code, reason: self.ended.append((code, reason)),
            self.new.append,
            uses=uses,
            is_renewed=is_renewed,
            session_key=session_key,
        )

    @property
    def code(self) -> Code:
        assert self.admission.code is not None
        return self.admission.code

    @property
    def nameplate(self) -> bytes:
        return self.code.credential.nameplate


def test_only_the_current_code_has_a_password() -> None:
    receiver = Receiver()
    first = receiver.code.credential
    assert receiver.admission.password(first.nameplate) == first.password
    assert receiver.admission.password(b"0" + first.nameplate) is None
    assert receiver.admission.password(b"") is None


def test_a_code_admits_one_session_and_the_next_code_follows() -> None:
    receiver = Receiver()
    first = receiver.code
    assert receiver.admission.record_success(first.credential.nameplate)
    assert receiver.ended == [(first, CodeEnd.USED)]
    assert receiver.new == [receiver.code]
    assert receiver.code.nameplate == first.nameplate + 1
    assert receiver.code.words != first.words
    assert receiver.admission.password(first.credential.nameplate) is None
    assert receiver.admission.has_ended(first.credential.nameplate)
    assert not receiver.admission.has_ended(receiver.nameplate)
    assert not receiver.admission.record_success(first.credential.nameplate)


def test_a_code_admits_as_many_sessions_as_the_user_chose() -> None:
    receiver = Receiver(uses=3)
    plate = receiver.nameplate
    assert [receiver.admission.record_success(plate) for _ in range(4)] == [True, True, True, False]
    assert len(receiver.ended) == 1


def test_without_renewal_no_code_follows_one_that_was_used() -> None:
    receiver = Receiver(is_renewed=False)
    plate = receiver.nameplate
    assert receiver.admission.record_success(plate)
    assert receiver.admission.code is None
    assert receiver.new == []
    assert receiver.admission.password(plate) is None
    receiver.admission.record_wrong(plate, HOST)
    assert len(receiver.ended) == 1


@pytest.mark.parametrize("is_renewed", [True, False])
def test_the_third_wrong_try_ends_a_code_and_another_follows(is_renewed: bool) -> None:
    receiver = Receiver(uses=5, is_renewed=is_renewed)
    first = receiver.code
    for _ in range(MAX_WRONG_TRIES - 1):
        receiver.admission.record_wrong(first.credential.nameplate, HOST)
    assert receiver.code == first
    receiver.admission.record_wrong(first.credential.nameplate, HOST)
    assert receiver.ended == [(first, CodeEnd.WRONG_TRIES)]
    assert receiver.new == [receiver.code]
    receiver.admission.record_wrong(first.credential.nameplate, HOST)  # an attempt that was still under way
    receiver.admission.record_wrong(receiver.nameplate, HOST)
    assert len(receiver.ended) == 1


def test_a_success_does_not_forgive_wrong_tries() -> None:
    receiver = Receiver(uses=9)
    plate = receiver.nameplate
    for _ in range(MAX_WRONG_TRIES - 1):
        receiver.admission.record_wrong(plate, HOST)
        assert receiver.admission.record_success(plate)
    receiver.admission.record_wrong(plate, HOST)
    assert [reason for _, reason in receiver.ended] == [CodeEnd.WRONG_TRIES]


def test_of_sessions_that_race_for_a_code_one_wins() -> None:
    receiver = Receiver()
    plate = receiver.nameplate
    outcomes: list[bool] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        outcomes.append(receiver.admission.record_success(plate))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_a_callback_may_use_the_admission() -> None:
    seen: list[Code | None] = []
    admission: CodeAdmission = CodeAdmission(lambda *_: seen.append(admission.code), lambda _: None)
    assert admission.code is not None
    admission.record_success(admission.code.credential.nameplate)
    assert seen == [admission.code]


def test_the_session_key_admits_beside_the_code_only_if_there_is_one() -> None:
    with_key, without = Receiver(session_key=bytes(range(32))).admission, Receiver().admission
    assert with_key.method == without.method == Method.CODE
    assert [with_key.admits(method) for method in Method] == [False, True, True, False]
    assert [without.admits(method) for method in Method] == [False, False, True, False]
    assert with_key.psk() == bytes(range(32))
    with pytest.raises(ValueError, match="by code only"):
        without.psk()


class TestLimits:
    """How often codes may be tried."""

    def tries(self, receiver: Receiver, host: str, now_ns: int, count: int = 1000) -> int:
        """Try until it is refused, and return how often it was allowed."""
        network = Address(host, 0).network
        return next((n for n in range(count) if not receiver.admission.may_try(network, now_ns)), count)

    def test_a_host_has_a_burst_and_then_one_try_every_five_seconds(self) -> None:
        receiver = Receiver()
        assert self.tries(receiver, "192.0.2.7", 0) == 20
        assert self.tries(receiver, "192.0.2.7", 4 * SECOND_NS) == 0
        assert self.tries(receiver, "192.0.2.7", 5 * SECOND_NS) == 1
        assert self.tries(receiver, "192.0.2.7", 3600 * SECOND_NS) == 20

    def test_one_host_does_not_use_up_what_others_have(self) -> None:
        receiver = Receiver()
        self.tries(receiver, "192.0.2.7", 0)
        assert self.tries(receiver, "192.0.2.8", 0) == 20

    def test_all_hosts_together_have_a_burst_and_then_ten_a_second(self) -> None:
        receiver = Receiver()
        assert sum(self.tries(receiver, f"10.0.{n}.1", 0) for n in range(100)) == 40
        assert sum(self.tries(receiver, f"10.1.{n}.1", SECOND_NS) for n in range(100)) == 10

    def test_one_host_ends_at_most_a_code_a_minute(self) -> None:
        """It sends no first flight, only wrong second ones."""
        receiver = Receiver()
        for now_s in range(3600):
            while receiver.admission.may_try(HOST, now_s * SECOND_NS):
                receiver.admission.record_wrong(receiver.nameplate, HOST)
        assert 55 <= len(receiver.ended) <= 61

    def test_three_slips_leave_a_person_the_next_code(self) -> None:
        receiver = Receiver()
        for _ in range(3):
            assert self.tries(receiver, "192.0.2.7", 0, 2) == 2
            receiver.admission.record_wrong(receiver.nameplate, Address("192.0.2.7", 0).network)
        assert self.tries(receiver, "192.0.2.7", 0, 2) == 2

    def test_a_clock_that_stands_still_or_goes_back_gives_no_tries(self) -> None:
        receiver = Receiver()
        assert self.tries(receiver, "192.0.2.7", 10 * SECOND_NS) == 20
        assert self.tries(receiver, "192.0.2.7", 0) == 0
        assert self.tries(receiver, "192.0.2.7", 10 * SECOND_NS) == 0

    def test_memory_is_bounded_by_forgetting_the_host_that_tried_least_recently(self) -> None:
        receiver = Receiver()
        self.tries(receiver, "192.0.2.7", 0)
        for number in range(1024):
            receiver.admission.may_try(number.to_bytes(4, "big"), number * SECOND_NS)
        assert self.tries(receiver, "192.0.2.7", 1025 * SECOND_NS) == 20
