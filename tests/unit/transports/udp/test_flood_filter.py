"""The filter program, in the kernel, tells INITIALs with the mark of their address from all others."""

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ctypes import addressof, create_string_buffer

import pytest

from toolkit.rudp.address_mark import AddressMarks
from toolkit.rudp.address_validation import AddressValidator, token_mark_untrusted
from toolkit.rudp.handshake_packets import PARAMETERS, InitialPacket, Parameter, make_offer
from toolkit.rudp.wire import COMMON, PacketType
from toolkit.transports.udp.flood_filter import INSTRUCTION_BYTES, FloodFilter

SO_ATTACH_FILTER = 26
CLIENT_ID = 7
NOW_NS = 1_000_000


class Filtered:
    """A socket on `bound` with a filter, and a sender at `host`; `is_mapped`: an IPv4 sender to an IPv6 socket."""

    def __init__(self, cleanup: ExitStack, host: str, bound: str) -> None:
        family = socket.AF_INET6 if ":" in bound else socket.AF_INET
        self.sock = cleanup.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        if bound == "::":
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.sock.bind((bound, 0))
        self.sock.setblocking(False)
        is_ipv6 = ":" in host
        self._sender = cleanup.enter_context(
            socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        )
        self._sender.bind((host, 0))
        self._target = ("::1" if is_ipv6 else "127.0.0.1", self.sock.getsockname()[1])
        self.host = socket.inet_pton(socket.AF_INET6 if is_ipv6 else socket.AF_INET, host)

    def attach(self, without: float, with_mark: float, marks: AddressMarks) -> None:
        """Attach the program with these shares."""
        program = FloodFilter(marks).program(without, with_mark)
        memory = create_string_buffer(program, len(program))
        count = len(program) // INSTRUCTION_BYTES
        self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", count, addressof(memory)))

    def passes(self, datagram: bytes) -> bool:
        """Whether the datagram gets through."""
        self._sender.sendto(datagram, self._target)
        with suppress(BlockingIOError):
            self.sock.recv(1 << 16)
            return True
        return False


PLACES = [("127.0.0.1", "127.0.0.1"), ("127.9.8.7", "0.0.0.0"), ("::1", "::1"), ("127.200.1.2", "::")]


@pytest.fixture(params=PLACES, ids=[f"{host} to {bound}" for host, bound in PLACES])
def filtered(request: pytest.FixtureRequest) -> Iterator[Filtered]:
    """A socket, not filtered yet, and a sender to it."""
    with ExitStack() as cleanup:
        yield Filtered(cleanup, *request.param)


def initial(token: bytes = b"", versions: int = 1) -> bytes:
    offer = make_offer() | {int(Parameter.VERSIONS): make_offer()[Parameter.VERSIONS] * versions}
    return InitialPacket(CLIENT_ID, offer, b"M1", token).encode()


def tokens(validator: AddressValidator, host: bytes) -> list[bytes]:
    return [validator.retry_token(host, 4711, CLIENT_ID, NOW_NS), validator.return_token(host, NOW_NS)]


@pytest.mark.parametrize("seed", range(4))
def test_only_the_mark_of_the_senders_own_address_counts(filtered: Filtered, seed: int) -> None:
    key = random.Random(seed).randbytes(32)
    validator = AddressValidator(key)
    own = tokens(validator, filtered.host)
    others = tokens(validator, bytes([*filtered.host[:-1], filtered.host[-1] ^ 1]))
    foreign = tokens(AddressValidator(key[::-1]), filtered.host)
    filtered.attach(0.0, 1.0, validator.marks)
    for versions in (1, 2, 16):
        assert all(filtered.passes(initial(token, versions)) for token in own)
    assert not any(filtered.passes(initial(token)) for token in (*others, *foreign, b"", b"token", bytes(200)))
    assert filtered.passes(COMMON.pack(PacketType.PING, 1, 7, 0))
    filtered.attach(1.0, 0.0, validator.marks)
    assert not any(filtered.passes(initial(token)) for token in own)
    assert all(filtered.passes(initial(token)) for token in (*others, *foreign, b"", b"token", bytes(200)))


@pytest.mark.parametrize("seed", range(3))
def test_listener_and_kernel_agree_on_every_initial(filtered: Filtered, seed: int) -> None:
    """Otherwise an attacker could flood with one kind and have the share of the other cut."""
    dice = random.Random(seed)
    validator = AddressValidator(dice.randbytes(32))
    filtered.attach(0.0, 1.0, validator.marks)
    mark = validator.marks.of(filtered.host)
    passed = 0
    for number in range(1500):
        datagram = bytearray(initial(dice.choice([*tokens(validator, filtered.host), b"x" * 29, b""])))
        for _ in range(number % 3):
            datagram[dice.randrange(1, 64)] = dice.choice((0, 1, 2, 4, 0x40, 0x41, dice.randrange(256)))
        if number % 5 == 0:
            at = PARAMETERS.size + 2
            datagram[at : at + 2] = dice.choice((0, 60, 64, 65, 68, 1152, 1179, 1200, 65535)).to_bytes(2)
        if number % 7 == 0:
            datagram = datagram[: dice.choice((1, 2, 15, 17, 19, 23, 36, 40, 60))]
        is_marked = token_mark_untrusted(bytes(datagram)) == mark
        assert filtered.passes(bytes(datagram)) == is_marked, datagram.hex()
        passed += is_marked
    assert 100 < passed < 1000


def test_a_long_datagram_has_its_mark_where_the_listener_reads_it(filtered: Filtered) -> None:
    """The listener keeps 2,048 bytes of a datagram, and the kernel filters all of it."""
    validator = AddressValidator(bytes(32))
    filtered.attach(0.0, 1.0, validator.marks)
    for distance in (64, 4000):
        token = tokens(validator, filtered.host)[0]
        body = struct.pack(">HH", Parameter.VERSIONS, distance) + bytes(distance)
        body += struct.pack(">HH", Parameter.TOKEN, len(token)) + token
        datagram = (PARAMETERS.pack(PacketType.INITIAL, 1, 7, 0, len(body)) + body).ljust(6000, b"\0")
        assert filtered.passes(datagram) == (distance == 64)
        assert (token_mark_untrusted(datagram[:2048]) is not None) == (distance == 64)
