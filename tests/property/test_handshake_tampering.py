"""Handshakes in the hands of someone between the hosts, and of peers that send anything.

A flipped bit in any message ends the handshake at one side or the other. Hostile bytes raise ProtocolError, or are
refused.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.handshakes import HOST, KEY, PROLOGUE, SPEEDS, credential_of, make_pair, run_handshake
from tests.support.repetitions import examples, long
from toolkit.errors import NettoolError, ProtocolError, RefusedError
from toolkit.parameters import encode_parameters
from toolkit.security.admission import KeyAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.code_words import Code
from toolkit.security.handshake import Initiator, Reply, Responder
from toolkit.security.messages import SecurityField
from toolkit.security.opened_handshake import OpenedHandshake


class PatientCodeAdmission(CodeAdmission):
    """Never ends its code and never limits tries, so that one responder can be tried often."""

    def may_try(self, host: bytes, now_ns: int) -> bool:  # noqa: ARG002
        return True

    def record_wrong(self, nameplate: bytes, host: bytes) -> None:
        pass


def patient_admission() -> CodeAdmission:
    return PatientCodeAdmission(lambda *_: None, lambda _: None, make_code=lambda _: Code(7, ("ocean", "brick", "x")))


def flipped(message: bytes, bits: Iterable[int] | None = None) -> Iterator[bytes]:
    """Yield `message` with each of its bits (or of `bits`) flipped."""
    for bit in range(8 * len(message)) if bits is None else bits:
        yield message[: bit // 8] + bytes([message[bit // 8] ^ 1 << bit % 8]) + message[bit // 8 + 1 :]


def one_bit_of_each_byte(message: bytes) -> Iterator[bytes]:
    return flipped(message, [8 * position + position % 8 for position in range(len(message))])


class TestFlippedBits:
    """Each flipped bit ends the handshake at one side or the other, and the true message is still taken after it."""

    @pytest.mark.parametrize("method", ["none", "key"])
    def test_every_bit_of_m1(self, method: str) -> None:
        initiator, responder = make_pair(method)
        for message in flipped(initiator.first_message()):
            try:
                answer = responder.open_untrusted(message, PROLOGUE, HOST, 0)
            except ProtocolError:
                continue
            assert isinstance(answer, Reply)
            assert answer.refusal is not None
        assert run_handshake(initiator, responder).is_finished

    @pytest.mark.parametrize(
        ("method", "flips"), [("none", one_bit_of_each_byte), long("key", flipped), long("code", one_bit_of_each_byte)]
    )
    def test_bits_of_m2_and_m3(self, method: str, flips: Callable[[bytes], Iterator[bytes]]) -> None:
        initiator, responder = make_pair(method)
        answer = responder.open_untrusted(initiator.first_message(), PROLOGUE, HOST, 0)
        if isinstance(answer, Reply):
            m1 = initiator.receive_retry_untrusted(answer.message)
            answer = responder.open_untrusted(m1, PROLOGUE, HOST, 0)
        assert isinstance(answer, OpenedHandshake)
        m2 = answer.accept(b"parameters")
        for message in flips(m2):
            with pytest.raises((ProtocolError, RefusedError)):
                initiator.receive_accept_untrusted(message)
        accepted = initiator.receive_accept_untrusted(m2)
        for message in flips(accepted.finish):
            with pytest.raises(ProtocolError):
                answer.finish_untrusted(message)
        keys = answer.finish_untrusted(accepted.finish)
        assert keys is not None
        assert keys == accepted.keys

    def test_a_bit_of_each_byte_of_m1_with_a_code(self) -> None:
        admission = patient_admission()
        responder = Responder(admission, speeds=SPEEDS)
        initiator = Initiator(credential_of(admission), PROLOGUE, b"", speeds=SPEEDS)
        answer = responder.open_untrusted(initiator.first_message(), PROLOGUE, HOST, 0)
        assert isinstance(answer, Reply)
        for message in one_bit_of_each_byte(initiator.receive_retry_untrusted(answer.message)):
            try:
                reply = responder.open_untrusted(message, PROLOGUE, HOST, 0)
            except ProtocolError:
                continue
            assert isinstance(reply, Reply)
            assert reply.message != answer.message
        assert run_handshake(initiator, responder).is_finished

    @pytest.mark.parametrize("name", [long("P1"), "P2"])
    def test_a_bit_of_each_byte_of_p1_and_p2(self, name: str) -> None:
        admission = patient_admission()
        responder = Responder(admission, speeds=SPEEDS)
        credential = credential_of(admission)
        true = Initiator(credential, PROLOGUE, b"", speeds=SPEEDS)
        message = true.first_message()
        if name == "P2":
            answer = responder.open_untrusted(message, PROLOGUE, HOST, 0)
            assert isinstance(answer, Reply)
            message = answer.message
        for position in range(len(message)):
            bit = 8 * position + position % 8
            initiator = Initiator(credential, PROLOGUE, b"", speeds=SPEEDS)
            outcome = run_handshake(
                initiator, responder, lambda n, m, bit=bit: next(flipped(m, [bit])) if n == name else m
            )
            assert outcome.opened is None
            assert outcome.accepted is None
            assert outcome.refusal is not None or outcome.initiator_error or outcome.responder_error


fields_or_garbage = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(
        st.one_of(st.sampled_from([int(field) for field in SecurityField]), st.integers(0, 0xFFFF)),
        st.one_of(st.binary(max_size=1), st.binary(max_size=64), st.binary(min_size=1000, max_size=1400)),
        max_size=6,
    ).map(encode_parameters),
)


class TestHostileBytes:
    """Decoders raise ProtocolError and nothing else; a refusal is the only other thing that an initiator reports."""

    @given(fields_or_garbage)
    def test_a_responder(self, message: bytes) -> None:
        with contextlib.suppress(ProtocolError):
            answer = Responder(KeyAdmission(KEY), speeds=SPEEDS).open_untrusted(message, PROLOGUE, HOST, 0)
            assert isinstance(answer, Reply)
            assert answer.refusal is not None

    @settings(max_examples=examples(40))
    @given(fields_or_garbage)
    def test_a_responder_with_a_code(self, message: bytes) -> None:
        responder = Responder(patient_admission(), speeds=SPEEDS)
        with contextlib.suppress(ProtocolError):
            assert isinstance(responder.open_untrusted(message, PROLOGUE, HOST, 0), Reply)

    @settings(max_examples=examples(40))
    @given(st.binary(min_size=32, max_size=34), st.sampled_from([b"", b"A"]))
    def test_a_responder_with_a_code_and_any_element(self, element: bytes, side: bytes) -> None:
        fields = {SecurityField.METHOD: b"\2", SecurityField.NAMEPLATE: b"7", SecurityField.PAKE: side + element}
        fields[SecurityField.NOISE] = bytes(80)
        responder = Responder(patient_admission(), speeds=SPEEDS)
        with contextlib.suppress(ProtocolError):
            assert isinstance(responder.open_untrusted(encode_parameters(fields), PROLOGUE, HOST, 0), Reply)

    @given(fields_or_garbage)
    def test_an_initiator(self, message: bytes) -> None:
        initiator, responder = make_pair("key")
        for receive in (initiator.receive_retry_untrusted, initiator.receive_accept_untrusted):
            with pytest.raises((ProtocolError, RefusedError)):
                receive(message)
        assert run_handshake(initiator, responder).is_finished

    @given(fields_or_garbage)
    def test_a_responder_that_waits_for_m3(self, message: bytes) -> None:
        initiator, responder = make_pair("key")
        opened = responder.open_untrusted(initiator.first_message(), PROLOGUE, HOST, 0)
        assert isinstance(opened, OpenedHandshake)
        accepted = initiator.receive_accept_untrusted(opened.accept(b""))
        with pytest.raises(ProtocolError):
            opened.finish_untrusted(message)
        assert opened.finish_untrusted(accepted.finish) == accepted.keys

    @given(st.sampled_from(["M1", "M2", "M3"]), st.data())
    def test_pieces_of_true_messages(self, name: str, data: st.DataObject) -> None:
        """Cuts, repeats and joins pieces of messages of two handshakes."""
        other = run_handshake(*make_pair("key")).messages

        def alter(which: str, message: bytes) -> bytes:
            if which != name:
                return message
            pieces = [message, other[name], other["M1"]]
            cuts = data.draw(
                st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1400), st.integers(0, 1400)), max_size=4)
            )
            return b"".join(pieces[index][low:high] for index, low, high in cuts)

        outcome = run_handshake(*make_pair("key"), alter)
        if outcome.is_finished:  # the pieces were the whole true message
            assert outcome.accepted is not None
            assert outcome.accepted.keys == outcome.responder_keys
        else:
            assert isinstance(outcome.initiator_error or outcome.responder_error, NettoolError) or outcome.refusal
