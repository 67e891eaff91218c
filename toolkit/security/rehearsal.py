"""A handshake in memory, so that the first real one does not pay for what is loaded and measured on first use.

The libraries of a handshake take a tenth of a second to load. A program that measures the time of a session, or that
serves other machines, rehearses before its clock starts. This also reports early that the installed cryptography
package lacks something.
"""

from functools import cache

from toolkit.security.admission import Admission, KeyAdmission, Method, OpenAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.credentials import Credential, KeyCredential, NoCredential
from toolkit.security.handshake import Initiator, Reply, Responder
from toolkit.security.opened_handshake import OpenedHandshake

_KEY = bytes(32)
_HOST = bytes(4)


@cache
def rehearse(method: Method) -> None:
    """Complete a handshake of this method between two objects of this process, and load the AEAD of its keys.

    Only the first call for a method does anything: a program may send many files in a row. Raises what a handshake
    raises where the `cryptography` package lacks something.
    """
    admission, credential = _pair(method)
    initiator, responder = Initiator(credential, b"", b""), Responder(admission)
    answer = responder.open_untrusted(initiator.first_message(), b"", _HOST, 0)
    if isinstance(answer, Reply):
        answer = responder.open_untrusted(initiator.receive_retry_untrusted(answer.message), b"", _HOST, 0)
    assert isinstance(answer, OpenedHandshake)
    accepted = initiator.receive_accept_untrusted(answer.accept(b""))
    answer.finish_untrusted(accepted.finish)
    assert accepted.keys is not None
    buffer = bytearray(16)
    accepted.keys.client.aead.encrypt_into(bytes(12), b"", b"", buffer)


def _pair(method: Method) -> tuple[Admission, Credential]:
    if method is Method.CODE:
        admission = CodeAdmission(lambda _code, _reason: None, lambda _code: None)
        assert admission.code is not None
        return admission, admission.code.credential
    if method is Method.KEY:
        return KeyAdmission(_KEY), KeyCredential(_KEY)
    return OpenAdmission(), NoCredential()
