"""Attack a receiver with mutated datagrams and TCP frames while it receives, and report what that does to it.

    python bench/hostile.py [--datagrams 1000000] [--frames 20000] [--seed 1]

A `nettool recv` with a key file receives two streams, over UDP and TCP, for as long as the attack lasts. Their packets
are recorded, mutated (bits flipped, bytes overwritten, cut, random) and sent to the receiver: to its listening socket
from ports of the attacker, and to the socket of the UDP session from the very address of the sender, which a relay
provides. TCP connections send mutated prefaces and records. Attackers wait while the receiver's queues are full, so
that the datagrams are read and not dropped; those that are dropped are counted. Everything stays on loopback.

Exit code 0: the receiver has not failed, both streams have arrived unchanged, nothing else was written, new senders get
in afterwards, and the receiver's memory has grown by less than 32 MB.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NETTOOL = (sys.executable, "-m", "toolkit.cli.main")
MAX_GROWTH_MB = 32
RECORDED = 400
"""Datagrams of the recorded session to mutate."""
QUEUE_LIMIT_BYTES = 2 << 20
FEED_BYTES, FEED_EVERY_S = 4096, 0.02
SOL_UDP, UDP_SEGMENT = 17, 103
LIMIT_S = 120.0


def start(*arguments: str | Path, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "NETTOOL_TRACEBACK": "1"}
    words = [*NETTOOL, *map(str, arguments)]
    return subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def port_of(receiver: "subprocess.Popen[bytes]") -> int:
    """Return the port that a receiver announces."""
    assert receiver.stderr is not None
    for line in receiver.stderr:
        if b"listening on" in line:
            return int(line.split(b":")[1].split()[0])
    raise SystemExit("the receiver does not start")


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the receiver has ended")


def queues(port: int) -> tuple[int, int]:
    """Return the bytes that wait in the receiver's UDP sockets, and how many datagrams were dropped there."""
    waiting = dropped = 0
    for line in Path("/proc/net/udp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            waiting = max(waiting, int(fields[4].split(":")[1], 16))
            dropped += int(fields[12])
    return waiting, dropped


class Relay:
    """Stands between the sender and the receiver of the UDP stream. outside: the receiver's peer is this socket"""

    def __init__(self, port: int) -> None:
        self.inside, self.outside = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.inside.bind(("127.0.0.1", 0))
        self.outside.bind(("127.0.0.1", 0))
        self.outside.connect(("127.0.0.1", port))
        self.recorded: list[bytes] = []
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.inside.getsockname()[1]}"

    def _run(self) -> None:
        sender: tuple[str, int] | None = None
        while not self.is_over.is_set():
            for sock in select.select([self.inside, self.outside], [], [], 0.1)[0]:
                with suppress(OSError):
                    datagram, origin = sock.recvfrom(65_536)
                    if sock is self.outside:
                        if sender is not None:
                            self.inside.sendto(datagram, sender)
                        continue
                    sender = origin
                    if len(self.recorded) < RECORDED:
                        self.recorded.append(datagram)
                    self.outside.send(datagram)

    def stop(self) -> None:
        self.is_over.set()
        self._thread.join()


class Stream:
    """A transfer of whatever `run` feeds it until `finish`."""

    def __init__(self, transport: str, target: str, key: Path) -> None:
        self.name = f"stream-{transport}"
        self.process = start(f"{transport}-send", "--key", key, "--name", self.name, "-", target, stdin=subprocess.PIPE)
        self.digest = hashlib.sha256()
        self._random = random.Random(transport)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            while not self._is_over.wait(FEED_EVERY_S):
                piece = self._random.randbytes(FEED_BYTES)
                self.digest.update(piece)
                self.process.stdin.write(piece)
                self.process.stdin.flush()

    def finish(self) -> bool:
        """End the stream; return whether the sender reports success."""
        self._is_over.set()
        self._thread.join()
        _, errors = self.process.communicate(timeout=LIMIT_S)
        if self.process.returncode:
            print(self.name, errors.decode())
        return self.process.returncode == 0


def mutated(template: bytes, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return up to 64 datagrams of equal length, in the rows of an array: each a different mutation of `template`."""
    how = generator.integers(8)
    if how == 0:
        template = generator.bytes(int(generator.integers(1, 1400)))
    elif how == 1:
        template = template[: int(generator.integers(1, len(template) + 1))]
    elif how == 2:
        template += generator.bytes(int(generator.integers(1, 60)))
    length = len(template)
    count = min(64, 65_000 // length)
    rows = np.tile(np.frombuffer(template, np.uint8), (count, 1))
    each = np.arange(count)
    reach = length if how % 2 else min(length, 64)  # headers more often than bodies
    for _ in range(int(generator.integers(1, 5))):
        rows[each, generator.integers(0, reach, count)] ^= np.uint8(1) << generator.integers(0, 8, count).astype(
            np.uint8
        )
    if how == 3:
        at = int(generator.integers(0, length))
        rows[:, at : at + 8] = generator.integers(0, 256, rows[:, at : at + 8].shape, np.uint8)
    return rows


def send_datagrams(sock: socket.socket, port: int, templates: list[bytes], count: int, seed: int) -> None:
    """Send `count` mutated datagrams, and wait while the receiver's queues are long. Runs in a process of its own."""
    generator = np.random.default_rng(seed)
    sent = batches = 0
    while sent < count:
        rows = mutated(templates[int(generator.integers(len(templates)))], generator)
        # For this call only: the relay uses the same socket.
        segment = (SOL_UDP, UDP_SEGMENT, struct.pack("=H", rows.shape[1]))
        with suppress(OSError):
            sock.sendmsg([rows], [segment])
        sent += len(rows)
        batches += 1
        while batches % 8 == 0 and queues(port)[0] > QUEUE_LIMIT_BYTES:
            time.sleep(0.002)


def send_frames(port: int, messages: list[bytes], count: int, seed: int) -> None:
    """Open connections that send a few true messages and a mutated one, until `count` of those were sent."""
    generator = random.Random(seed)
    for _ in range(count):
        number = generator.randrange(len(messages))
        changed = bytearray(messages[number])
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(min(len(changed), generator.choice((16, 64, 1 << 20))))] ^= (
                1 << generator.randrange(8)
            )
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"".join([*messages[:number], changed, *messages[number + 1 :]]))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass


def record_tcp(port: int, key: Path) -> list[bytes]:
    """Send a small stream over TCP through a relay; return the sender's messages, as they left it."""
    messages: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = start("tcp-send", "--key", key, "--name", "recorded", "-", f"127.0.0.1:{server.getsockname()[1]}")
        near, _ = server.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            other = {near: far, far: near}
            while True:
                (ready, *_), _, _ = select.select([near, far], [], [])
                data = ready.recv(1 << 16)
                if not data:
                    break
                if ready is near:
                    messages.append(data)
                other[ready].sendall(data)
        process.communicate(timeout=LIMIT_S)
    return messages


def admits(transport: str, port: int, key: Path, incoming: Path) -> bool:
    """Whether a new sender gets in."""
    process = start(f"{transport}-send", "--key", key, "--name", "witness", "-", f"127.0.0.1:{port}")
    process.communicate(timeout=LIMIT_S)
    (incoming / "witness").unlink(missing_ok=True)
    return process.returncode == 0


def attack(relay: Relay, port: int, frames: list[bytes], options: argparse.Namespace, is_over: Event) -> None:
    """Run every attacker, then set `is_over`."""
    half = options.datagrams // 2
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", port))
        context = multiprocessing.get_context("fork")
        seed, recorded = options.seed, relay.recorded
        attackers = [
            context.Process(target=send_datagrams, args=(relay.outside, port, recorded, half, seed)),
            context.Process(target=send_datagrams, args=(stranger, port, recorded, options.datagrams - half, seed + 1)),
            context.Process(target=send_frames, args=(port, frames, options.frames, seed + 2)),
        ]
        for process in attackers:
            process.start()
        for process in attackers:
            process.join()
    is_over.set()


def run(options: argparse.Namespace, folder: Path, cleanup: ExitStack) -> dict[str, object]:
    key, incoming = folder / "key", folder / "incoming"
    subprocess.run([*NETTOOL, "keygen", key], check=True, capture_output=True)
    receiver = start("recv", "--dir", incoming, "--port", "0", "--key", key, "--json", "--max-sessions", "8")
    cleanup.callback(receiver.kill)
    port = port_of(receiver)
    frames = record_tcp(port, key)
    (incoming / "recorded").unlink()
    relay = Relay(port)
    streams = [Stream("udp", relay.target, key), Stream("tcp", f"127.0.0.1:{port}", key)]
    for stream in streams:
        cleanup.callback(stream.process.kill)
    while len(relay.recorded) < RECORDED:
        time.sleep(0.1)
    before_mb = peak_mb = rss_mb(receiver.pid)
    is_over = multiprocessing.Event()
    begun_s = time.monotonic()
    attacking = threading.Thread(target=attack, args=(relay, port, frames, options, is_over))
    attacking.start()
    dropped = 0
    while not is_over.wait(0.2):
        peak_mb = max(peak_mb, rss_mb(receiver.pid))
        dropped = max(dropped, queues(port)[1])
    attacking.join()
    seconds = time.monotonic() - begun_s
    still_admits = [admits(transport, port, key, incoming) for transport in ("udp", "tcp")]
    has_succeeded = [stream.finish() for stream in streams]
    relay.stop()
    receiver.send_signal(signal.SIGINT)
    output, errors = receiver.communicate(timeout=LIMIT_S)
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in incoming.rglob("*") if path.is_file()
    }
    results = [json.loads(line) for line in output.splitlines()]
    sessions = [result for result in results if result.get("transport") == "udp"]
    return {
        "datagrams": options.datagrams,
        "dropped_by_the_kernel": dropped,
        "packets_invalid_in_the_session": max((int(r.get("packets_invalid", 0)) for r in sessions), default=0),
        "tcp_connections": options.frames,
        "seconds": round(seconds, 1),
        "rss_before_mb": round(before_mb, 1),
        "rss_growth_mb": round(peak_mb - before_mb, 1),
        "transfers_completed": all(has_succeeded)
        and digests == {stream.name: stream.digest.hexdigest() for stream in streams},
        "new_senders_get_in": all(still_admits),
        "files_written": sorted(digests),
        "receiver_crashed": receiver.returncode not in (0, 130) or b"Traceback" in errors,
        "receiver_said": errors.decode()[-400:],
        "seed": options.seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datagrams", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=20_000, help="mutated TCP messages, each on a new connection")
    parser.add_argument("--seed", type=int, default=1)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as cleanup:
        report = run(parser.parse_args(), Path(folder), cleanup)
    print(json.dumps(report, indent=2))
    is_growth_small = float(str(report["rss_growth_mb"])) < MAX_GROWTH_MB
    has_survived = report["transfers_completed"] and report["new_senders_get_in"] and not report["receiver_crashed"]
    raise SystemExit(0 if has_survived and is_growth_small else 1)


if __name__ == "__main__":
    main()
