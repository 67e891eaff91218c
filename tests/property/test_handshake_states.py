"""Several handshakes at once on a network that drops, repeats, reorders, alters and misdelivers their messages.

Hypothesis chooses what happens; only the encapsulated secrets, which `cryptography` draws, differ between runs. A
receiver finishes a handshake only with keys that one sender has, no two finish with the same keys, and a sender whom
nobody disturbs gets in afterwards.
"""

import contextlib
import random
from dataclasses import dataclass, replace

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tests.support.handshakes import HOST, KEY, PROLOGUE, SPEEDS, run_handshake
from tests.support.repetitions import examples
from toolkit.errors import ProtocolError, RefusedError
from toolkit.security.admission import KeyAdmission
from toolkit.security.credentials import KeyCredential
from toolkit.security.handshake import Initiator, Reply, Responder
from toolkit.security.keys import SessionKeys
from toolkit.security.opened_handshake import OpenedHandshake


@dataclass(frozen=True)
class Sent:
    """A message on the network, and what answers it if nobody interferes."""

    data: bytes
    sender: int
    """The sender that it is from or for."""
    handshake: int | None = None
    """The handshake at the receiver that it is from or for; None for M1."""
    is_for_sender: bool = False


class HandshakesOnABadNetwork(RuleBasedStateMachine):
    """One receiver with a key, senders with and without it, and everything that was ever on the network."""

    messages = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.random_bytes = random.Random(7).randbytes
        self.receiver = Responder(KeyAdmission(KEY), speeds=SPEEDS, random_bytes=self.random_bytes)
        self.senders: list[Initiator] = []
        self.strangers: set[int] = set()
        self.handshakes: list[OpenedHandshake] = []
        self.keys_of_senders: list[SessionKeys] = []
        self.keys_of_receiver: list[SessionKeys] = []

    @rule(target=messages, knows_key=st.booleans())
    def start(self, knows_key: bool) -> Sent:
        credential = KeyCredential(KEY if knows_key else bytes(32))
        sender = Initiator(credential, PROLOGUE, b"client", speeds=SPEEDS, random_bytes=self.random_bytes)
        if not knows_key:
            self.strangers.add(len(self.senders))
        self.senders.append(sender)
        return Sent(sender.first_message(), len(self.senders) - 1)

    @rule(target=messages, message=messages, steps=st.integers(1, 3))
    def deliver(self, message: Sent, steps: int) -> Sent:
        """Deliver a message, for the first time or again, and some of what follows it; return what is sent next."""
        for _ in range(steps):
            message = self.next_after(message)
        return message

    def next_after(self, message: Sent) -> Sent:
        if message.is_for_sender:
            return self.give_to_sender(message, message.sender)
        if message.handshake is None:
            return self.give_to_listener(message)
        self.give_to_handshake(message, message.handshake)
        return message

    @rule(target=messages, message=messages, target_index=st.integers(0, 20), to_sender=st.booleans())
    def misdeliver(self, message: Sent, target_index: int, to_sender: bool) -> Sent:
        if to_sender and self.senders:
            return self.give_to_sender(message, target_index % len(self.senders))
        if self.handshakes:
            self.give_to_handshake(message, target_index % len(self.handshakes))
        return message

    @rule(target=messages, message=messages, bit=st.integers(0, 12_000))
    def flip_a_bit(self, message: Sent, bit: int) -> Sent:
        data = bytearray(message.data or b"\0")
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        return replace(message, data=bytes(data))

    @rule(target=messages, message=messages, length=st.integers(0, 1400))
    def cut(self, message: Sent, length: int) -> Sent:
        return replace(message, data=message.data[:length])

    def give_to_listener(self, message: Sent) -> Sent:
        with contextlib.suppress(ProtocolError):
            answer = self.receiver.open_untrusted(message.data, PROLOGUE, HOST, 0)
            if isinstance(answer, Reply):
                assert answer.refusal is not None
                return Sent(answer.message, message.sender, is_for_sender=True)
            self.handshakes.append(answer)
            return Sent(answer.accept(b"server"), message.sender, len(self.handshakes) - 1, is_for_sender=True)
        return message

    def give_to_sender(self, message: Sent, index: int) -> Sent:
        with contextlib.suppress(ProtocolError, RefusedError):
            accepted = self.senders[index].receive_accept_untrusted(message.data)
            assert index not in self.strangers
            assert accepted.parameters == b"server"
            assert accepted.keys is not None
            self.keys_of_senders.append(accepted.keys)
            return Sent(accepted.finish, index, message.handshake)
        return message

    def give_to_handshake(self, message: Sent, index: int) -> None:
        with contextlib.suppress(ProtocolError):
            keys = self.handshakes[index].finish_untrusted(message.data)
            assert keys is not None
            self.keys_of_receiver.append(keys)
            event("a handshake is finished")

    @invariant()
    def each_finished_handshake_has_one_sender(self) -> None:
        for keys in self.keys_of_receiver:
            assert self.keys_of_senders.count(keys) == 1
            assert self.keys_of_receiver.count(keys) == 1

    def teardown(self) -> None:
        sender = Initiator(KeyCredential(KEY), PROLOGUE, b"client", speeds=SPEEDS)
        assert run_handshake(sender, self.receiver).is_finished


TestHandshakesOnABadNetwork = HandshakesOnABadNetwork.TestCase
TestHandshakesOnABadNetwork.settings = settings(max_examples=examples(100), stateful_step_count=40)
