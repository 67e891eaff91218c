"""Two connections with sealed packets, and a network that does to single packets whatever an attacker on the path can.

Hypothesis chooses what happens, on the virtual clock. In the end every byte and message has arrived, once and in order,
and neither connection has ended: nothing but the keys makes a packet count.
"""

from hypothesis import event, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.engine_pair import MS, End, Hazards, Pair, sealed_pair
from tests.support.repetitions import examples
from toolkit.rudp.wire import Flags

OPERATIONS = ("drop", "repeat", "delay", "flip", "cut", "forge")
ENDS = st.sampled_from([0, 1])
_HEADER_BYTES = 26


class MiddlePair(Pair):
    """A pair whose network applies the operations in `plan` to the next datagrams, one each.

    plan:     for the datagrams from each end
    recorded: what each end has sent, unharmed
    """

    def __init__(self, seed: int, data: int, back_data: int, update_after: int) -> None:
        self.plan: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
        self.recorded: tuple[list[bytes], list[bytes]] = ([], [])
        super().__init__(
            seed, Hazards(delay_ns=2 * MS), data=data, back_data=back_data, protections=sealed_pair(update_after)
        )

    def transmit(self, end: End, peer: End, datagrams: bytes, segment_bytes: int) -> None:
        direction = 0 if end is self.near else 1
        for at in range(0, len(datagrams), segment_bytes):
            datagram = datagrams[at : at + segment_bytes]
            self.recorded[direction].append(datagram)
            operation, number = self.plan[direction].pop(0) if self.plan[direction] else ("pass", 0)
            for piece, delay_ns in self.harmed(datagram, operation, number):
                self.inject(peer, piece, end.hazards.delay_ns + delay_ns)

    def harmed(self, datagram: bytes, operation: str, number: int) -> list[tuple[bytes, int]]:
        """Return what arrives in the place of a datagram, with the additional delay of each piece."""
        match operation:
            case "drop":
                return []
            case "repeat":
                return [(datagram, 0), (datagram, number * MS), (datagram, 3 * number * MS)]
            case "delay":
                return [(datagram, number * MS)]
            case "flip":
                return [(self.flipped(datagram, number), 0)]
            case "cut":
                return [(datagram[: 1 + number % len(datagram)], 0)] if len(datagram) > 1 + number else []
            case "forge":
                header = datagram[: min(_HEADER_BYTES, 10 + number % 17)]
                return [(header + self.random.bytes(len(datagram) - len(header)), 0), (datagram, 0)]
        return [(datagram, 0)]

    def flipped(self, datagram: bytes, number: int) -> bytes:
        """Return the datagram with one bit flipped, in the header or in what is sealed."""
        changed = bytearray(datagram)
        changed[number // 8 % len(changed)] ^= 1 << number % 8
        return bytes(changed)


class EngineInTheMiddle(RuleBasedStateMachine):
    """The network's operations; in the end it lets everything through."""

    @initialize(
        seed=st.integers(0, 1 << 20),
        data=st.integers(0, 60_000),
        back_data=st.sampled_from([0, 3000]),
        update_after=st.sampled_from([16, 1 << 20]),
    )
    def begin(self, seed: int, data: int, back_data: int, update_after: int) -> None:
        note(f"seed {seed}")
        self.pair = MiddlePair(seed, data, back_data, update_after)
        self.pair.near.offer()
        self.pair.far.offer()
        self.messages: tuple[list[bytes], list[bytes]] = ([], [])

    @rule(duration_ms=st.integers(1, 200))
    def wait(self, duration_ms: int) -> None:
        self.pair.run_for(duration_ms * MS)

    @rule(
        direction=ENDS,
        harms=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 12_000)), min_size=1, max_size=12),
        duration_ms=st.integers(0, 30),
    )
    def harm(self, direction: int, harms: list[tuple[str, int]], duration_ms: int) -> None:
        harms = [(name, number % 100 if name in ("repeat", "delay") else number) for name, number in harms]
        self.pair.plan[direction].extend(harms)
        self.pair.run_for(duration_ms * MS)

    @rule(direction=ENDS, to=ENDS, numbers=st.lists(st.integers(0, 1 << 20), min_size=1, max_size=8))
    def replay(self, direction: int, to: int, numbers: list[int]) -> None:
        """Play back what an end has sent, to its peer or to itself."""
        recorded = self.pair.recorded[direction]
        for number in numbers if recorded else ():
            self.pair.inject(self.pair.ends[to][0], recorded[number % len(recorded)])
            event("replayed" if to != direction else "reflected")

    @rule(direction=ENDS, number=st.integers(0, 1 << 20), bit=st.integers(0, 12_000))
    def replay_with_another_key_phase_or_bit(self, direction: int, number: int, bit: int) -> None:
        recorded = self.pair.recorded[direction]
        if recorded:
            datagram = recorded[number % len(recorded)]
            phased = datagram[:1] + bytes([datagram[1] ^ Flags.KEY_PHASE]) + datagram[2:]
            for changed in (phased, self.pair.flipped(datagram, bit)):
                self.pair.inject(self.pair.ends[1 - direction][0], changed)

    @rule(direction=ENDS, message=st.binary(max_size=3000))
    def say(self, direction: int, message: bytes) -> None:
        self.pair.ends[direction][0].connection.send_message(message)
        self.messages[direction].append(message)

    @invariant()
    def nothing_wrong_has_arrived(self) -> None:
        if not hasattr(self, "pair"):
            return
        for direction, (end, peer) in enumerate(self.pair.ends):
            stats = end.connection.stats()
            assert stats.packets_received - stats.packets_duplicate <= len(self.pair.recorded[1 - direction])
            assert end.delivered_bytes <= len(peer.source.content)
            said = self.messages[1 - direction]
            assert end.messages == said[: len(end.messages)]
        assert self.pair.are_open

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        for plan in self.pair.plan:
            plan.clear()
        self.pair.run_until_acked()
        assert (self.pair.far.messages, self.pair.near.messages) == self.messages
        assert self.pair.are_open


TestEngineInTheMiddle = EngineInTheMiddle.TestCase
TestEngineInTheMiddle.settings = settings(max_examples=examples(40), stateful_step_count=20, deadline=None)
