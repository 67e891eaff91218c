"""What a hostile peer can make a host remember: before the handshake next to nothing, and afterwards a bounded amount.

The faults that these tests would catch: CVE-2025-54939 (LSQUIC), CVE-2023-49295 and CVE-2024-22189 (quic-go).
"""

import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.engine_pair import sealed_pair
from tests.support.udp_handshakes import HOST, LIMITS, client, initial_of
from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator
from toolkit.rudp.batch import Batch
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.handshake_server import ServerHandshakes
from toolkit.rudp.streams import MessageBuffer
from toolkit.rudp.wire import PacketType
from toolkit.simulator.security import PlainServerSecurity

LOCAL, PEER = 0x1111, 0x2222
START = 7_000_000_000
SEED = 20_261_129
COUNT = 5000


@contextmanager
def growth_limited_to(limit_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        kept_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept_bytes < limit_bytes, f"{kept_bytes} bytes are kept (seed {SEED})"


def test_what_precedes_a_handshake_is_not_remembered() -> None:
    """Strangers send first packets, true and malformed ones, and last packets for handshakes that do not exist."""
    generator = random.Random(SEED)
    ids = iter(range(1, 1 << 30))
    server = ServerHandshakes(PlainServerSecurity(), AddressValidator(bytes(32)), LIMITS, lambda: next(ids))
    initial = initial_of(client(), 0)
    with growth_limited_to(100_000):
        for number in range(COUNT):
            datagram = bytearray(initial)
            datagram[2:10] = generator.randbytes(8)
            for _ in range(number % 4):
                datagram[generator.randrange(300)] ^= 1 << generator.randrange(8)
            with suppress(ProtocolError):
                server.handle_initial_untrusted(bytes(datagram), ("198.51.100.1", number), HOST, number)
            with suppress(ProtocolError):
                server.handle_finish_untrusted(bytes([PacketType.FINISH]) + bytes(datagram[1:]), ("198.51.100.1", 1), 0)
    assert server.pending == 0


OWED: dict[str, Callable[[int], bytes]] = {
    "a response": lambda n: wire.PATH.pack(PacketType.PATH_CHALLENGE, 0, LOCAL, n, n).ljust(1184, b"\0"),
    "an acknowledgement of each packet": lambda n: wire.PING.pack(PacketType.PING, 1, LOCAL, n, 0, 1, 0),
    "an acknowledgement with many ranges": lambda n: wire.COMMON.pack(PacketType.PROBE, 1, LOCAL, 2 * n),
    "a window": lambda n: wire.DATA.pack(PacketType.MESSAGE, 1, LOCAL, n, 5 * n) + b"\0\0\0\1x",
    "nothing": lambda n: wire.encode_ack(LOCAL, n, wire.AckPacket([(0, 1)], 0, n, n, n, n, n)),
}


@pytest.mark.parametrize("owed", sorted(OWED))
def test_answers_that_a_peer_asks_for_and_never_lets_out_are_few(owed: str) -> None:
    """The congestion window is closed, or the host has no time to send: what is owed must not pile up."""
    peer, protection = sealed_pair()
    connection = Connection(Config(), MessageBuffer(), LOCAL, PEER, 1472, START, protection, peer_address=("h", 1))
    packets = [peer.seal(OWED[owed](number) + bytes(wire.TAG_BYTES)) for number in range(COUNT)]
    with growth_limited_to(2 << 20):
        for packet in packets:
            connection.handle_batch(Batch(memoryview(packet), len(packet)), START)
            connection.poll_message(START)
        answers = 0
        while connection.poll_transmit(START) is not None:
            answers += 1
    assert connection.stats().packets_invalid <= COUNT
    assert answers <= 20
