"""Fuzzers of the key exchange and of the handshakes that carry it: inputs are messages to either side, in any order.

The entropy is fixed, so the seeds contain handshakes that succeed, and an input can be repeated.
"""

from zlib import crc32

from tests.fuzz.formats import GREASE
from tests.fuzz.harness import Harness, decoded, fixed_random, join_steps, steps
from tests.support.handshakes import KEY, SPEEDS, code_admission
from toolkit.parameters import encode_parameters
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator
from toolkit.rudp.handshake import ClientHandshake
from toolkit.rudp.handshake_server import MAX_PENDING_PER_HOST, AcceptLimits, ServerHandshakes
from toolkit.security.admission import Admission, KeyAdmission, OpenAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.credentials import Credential, KeyCredential, NoCredential
from toolkit.security.handshake import Initiator, Reply, Responder
from toolkit.security.opened_handshake import OpenedHandshake
from toolkit.simulator.security import PlainClientSecurity, PlainServerSecurity
from toolkit.transports.tcp import wire as tcp
from toolkit.transports.tcp.handshake import TcpServerHandshake

PROLOGUE = b"prologue"
HOST = bytes([192, 0, 2, 1])
_METHODS = ("none", "key", "code")
_PAKE_SHARE = 8
"""One of so many inputs may try a code: SPAKE2 takes milliseconds."""
_TO_RESPONDER, _FINISH, _RETRY, _ACCEPT = range(4)


class RareCodeAdmission(CodeAdmission):
    """Never ends its code, and lets few inputs try it: those of host 0."""

    def may_try(self, host: bytes, now_ns: int) -> bool:
        del now_ns
        return host == bytes(4)

    def record_wrong(self, nameplate: bytes, host: bytes) -> None:
        """Do not count it."""


def _admission(method: str) -> Admission:
    if method == "code":
        code = code_admission().code
        return RareCodeAdmission(
            lambda *_: None, lambda _: None, uses=1 << 30, is_renewed=False, make_code=lambda _: code
        )
    return KeyAdmission(KEY) if method == "key" else OpenAdmission()


def _credential(admission: Admission) -> Credential:
    if isinstance(admission, CodeAdmission):
        assert admission.code is not None
        return admission.code.credential
    return KeyCredential(KEY) if isinstance(admission, KeyAdmission) else NoCredential()


def _initiator(admission: Admission, wants_plaintext: bool = False) -> Initiator:
    return Initiator(
        _credential(admission),
        PROLOGUE,
        b"client parameters",
        wants_plaintext=wants_plaintext,
        random_bytes=fixed_random(b"initiator"),
        speeds=SPEEDS,
    )


def _responder(admission: Admission) -> Responder:
    return Responder(admission, allows_plaintext=True, random_bytes=fixed_random(b"responder"), speeds=SPEEDS)


def check_security(data: bytes) -> bool:
    """The first byte is the method; each step is a message to one of the two sides."""
    if not data:
        return False
    method = _METHODS[data[0] % len(_METHODS)]
    is_barred = method == "code" and crc32(data) % _PAKE_SHARE
    admission = _admission(method)
    responder = _responder(admission)
    initiator: Initiator | None = None
    opened: OpenedHandshake | None = None
    has_taken = False
    for kind, body in steps(data[1:]):
        if kind % 4 == _TO_RESPONDER:
            answer = decoded(responder.open_untrusted, body, PROLOGUE, HOST if is_barred else bytes(4), 0)
            if isinstance(answer, OpenedHandshake):
                opened = answer
                opened.accept(b"server parameters")
            has_taken |= isinstance(answer, OpenedHandshake) or (isinstance(answer, Reply) and not answer.is_refusal)
        elif kind % 4 == _FINISH:
            if opened is not None:
                has_taken |= decoded(opened.finish_untrusted, body) is not None
        elif not is_barred:
            initiator = initiator or _initiator(admission)
            receive = initiator.receive_retry_untrusted if kind % 4 == _RETRY else initiator.receive_accept_untrusted
            has_taken |= decoded(receive, body) is not None
    return has_taken


def seeds_of_security() -> list[bytes]:
    seeds = []
    for number, method in enumerate(_METHODS):
        for wants_plaintext in (False, True):
            admission = _admission(method)
            initiator, responder = _initiator(admission, wants_plaintext), _responder(admission)
            parts = []
            message = initiator.first_message()
            answer = responder.open_untrusted(message, PROLOGUE, bytes(4), 0)
            parts.append((_TO_RESPONDER, message))
            if isinstance(answer, Reply):
                parts.append((_RETRY, answer.message))
                message = initiator.receive_retry_untrusted(answer.message)
                answer = responder.open_untrusted(message, PROLOGUE, bytes(4), 0)
                parts.append((_TO_RESPONDER, message))
            assert isinstance(answer, OpenedHandshake)
            accept = answer.accept(b"server parameters")
            parts += [(_ACCEPT, accept), (_FINISH, initiator.receive_accept_untrusted(accept).finish)]
            seeds += [_seed(number, parts), _seed(number, parts[1:])]
            seeds.append(_seed(number, [(_RETRY, encode_parameters({5: bytes([number + 1])}))]))
    return seeds


def _seed(method: int, parts: list[tuple[int, bytes]]) -> bytes:
    """Return an input that may try the code: bytes that make no step at its end choose its checksum."""
    data = bytes([method]) + join_steps(parts)
    return next(seed for i in range(1 << 16) if crc32(seed := data + i.to_bytes(2, "big")) % _PAKE_SHARE == 0)


# The UDP handshake, with a key exchange that exchanges nothing: what is behind it is reached at once.

_PEERS = (("192.0.2.1", 4711), ("192.0.2.1", 4712), ("198.51.100.7", 4711))
_CLIENT_ID = 0xAAAA
_LIMITS = AcceptLimits(1472, 1 << 20)
_TO_SERVER, _TO_SERVER_NEAR, _TO_SERVER_FAR, _TO_CLIENT, _LATER, _HONEST = range(6)


def check_udp_handshake(data: bytes) -> bool:
    """Each step is a datagram to the server from one of three addresses, or to the client; or the true next one."""
    ids = iter(range(0xBBBB, 1 << 20))
    server: ServerHandshakes[None] = ServerHandshakes(
        PlainServerSecurity(), AddressValidator(bytes(32)), _LIMITS, lambda: next(ids)
    )
    client: ClientHandshake[None] = ClientHandshake(_CLIENT_ID, 1472, PlainClientSecurity, 0, b"", GREASE)
    now_ns = 0
    waiting: list[bytes] = []
    has_taken = False
    for kind, body in steps(data):
        kind %= 6
        if kind == _LATER:
            now_ns += int.from_bytes(body[:4], "big") * 1000
            server.expire(now_ns)
        elif kind == _TO_CLIENT or (kind == _HONEST and waiting):
            datagram = waiting.pop(0) if kind == _HONEST else body
            decoded(client.handle_datagram_untrusted, datagram, now_ns)
        else:
            peer = _PEERS[0 if kind == _HONEST else kind]
            datagram = body
            if kind == _HONEST:
                now_ns += 1_000_000_000
                sent = client.poll_transmit(now_ns)
                datagram = client.accepted.finish if client.accepted else sent or b""
            answers = _give(server, datagram, peer, now_ns)
            waiting += answers if peer == _PEERS[0] else []
            has_taken |= bool(answers)
        assert server.pending <= len(_PEERS) * MAX_PENDING_PER_HOST
    return has_taken or client.accepted is not None


def _give(server: ServerHandshakes[None], datagram: bytes, peer: tuple[str, int], now_ns: int) -> list[bytes]:
    if len(datagram) < wire.PREFIX.size or not datagram:
        return []
    if datagram[0] == wire.PacketType.FINISH:
        established = decoded(server.handle_finish_untrusted, datagram, peer, now_ns)
        if established is not None:
            server.complete(established)
        return []
    pending = server.pending
    answers = decoded(server.handle_initial_untrusted, datagram, peer, HOST, now_ns) or []
    assert sum(map(len, answers)) <= 3 * len(datagram), "amplified more than threefold"
    assert server.pending == pending or packets.has_token_untrusted(datagram), "state for an unknown address"
    return answers


def seeds_of_udp_handshake() -> list[bytes]:
    client: ClientHandshake[None] = ClientHandshake(_CLIENT_ID, 1472, PlainClientSecurity, 0, b"", GREASE)
    initial = client.poll_transmit(0)
    assert initial is not None
    honest = [(_HONEST, b"")]
    retry = packets.encode_retry(_CLIENT_ID, packets.Parameter.TOKEN, bytes(40))
    return [
        join_steps(honest * 8),
        join_steps([(_TO_SERVER, initial), (_TO_SERVER_NEAR, initial), *honest * 5, (_LATER, bytes([0, 80, 0, 0]))]),
        join_steps([(_TO_CLIENT, retry), *honest * 2, (_TO_CLIENT, packets.encode_version(_CLIENT_ID)), *honest * 4]),
        join_steps([*honest * 4, (_TO_CLIENT, packets.encode_accept(_CLIENT_ID, bytes(1500))[1]), *honest * 2]),
        join_steps([(_TO_CLIENT, packets.encode_refuse(_CLIENT_ID, b"no")), *honest]),
        join_steps([*honest * 4, (_TO_SERVER, packets.encode_finish(0xBBBB, bytes(1104))), *honest * 2]),
    ]


# The TCP server's handshake, with the true key exchange.


def check_tcp_handshake(data: bytes) -> bool:
    """Each step is the body of a HELLO or a FINISH."""
    server = TcpServerHandshake(_responder(OpenAdmission()), HOST, 8)
    has_taken = False
    for kind, body in steps(data):
        if kind % 2:
            session = decoded(server.receive_finish_untrusted, body)
            has_taken |= session is not None
            if session is not None:
                join = session.join(1)
                assert session.admits_untrusted(join) == (session.streams > 1)
                assert not session.admits_untrusted(join._replace(mac=bytes(tcp.MAC_BYTES)))
        else:
            answer = decoded(server.receive_hello_untrusted, body, 0)
            has_taken |= answer is not None and not answer.is_refusal
    return has_taken


def seeds_of_tcp_handshake() -> list[bytes]:
    seeds = []
    for streams, wants_plaintext in ((1, False), (4, True), (9, False)):
        clear = tcp.hello_parameters(streams, GREASE)
        initiator = Initiator(
            NoCredential(),
            tcp.prologue(encode_parameters(clear)),
            tcp.encode_client_parameters(GREASE),
            wants_plaintext=wants_plaintext,
            random_bytes=fixed_random(b"client"),
            speeds=SPEEDS,
        )
        hello = tcp.encode_hello(clear, initiator.first_message())[tcp.PREFACE_BYTES :]
        answer = TcpServerHandshake(_responder(OpenAdmission()), HOST, 9).receive_hello_untrusted(hello, 0)
        seeds += [join_steps([(0, hello), (0, hello)]), join_steps([(1, answer.data), (0, hello)])]
    return seeds


HARNESSES = [
    Harness("security", check_security, seeds_of_security),
    Harness("udp-handshake", check_udp_handshake, seeds_of_udp_handshake),
    Harness("tcp-handshake", check_tcp_handshake, seeds_of_tcp_handshake),
]
