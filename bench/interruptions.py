"""Interrupt transfers at random moments: is every file whole in the end, and how much was sent twice?

    python bench/interruptions.py --kills 300
    python bench/interruptions.py --cuts 50 --outage 40 --mebibytes 2048 --rate 8Mbit

Each round sends a file, or a tree of four, and kills one end (SIGKILL) when a random part has arrived. The next send
must end with identical files. No file may have its final name before it is whole. Rounds go through both transports,
both ends, encrypted or not, and single files or trees. The share sent again is what the second send brought beyond what
was missing, of what was there when the first one was killed.

With --cuts, nobody is killed: the path is cut again and again during one transfer over each transport, which a one-time
code has admitted. It must end by itself, by --retry.
"""

import argparse
import itertools
import json
import os
import random
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from peers import listening_port

NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
LIMIT_S = 120.0
PIECE_BYTES = 16 << 20


class Case(NamedTuple):
    """What one round does."""

    transport: str
    victim: str
    is_plaintext: bool
    is_tree: bool


CASES = [
    Case(*case) for case in itertools.product(("tcp", "udp"), ("sender", "receiver"), (False, True), (False, True))
]


def start_receiver(directory: Path, *options: str) -> tuple["subprocess.Popen[str]", int]:
    """Start a receiver; return it and its port."""
    command = [*NETTOOL, "recv", "--dir", str(directory), "--port", "0", *options]
    receiver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return receiver, listening_port(receiver)


def send_command(source: Path, port: int, case: Case) -> list[str]:
    """The command that sends."""
    command = [*NETTOOL, f"{case.transport}-send", "--json", "--update", "--retry", "0s", "-r"]
    command += ["--plaintext"] if case.is_plaintext else []
    return [*command, str(source), f"127.0.0.1:{port}"]


def stored_bytes(directory: Path) -> int:
    """How much is on the disk below a directory, in unfinished and finished files."""
    total = 0
    for path in directory.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # renamed meanwhile
            continue
        if path.is_file():
            total += min(status.st_size, status.st_blocks * 512)
    return total


def are_whole(source: Path, directory: Path) -> bool:
    """Whether everything that has its final name is identical to its source."""
    files = [path for path in (source, *source.rglob("*")) if path.is_file()]
    copies = [directory / path.relative_to(source.parent) for path in files]
    return all(
        copy.read_bytes() == path.read_bytes() for path, copy in zip(files, copies, strict=True) if copy.exists()
    )


def run_round(case: Case, source: Path, size_bytes: int, dice: random.Random) -> float | None:
    """One kill and the send after it; the share sent again, None if the first send was over before."""
    with tempfile.TemporaryDirectory(prefix="nettool-interruptions-") as name:
        directory = Path(name)
        options = ["--plaintext"] if case.is_plaintext else []
        receiver, port = start_receiver(directory, *options)
        threshold = dice.uniform(0.05, 0.95) * size_bytes
        sender = subprocess.Popen(send_command(source, port, case), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        victim = sender if case.victim == "sender" else receiver
        deadline_s = time.monotonic() + LIMIT_S
        while stored_bytes(directory) < threshold and sender.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.02))
        victim.send_signal(signal.SIGKILL)
        sender.communicate(timeout=LIMIT_S)
        is_over = sender.returncode == 0
        there_bytes = stored_bytes(directory)
        assert are_whole(source, directory), f"{case}: a partial file under its final name"
        if case.victim == "receiver":
            receiver.communicate()
            receiver, port = start_receiver(directory, *options)
        again = subprocess.run(send_command(source, port, case), capture_output=True, timeout=LIMIT_S, check=False)
        assert again.returncode == 0, f"{case}: exit code {again.returncode}: {again.stderr.decode()}"
        receiver.send_signal(signal.SIGTERM)
        receiver.communicate(timeout=LIMIT_S)
        assert are_whole(source, directory), f"{case}: a file differs"
        assert (directory / source.name).exists(), f"{case}: nothing arrived"
        result = json.loads(again.stdout)
        sent_bytes = result["bytes"] - result["resumed_bytes"]
        return None if is_over else max(0.0, sent_bytes - (size_bytes - there_bytes)) / max(1, there_bytes)


class Relay:
    """A path between a sender and a receiver on loopback, for one transport, that can be cut."""

    def __init__(self, transport: str, receiver_port: int) -> None:
        self.is_cut = False
        self._receiver = ("127.0.0.1", receiver_port)
        self._is_udp = transport == "udp"
        kind = socket.SOCK_DGRAM if self._is_udp else socket.SOCK_STREAM
        self._entrance = socket.socket(socket.AF_INET, kind)
        self._entrance.bind(("127.0.0.1", 0))
        self.port: int = self._entrance.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._flows: dict[tuple[str, int], socket.socket] = {}  # UDP: towards the receiver, by sender
        if not self._is_udp:
            self._entrance.listen()
        self._selector.register(self._entrance, selectors.EVENT_READ, None)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            if self.is_cut and not self._is_udp:  # TCP sees silence: nothing is read, and nobody is let in
                time.sleep(0.01)
                continue
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._entrance:
                    self._enter()
                elif self._selector.get_map().get(key.fd) is not None:
                    self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]

    def _enter(self) -> None:
        if not self._is_udp:
            sender, receiver = self._entrance.accept()[0], socket.create_connection(self._receiver)
            self._selector.register(sender, selectors.EVENT_READ, receiver)
            self._selector.register(receiver, selectors.EVENT_READ, sender)
            return
        datagram, origin = self._entrance.recvfrom(1 << 16)
        if self.is_cut:
            return
        flow = self._flows.get(origin)
        if flow is None:
            flow = self._flows[origin] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            flow.connect(self._receiver)
            self._selector.register(flow, selectors.EVENT_READ, origin)
        with suppress(ConnectionRefusedError):
            flow.send(datagram)

    def _pass_on(self, arrived: socket.socket, target: "socket.socket | tuple[str, int]") -> None:
        data = b""
        with suppress(ConnectionError):
            data = arrived.recv(1 << 16)
        if isinstance(target, tuple):
            if data and not self.is_cut:
                self._entrance.sendto(data, target)
            return
        try:
            if data:
                target.sendall(data)
                return
        except OSError:
            pass
        for end in (arrived, target):
            self._selector.unregister(end)
            end.close()


def run_cuts(arguments: argparse.Namespace, dice: random.Random) -> None:
    """One transfer over each transport, cut at random moments."""
    with tempfile.TemporaryDirectory(prefix="nettool-interruptions-") as name:
        os.environ["XDG_CACHE_HOME"] = name
        file, _ = make_sources(Path(name), arguments.mebibytes << 20, dice)
        for transport in ("tcp", "udp"):
            with tempfile.TemporaryDirectory(prefix="nettool-interruptions-") as incoming:
                cut_again_and_again(transport, file, Path(incoming), arguments, dice)


def cut_again_and_again(
    transport: str, file: Path, incoming: Path, arguments: argparse.Namespace, dice: random.Random
) -> None:
    """One transfer: cut the path each time that a further share has arrived, and print what became of it."""
    patience = ["--idle-timeout", arguments.idle_timeout, "--retry", f"{2 * arguments.outage + 120:g}s"]
    receiver, port = start_receiver(incoming, "--code-uses", "1", "--once", *patience)
    assert receiver.stderr is not None
    code = next(line for line in receiver.stderr if line.startswith("code: ")).split()[1]
    threading.Thread(target=receiver.stderr.read, daemon=True).start()  # else the pipe fills
    relay = Relay(transport, port)
    words = [f"{transport}-send", "--json", "--rate", arguments.rate, *patience, str(file), f"127.0.0.1:{relay.port}"]
    environment = {**os.environ, "NETTOOL_CODE": code}
    sender = subprocess.Popen([*NETTOOL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    size_bytes = file.stat().st_size
    cuts = 0
    for number in range(arguments.cuts):
        share = (number + dice.uniform(0.5, 1.0)) / (arguments.cuts + 1)
        while stored_bytes(incoming) < share * size_bytes and sender.poll() is None:
            time.sleep(0.005)
        if sender.poll() is not None:
            break
        relay.is_cut = True
        time.sleep(arguments.outage)
        relay.is_cut = False
        cuts += 1
        print(f"{transport}: cut {cuts} after {share:.0%}", flush=True)
    stdout, stderr = sender.communicate()
    assert sender.returncode == 0, f"{transport}: exit code {sender.returncode}: {stderr.decode()}"
    assert receiver.wait(LIMIT_S) == 0, f"{transport}: exit code {receiver.returncode} at the receiver"
    assert are_whole(file, incoming), f"{transport}: the file differs"
    assert (incoming / file.name).exists(), f"{transport}: nothing arrived"
    result = json.loads(stdout)
    print(
        f"{transport}: {cuts} cuts of {arguments.outage:g} s, {stderr.count(b'reconnecting')} attempts to reconnect, "
        f"ended without a hand; authentication {result['authentication']}",
        flush=True,
    )


def write_random(path: Path, size_bytes: int, dice: random.Random) -> None:
    """In pieces: Random.randbytes makes 256 MiB at most."""
    with path.open("wb") as file:
        for start in range(0, size_bytes, PIECE_BYTES):
            file.write(dice.randbytes(min(PIECE_BYTES, size_bytes - start)))


def make_sources(folder: Path, size_bytes: int, dice: random.Random) -> tuple[Path, Path]:
    """A file and a tree of that size."""
    file, tree = folder / "film", folder / "tree"
    write_random(file, size_bytes, dice)
    (tree / "below").mkdir(parents=True)
    for name, part in (("a", 0.2), ("below/b", 0.5), ("below/c", 0.299), ("d", 0.001)):
        write_random(tree / name, int(part * size_bytes), dice)
    return file, tree


def main() -> None:
    """Run the rounds and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cuts", type=int, help="outages in one transfer over each transport, instead of kills")
    parser.add_argument("--outage", type=float, default=40.0, help="seconds that an outage takes")
    parser.add_argument("--rate", default="40Mbit", help="of a transfer with outages")
    parser.add_argument("--idle-timeout", default="10s", help="of a transfer with outages")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    if arguments.cuts is not None:
        run_cuts(arguments, dice)
        return
    shares: dict[str, list[float]] = {"tcp": [], "udp": []}
    with tempfile.TemporaryDirectory(prefix="nettool-interruptions-") as name:
        os.environ["XDG_CACHE_HOME"] = name
        file, tree = make_sources(Path(name), arguments.mebibytes << 20, dice)
        sizes = {
            path: sum(one.stat().st_size for one in [path, *path.rglob("*")] if one.is_file()) for path in (file, tree)
        }
        late = 0
        for number in range(arguments.kills):
            case = CASES[number % len(CASES)]
            source = tree if case.is_tree else file
            share = run_round(case, source, sizes[source], dice)
            if share is None:
                late += 1
            else:
                shares[case.transport].append(share)
            print(f"{number + 1}: {case}: {'too late' if share is None else f'{share:.1%} sent again'}", flush=True)
    print(f"{arguments.kills} kills, seed {arguments.seed}: every file identical; {late} came after the end")
    for transport, values in shares.items():
        if values:
            print(f"{transport}: sent again: median {statistics.median(values):.2%}, most {max(values):.2%}")


if __name__ == "__main__":
    main()
