"""The handshake of a TCP session, message by message: sessions that begin, and what something on the path may do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.channel import TransportOptions
from toolkit.errors import NettoolError, ProtocolError, RefusedError
from toolkit.parameters import decode_parameters_untrusted, encode_parameters
from toolkit.security.admission import Admission, KeyAdmission, Method, OpenAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.credentials import CodeCredential, KeyCredential
from toolkit.security.handshake import Responder
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.handshake import Session, TcpClientHandshake, TcpServerHandshake
from toolkit.transports.tcp.wire import PREFACE_BYTES, PrefaceParameter, PrefaceType

KEY = bytes(range(32))
HOST = bytes([127, 0, 0, 1])
OPTIONS = TransportOptions(streams=4)


def responder_of(admission: Admission, allows_plaintext: bool = False) -> Responder:
    return Responder(admission, allows_plaintext=allows_plaintext)


def code_admission() -> CodeAdmission:
    return CodeAdmission(lambda *_: None, lambda _: None)


def credential_of(admission: CodeAdmission) -> CodeCredential:
    assert admission.code is not None
    return admission.code.credential


class Exchange:
    """The messages of a handshake, one at a time."""

    def __init__(self, client: TcpClientHandshake, responder: Responder) -> None:
        self.client = client
        self.responder = responder
        self.server = self.new_server()

    def new_server(self) -> TcpServerHandshake:
        """Return the server's side of another connection to the same listener."""
        return TcpServerHandshake(self.responder, HOST, max_streams=16)

    def answer(self, message: bytes) -> bytes:
        """Return the server's answer to a HELLO."""
        return self.server.receive_hello_untrusted(message[PREFACE_BYTES:], 0).data

    def receive(self, answer: bytes) -> bytes:
        """Return the client's next message."""
        preface = wire.decode_preface_untrusted(answer)
        assert preface is not None
        return self.client.receive_untrusted(preface.preface_type, answer[PREFACE_BYTES:])

    def run(self) -> tuple[Session, Session]:
        """Complete the handshake; return the session as each end sees it."""
        message = self.client.first_message()
        while self.client.session is None:
            message = self.receive(self.answer(message))
        return self.client.session, self.server.receive_finish_untrusted(message[PREFACE_BYTES:])


ADMISSIONS = ["none", "key", "code"]


def exchange_of(method: str, plaintext: bool = False) -> Exchange:
    options = replace(OPTIONS, plaintext=plaintext)
    admission: Admission = OpenAdmission()
    if method == "key":
        admission = KeyAdmission(KEY)
        options = replace(options, credential=KeyCredential(KEY))
    elif method == "code":
        admission = code_admission()
        options = replace(options, credential=credential_of(admission))
    return Exchange(TcpClientHandshake(options), responder_of(admission, plaintext))


@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize("method", ADMISSIONS)
def test_both_ends_agree_on_everything(method: str, plaintext: bool) -> None:
    client, server = exchange_of(method, plaintext).run()
    assert client == server
    assert client.streams == 4
    assert client.admitted.method is Method[method.upper()]
    assert (client.keys is None) == plaintext


def test_every_connection_and_direction_has_keys_of_its_own() -> None:
    client, server = exchange_of("none").run()
    seen = set()
    for number in range(4):
        ours, theirs = client.record_keys(number, is_client=True), server.record_keys(number, is_client=False)
        assert ours is not None
        assert theirs is not None
        assert (ours.outgoing, ours.incoming) == (theirs.incoming, theirs.outgoing)
        seen |= {ours.outgoing.key, ours.incoming.key}
    assert len(seen) == 8


def test_the_key_log_names_each_direction_of_each_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    monkeypatch.setenv("NETTOOL_KEYLOG", str(path))
    session, _ = exchange_of("none").run()
    for number in range(2):
        session.record_keys(number, is_client=True)
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [line[1] for line in lines] == ["tcp"] * 4
    names = [session.token.hex() + end for end in ("000000", "000001", "000100", "000101")]
    assert [line[2] for line in lines] == names


@pytest.mark.parametrize("plaintext", [False, True])
def test_only_the_client_of_a_session_can_join_it(plaintext: bool) -> None:
    client, server = exchange_of("none", plaintext).run()
    other, _ = exchange_of("none", plaintext).run()
    assert all(server.admits_untrusted(client.join(number)) for number in (1, 2, 3))
    assert not server.admits_untrusted(client.join(0))
    assert not server.admits_untrusted(client.join(4))
    assert not server.admits_untrusted(client.join(1)._replace(number=2))
    assert not server.admits_untrusted(other.join(1)._replace(token=client.token))
    assert not server.admits_untrusted(client.join(1)._replace(mac=bytes(32)))


def test_the_token_is_not_readable_on_the_way() -> None:
    exchange = exchange_of("none")
    hello = exchange.client.first_message()
    welcome = exchange.answer(hello)
    finish = exchange.receive(welcome)
    assert exchange.server.token is not None
    assert exchange.server.token not in hello + welcome + finish


def test_a_hello_fits_what_a_server_of_version_1_reads() -> None:
    for method in ADMISSIONS:
        exchange = exchange_of(method)
        message = exchange.client.first_message()
        while exchange.client.session is None:
            assert len(message) <= PREFACE_BYTES + 1024
            message = exchange.receive(exchange.answer(message))


def flips(data: bytes) -> Iterator[bytes]:
    """Yield `data` with one bit flipped in its body, for every byte."""
    for position in range(PREFACE_BYTES, len(data)):
        yield data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]


@pytest.mark.parametrize("method", ["none", "key"])
def test_a_hello_that_was_altered_begins_no_session(method: str) -> None:
    exchange = exchange_of(method)
    for altered in flips(exchange.client.first_message()):
        server = exchange.new_server()
        try:
            answer = server.receive_hello_untrusted(altered[PREFACE_BYTES:], 0)
        except ProtocolError:
            continue
        assert answer.is_refusal
        assert server.token is None


def test_a_welcome_that_was_altered_begins_no_session() -> None:
    exchange = exchange_of("none")
    welcome = exchange.answer(exchange.client.first_message())
    security = wire.decode_security_untrusted(welcome[PREFACE_BYTES:])
    for position in range(0, len(security), 3):
        altered = bytearray(security)
        altered[position] ^= 1 << position % 8
        with pytest.raises(RefusedError, match="invalid"):
            exchange.receive(wire.encode_security(PrefaceType.WELCOME, bytes(altered)))
        assert exchange.client.session is None
    exchange.receive(welcome)
    assert exchange.client.session is not None


def test_a_finish_that_was_altered_begins_no_session() -> None:
    exchange = exchange_of("none")
    finish = exchange.receive(exchange.answer(exchange.client.first_message()))
    for altered in list(flips(finish))[::5]:
        with pytest.raises(ProtocolError):
            exchange.server.receive_finish_untrusted(altered[PREFACE_BYTES:])
    exchange.server.receive_finish_untrusted(finish[PREFACE_BYTES:])


def test_a_replayed_handshake_begins_no_session() -> None:
    """The server's part is new each time: the old FINISH does not open."""
    exchange = exchange_of("key")
    hello = exchange.client.first_message()
    finish = exchange.receive(exchange.answer(hello))
    again = exchange.new_server()
    again.receive_hello_untrusted(hello[PREFACE_BYTES:], 0)
    with pytest.raises(ProtocolError):
        again.receive_finish_untrusted(finish[PREFACE_BYTES:])


def test_a_finish_counts_once() -> None:
    exchange = exchange_of("none")
    finish = exchange.receive(exchange.answer(exchange.client.first_message()))
    exchange.server.receive_finish_untrusted(finish[PREFACE_BYTES:])
    with pytest.raises(ProtocolError):
        exchange.server.receive_finish_untrusted(finish[PREFACE_BYTES:])


def test_a_server_that_could_do_better_reveals_a_downgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's versions are sealed: whoever cut the client's list in the clear cannot cut them too."""
    exchange = exchange_of("none")
    welcome = exchange.answer(exchange.client.first_message())
    monkeypatch.setattr(wire, "VERSIONS", (2, 1))
    exchange.receive(welcome)  # version 1 would be no better
    exchange = exchange_of("none")
    with monkeypatch.context() as patch:
        patch.setattr(wire, "VERSIONS", (2, 3))
        hello = exchange.client.first_message()
        patch.setattr(wire, "best_version", lambda *_: 2)
        welcome = exchange.answer(hello)
    monkeypatch.setattr(wire, "VERSIONS", (3, 2))
    with pytest.raises(RefusedError, match="older version than they could"):
        exchange.receive(welcome)


@pytest.mark.parametrize(
    ("options", "admission", "line"),
    [
        (OPTIONS, KeyAdmission(KEY), "asks for a key"),
        (OPTIONS, code_admission(), "asks for a code"),
        (replace(OPTIONS, credential=KeyCredential(bytes(32))), KeyAdmission(KEY), "has a different key"),
        (replace(OPTIONS, credential=KeyCredential(KEY)), OpenAdmission(), "asks for no code and no key"),
        (replace(OPTIONS, plaintext=True), OpenAdmission(), "does not allow plaintext"),
        (replace(OPTIONS, streams=17), OpenAdmission(), "fewer with `streams`"),
    ],
)
def test_a_refusal_says_what_to_do(options: TransportOptions, admission: Admission, line: str) -> None:
    with pytest.raises(RefusedError, match=line) as caught:
        Exchange(TcpClientHandshake(options), responder_of(admission)).run()
    assert "\n" not in str(caught.value)


def test_a_wrong_and_a_used_code_are_refused() -> None:
    admission = code_admission()
    responder = Responder(admission)
    right = credential_of(admission)

    def attempt(credential: CodeCredential) -> None:
        client = TcpClientHandshake(replace(OPTIONS, credential=credential))
        Exchange(client, responder).run()

    with pytest.raises(RefusedError, match="the code is wrong"):
        attempt(CodeCredential(right.nameplate, b"wrong"))
    attempt(right)
    with pytest.raises(RefusedError, match="code"):
        attempt(right)


def test_a_second_retry_is_not_followed() -> None:
    exchange = exchange_of("code")
    retry = exchange.answer(exchange.client.first_message())
    exchange.receive(retry)
    with pytest.raises(RefusedError):
        exchange.receive(retry)


@pytest.mark.parametrize("method", ADMISSIONS)
def test_messages_out_of_turn_are_errors(method: str) -> None:
    exchange = exchange_of(method)
    hello = exchange.client.first_message()
    with pytest.raises(ProtocolError, match="before a HELLO"):
        exchange.server.receive_finish_untrusted(hello[PREFACE_BYTES:])
    exchange.run()
    with pytest.raises(ProtocolError, match="one HELLO too many"):
        exchange.answer(hello)


def test_grease_is_sent_and_differs_from_client_to_client() -> None:
    hellos = [decode_parameters_untrusted(exchange_of("none").client.first_message()[PREFACE_BYTES:]) for _ in range(8)]
    unknown = [{i: v for i, v in hello.items() if i not in set(PrefaceParameter)} for hello in hellos]
    assert all(len(parameters) == 1 for parameters in unknown)
    assert len({encode_parameters(parameters) for parameters in unknown}) > 1


def test_only_nettool_errors_reach_the_caller() -> None:
    for body in (b"", b"\0", bytes(30), encode_parameters({PrefaceParameter.SECURITY: b"\xff" * 50})):
        for preface_type in range(12):
            with pytest.raises(NettoolError):
                exchange_of("none").client.receive_untrusted(preface_type, body)
