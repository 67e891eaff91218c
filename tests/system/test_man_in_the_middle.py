"""A man in the middle of real transfers: UDP completes whatever happens to single packets, TCP ends with one line.

Nothing wrong is ever written, and a recorded session that is played back, changed or not, opens nothing. The attacker
of these tests neither cuts the path nor forges one refusal after another; docs/security.md says what that can do.
"""

import random
import signal
from pathlib import Path

import pytest

from tests.support.cli_process import Ended, complaint, everything_below, nettool, receiver
from tests.support.man_in_the_middle import (
    TO_RECEIVER,
    TO_SENDER,
    Hazard,
    TcpMiddle,
    UdpMiddle,
    flipped,
    play_tcp,
    play_udp,
)
from toolkit.rudp.wire import PacketType
from toolkit.transports.tcp.wire import PREFACE_BYTES, decode_preface_untrusted

SEED = 20_261_129
HANDSHAKE = {PacketType.INITIAL, PacketType.RETRY, PacketType.ACCEPT, PacketType.FINISH}
SAMPLED_BITS = 8
"""Bits to flip in each message of a recorded session."""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "shared.key"
    assert nettool("keygen", path).code == 0
    return path


def check_quiet(ended: Ended) -> None:
    """The receiver has printed nothing that looks like a fault."""
    for line in ended.stderr.splitlines():
        assert line.isprintable(), ended
        assert not any(word in line for word in ("Traceback", "unexpected", "Error")), ended


@pytest.mark.parametrize("hazard", list(Hazard))
def test_a_udp_transfer_survives_what_happens_to_single_packets(
    hazard: Hazard, key: Path, file: Path, incoming: Path
) -> None:
    with (
        receiver(incoming, "--once", "--transport", "udp", "--key", str(key)) as receiving,
        UdpMiddle(receiving.port, hazard, SEED) as middle,
    ):
        sent = nettool("udp-send", "--key", key, file, middle.target)
        ended = receiving.end()
    assert (sent.code, sent.stderr, ended.code) == (0, "", 0), f"{hazard}, seed {SEED}: {sent}, {ended}"
    assert (incoming / file.name).read_bytes() == file.read_bytes()
    assert everything_below(incoming) == [file.name]
    assert middle.harmed >= HANDSHAKE | {PacketType.DATA, PacketType.MESSAGE, PacketType.ACK}
    check_quiet(ended)


PLACES = {
    "in the first message": (TO_RECEIVER, 60),
    "in the answer": (TO_SENDER, 300),
    "in the last message": (TO_RECEIVER, 900),
    "in what follows": (TO_RECEIVER, 20_000),
    "in what comes back": (TO_SENDER, 1420),
}


@pytest.mark.parametrize("hazard", list(Hazard))
def test_a_tcp_transfer_that_is_tampered_with_ends_with_one_line(
    hazard: Hazard, key: Path, file: Path, incoming: Path
) -> None:
    silence = ("--idle-timeout", "1s")  # of a peer that waits for the rest of a message
    with receiver(incoming, "--transport", "tcp", "--key", str(key), *silence) as receiving:
        # A first message or an answer that lacks bytes ends with the connect timeout, which is long.
        places = list(PLACES.items())[2 if hazard is Hazard.DROP else 0 :]
        for place, (direction, at) in places:
            with TcpMiddle(receiving.port, hazard, direction, at, SEED) as middle:
                sent = nettool("tcp-send", "--retry", "0s", "--key", key, *silence, file, middle.target)
            assert len(middle.recorded[direction]) > at, f"{place}: nothing was harmed"
            assert sent.code in (3, 4), f"{hazard} {place}, seed {SEED}: {sent}"
            complaint(sent)
        assert nettool("tcp-send", "--key", key, key, receiving.target).code == 0
        ended = receiving.end(signal.SIGINT)
    # What is harmed on its way back may be the word that the file has arrived.
    assert set(everything_below(incoming)) - {file.name} == {key.name}
    assert not (incoming / file.name).exists() or (incoming / file.name).read_bytes() == file.read_bytes()
    check_quiet(ended)


def record_udp(key: Path, file: Path, folder: Path) -> list[bytes]:
    """Return what a sender sends in a whole session."""
    with (
        receiver(folder, "--once", "--transport", "udp", "--key", str(key)) as receiving,
        UdpMiddle(receiving.port) as middle,
    ):
        assert nettool("udp-send", "--key", key, file, middle.target).code == 0
        receiving.end()
    return middle.recorded[TO_RECEIVER]


def test_a_recorded_udp_session_opens_nothing(key: Path, file: Path, incoming: Path, tmp_path: Path) -> None:
    generator = random.Random(SEED)
    with receiver(incoming, "--transport", "udp", "--key", str(key)) as receiving:
        with UdpMiddle(receiving.port) as middle:
            assert nettool("udp-send", "--key", key, file, middle.target).code == 0
        recorded = middle.recorded[TO_RECEIVER]
        (incoming / file.name).unlink()
        others = record_udp(key, file, tmp_path / "other")
        for session in (recorded, others):
            answers = play_udp(receiving.port, session)
            assert {answer[0] for answer in answers} <= {PacketType.RETRY, PacketType.CLOSE}
            for number, datagram in enumerate(session[:12]):
                for _ in range(SAMPLED_BITS):
                    changed = flipped(datagram, generator.randrange(8 * len(datagram)))
                    answers = play_udp(receiving.port, [*session[:number], changed, *session[number + 1 : 12]])
                    types = {answer[0] for answer in answers}
                    assert types <= {PacketType.RETRY, PacketType.VERSION, PacketType.CLOSE}, f"seed {SEED}"
        assert nettool("udp-send", "--key", key, key, receiving.target).code == 0
        ended = receiving.end(signal.SIGINT)
    assert everything_below(incoming) == [key.name]
    assert ended.stderr.count("from 127.0.0.1") == 2, f"{ended}: only the two true sessions were let in"
    check_quiet(ended)


def messages_of(stream: bytes) -> list[bytes]:
    """Split what a TCP sender has sent into its prefaces, and the records behind them in pieces of 1 KB."""
    messages = []
    while stream.startswith(b"\x8e"):
        preface = decode_preface_untrusted(stream)
        assert preface is not None
        end = PREFACE_BYTES + preface.body_bytes
        messages.append(stream[:end])
        stream = stream[end:]
    return messages + [stream[at : at + 1000] for at in range(0, len(stream), 1000)]


def test_a_recorded_tcp_session_opens_nothing(key: Path, file: Path, incoming: Path) -> None:
    generator = random.Random(SEED)
    with receiver(incoming, "--transport", "tcp", "--key", str(key)) as receiving:
        with TcpMiddle(receiving.port) as middle:
            assert nettool("tcp-send", "--key", key, file, middle.target).code == 0
        (incoming / file.name).unlink()
        messages = messages_of(bytes(middle.recorded[TO_RECEIVER]))
        play_tcp(receiving.port, b"".join(messages))
        for number, message in enumerate(messages[:5]):
            for _ in range(SAMPLED_BITS):
                changed = flipped(message, generator.randrange(8 * len(message)))
                play_tcp(receiving.port, b"".join([*messages[:number], changed, *messages[number + 1 :]]))
        assert nettool("tcp-send", "--key", key, key, receiving.target).code == 0
        ended = receiving.end(signal.SIGINT)
    assert everything_below(incoming) == [key.name]
    check_quiet(ended)


def test_whoever_reads_the_path_learns_neither_code_nor_name_nor_content(file: Path, incoming: Path) -> None:
    """CVE-2023-43617 and CVE-2023-43618 of croc: parts of the secret, and local addresses, went to others in clear."""
    secret = file.rename(file.with_name("a-name-that-nobody-may-read"))
    content = secret.read_bytes()
    with receiver(incoming, "--code-uses", "2") as receiving:
        code = receiving.wait_for(r"\b\d+-([a-z]+)-([a-z]+)-([a-z]+)\b")
        with UdpMiddle(receiving.port) as udp:
            assert nettool("udp-send", "--code", code[0], secret, udp.target).code == 0
        (incoming / secret.name).unlink()
        with TcpMiddle(receiving.port) as tcp:
            assert nettool("tcp-send", "--code", code[0], secret, tcp.target).code == 0
    seen = b"".join([*udp.recorded[0], *udp.recorded[1], bytes(tcp.recorded[0]), bytes(tcp.recorded[1])])
    assert len(seen) > 2 * len(content)
    first, second, third = code.groups()  # one alone may be three letters, which also occur by chance
    private = [f"{first}-{second}", f"{second}-{third}", secret.name, "127.0.0.1", str(incoming)]
    for text in private:
        assert text.encode() not in seen, text
    assert not any(content[at : at + 16] in seen for at in range(0, len(content) - 16, 1000))
