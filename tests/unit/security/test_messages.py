"""The fields of handshake messages, and what a refusal tells the user."""

import pytest

from toolkit.errors import CredentialRequiredError, ExitCode, ProtocolError
from toolkit.parameters import decode_parameters_untrusted, is_grease
from toolkit.security.messages import (
    Refusal,
    SealedField,
    SecurityField,
    encode_sealed,
    field_untrusted,
    flag_untrusted,
    refusal_error,
)


@pytest.mark.parametrize("code", [*Refusal, 0, 255])
@pytest.mark.parametrize("has_credential", [False, True])
def test_a_refusal_is_one_line_with_the_exit_code_of_refusals(code: int, has_credential: bool) -> None:
    error = refusal_error(code, has_credential)
    assert str(error).isprintable()
    assert error.exit_code == ExitCode.UNREACHABLE
    is_prompt = isinstance(error, CredentialRequiredError)
    assert is_prompt == (code in (Refusal.CODE_NEEDED, Refusal.KEY_NEEDED) and not has_credential)


def test_every_refusal_has_a_text_of_its_own() -> None:
    texts = {str(refusal_error(code, True)) for code in [*Refusal, 0]}
    assert len(texts) == len(Refusal) + 1


def test_no_field_has_an_id_that_is_reserved_for_grease() -> None:
    assert not any(is_grease(identifier) for identifier in [*SecurityField, *SealedField])


def test_a_sealed_payload_has_a_parameter_that_nobody_knows() -> None:
    payload = encode_sealed({SealedField.TRANSPORT: b"t"}, lambda length: bytes([9]) * length)
    fields = decode_parameters_untrusted(payload)
    assert fields.pop(SealedField.TRANSPORT) == b"t"
    assert [is_grease(identifier) for identifier in fields] == [True]


def test_flags_are_zero_one_or_absent() -> None:
    assert flag_untrusted({SealedField.PLAINTEXT: b"\1"}, SealedField.PLAINTEXT)
    assert not flag_untrusted({SealedField.PLAINTEXT: b"\0"}, SealedField.PLAINTEXT)
    assert not flag_untrusted({}, SealedField.PLAINTEXT)
    for value in (b"", b"\2", b"\0\1"):
        with pytest.raises(ProtocolError, match="PLAINTEXT is"):
            flag_untrusted({SealedField.PLAINTEXT: value}, SealedField.PLAINTEXT)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ProtocolError, match="has no AEAD"):
        field_untrusted({}, SealedField.AEAD)
