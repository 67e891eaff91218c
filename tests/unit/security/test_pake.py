"""SPAKE2 from a password to a key."""

import pytest
from spake2.spake2 import DefaultParams

from toolkit.errors import ProtocolError
from toolkit.security.pake import ELEMENT_BYTES, PakeInitiator, PakeResponder

SECRET = bytes(32)


def initiator(password: bytes = b"ocean brick lunar") -> PakeInitiator:
    return PakeInitiator(password, lambda length: bytes([5]) * length)


def test_equal_passwords_make_equal_keys() -> None:
    left, responder = initiator(), PakeResponder(SECRET)
    answer, key = responder.finish_untrusted(b"ocean brick lunar", left.element, b"context")
    assert left.finish_untrusted(answer) == key
    assert len(left.element) == len(answer) == ELEMENT_BYTES
    assert len(key) == 32


def test_other_passwords_make_other_keys() -> None:
    left = initiator()
    answer, key = PakeResponder(SECRET).finish_untrusted(b"ocean brick solar", left.element, b"context")
    assert left.finish_untrusted(answer) != key


def test_a_responder_answers_the_same_again_and_something_else_to_anything_else() -> None:
    element = initiator().element
    responder = PakeResponder(SECRET)
    answer = responder.answer_untrusted(b"pw", element, b"context")
    assert responder.answer_untrusted(b"pw", element, b"context") == answer
    assert responder.finish_untrusted(b"pw", element, b"context")[0] == answer
    other_element = PakeInitiator(b"pw", lambda length: bytes([6]) * length).element
    others = [
        responder.answer_untrusted(b"pw", other_element, b"context"),
        responder.answer_untrusted(b"pw", element, b"other context"),
        responder.answer_untrusted(b"other", element, b"context"),
        PakeResponder(bytes([1]) * 32).answer_untrusted(b"pw", element, b"context"),
    ]
    assert len({answer, *others}) == 5


def test_a_responder_uses_no_scalar_for_two_passwords() -> None:
    """Equal scalars would show in two answers to one element: their difference would be known for two guesses."""
    group, blinding = DefaultParams.group, DefaultParams.N
    element = initiator().element
    scalars = set()
    for password in (b"one", b"two"):
        answer = PakeResponder(SECRET).answer_untrusted(password, element, b"")
        mask = blinding.scalarmult(-group.password_to_scalar(password))
        scalars.add(group.bytes_to_element(answer[1:]).add(mask).to_bytes())
    assert len(scalars) == 2


def test_an_initiator_can_read_an_answer_after_a_malformed_one() -> None:
    left, responder = initiator(b"pw"), PakeResponder(SECRET)
    with pytest.raises(ProtocolError, match="malformed"):
        left.finish_untrusted(b"B" + b"\xff" * 32)
    answer, key = responder.finish_untrusted(b"pw", left.element, b"")
    assert left.finish_untrusted(answer) == key


@pytest.mark.parametrize("length", [0, 32, 34])
def test_an_element_of_another_length_is_rejected(length: int) -> None:
    for receive in (
        initiator().finish_untrusted,
        lambda element: PakeResponder(SECRET).answer_untrusted(b"pw", element, b""),
        lambda element: PakeResponder(SECRET).finish_untrusted(b"pw", element, b""),
    ):
        with pytest.raises(ProtocolError, match="33 bytes"):
            receive(bytes(length))


def test_its_own_element_is_rejected() -> None:
    left = initiator()
    with pytest.raises(ProtocolError, match="malformed"):
        left.finish_untrusted(left.element)
    with pytest.raises(ProtocolError, match="malformed"):
        left.finish_untrusted(b"B" + left.element[1:])
