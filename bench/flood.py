"""A flood of first packets from forged addresses against a receiver that is busy with a transfer.

    sudo python bench/flood.py [--rate 50000] [--seconds 10] [--size 512M]

Two network namespaces, joined by a pair of virtual devices. In one, `nettool udp-recv` receives a file; in the other, a
raw socket sends INITIALs that look right, each from another address, while new clients come in. Prints the rate of the
transfer without and with the flood, and how long each new client takes to send a small file. The flood ends by itself,
and nothing leaves the namespaces.
"""

import argparse
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.hosts import Host, make_hosts
from toolkit.rudp.handshake_packets import InitialPacket, make_offer
from toolkit.units import parse_size

SERVER = "10.9.1.2"
PORT = 9000
FORGED = "198.18.0.0/15"  # RFC 2544: addresses for benchmarks
NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]


def flood(rate: int, seconds: float, has_token: bool) -> None:
    """Send INITIALs from forged addresses for some seconds; print how many."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    token = bytes(25) if has_token else b""
    tail = InitialPacket(0, make_offer(), bytes(200), token).encode()
    udp = struct.pack(">HHHH", 4711, PORT, 8 + len(tail), 0)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp) + len(tail), 0, 0, 64, 17, 0)
    target = socket.inet_aton(SERVER)
    begin_s = time.monotonic()
    sent = 0
    while (elapsed_s := time.monotonic() - begin_s) < seconds:
        while sent < elapsed_s * rate:
            source = (0xC6120000 | random.getrandbits(17)).to_bytes(4, "big")
            client_id = random.getrandbits(64).to_bytes(8, "big")
            sock.sendto(head + source + target + udp + tail[:2] + client_id + tail[10:], (SERVER, 0))
            sent += 1
        time.sleep(0.001)
    print(sent)


def join_hosts(cleanup: ExitStack) -> tuple[Host, Host]:
    """Return two hosts with a link, the second of which has a route back to the forged addresses."""
    near, far, _ = make_hosts(cleanup)
    near.run(f"ip link add wire type veth peer name wire netns {far.thread_id}")
    for number, host in enumerate((near, far), 1):
        host.run(f"ip address add 10.9.1.{number}/24 dev wire")
        host.run("ip link set wire up")
    far.run(f"ip route add {FORGED} via 10.9.1.1")
    return near, far


def send(host: Host, file: Path) -> dict[str, object]:
    """Send a file from a host; return the JSON that the command prints, with the seconds of the whole command."""
    begin_s = time.monotonic()
    process = host.call(
        lambda: subprocess.Popen(
            [*NETTOOL, "udp-send", str(file), f"{SERVER}:{PORT}", "--open", "--json"], stdout=subprocess.PIPE, text=True
        )
    )
    out, _ = process.communicate(timeout=120)
    fields: dict[str, object] = json.loads(out) if process.returncode == 0 else {"error": process.returncode}
    return fields | {"command_seconds": time.monotonic() - begin_s}


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=50_000, help="INITIALs per second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", type=parse_size, default=parse_size("512M"))
    parser.add_argument("--forged-tokens", action="store_true", help="each INITIAL has a token, which is not valid")
    parser.add_argument("--flood", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        flood(options.rate, options.seconds, options.forged_tokens)
        return
    with ExitStack() as cleanup, tempfile.TemporaryDirectory() as folder:
        near, far = join_hosts(cleanup)
        os.environ["XDG_CACHE_HOME"] = folder
        large, small, incoming = (Path(folder) / name for name in ("large", "small", "incoming"))
        large.write_bytes(os.urandom(1 << 20) * (options.size >> 20))
        small.write_bytes(b"small")
        incoming.mkdir()
        command = [*NETTOOL, "udp-recv", "--bind", SERVER, "--port", str(PORT), "--open", "--overwrite"]
        receiver = far.call(lambda: subprocess.Popen([*command, "--dir", str(incoming)], stdout=subprocess.DEVNULL))
        try:
            time.sleep(2)
            print("small file, no flood: ", round(float(str(send(near, small)["command_seconds"])), 2), "s")
            print("large file, no flood: ", rate_of(send(near, large)))
            arguments = ["--flood", "--rate", str(options.rate), "--seconds", str(options.seconds)]
            arguments += ["--forged-tokens"] if options.forged_tokens else []
            flooding = near.call(
                lambda: subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
            )
            time.sleep(1)
            print("large file, flood:    ", rate_of(send(near, large)))
            while flooding.poll() is None:
                print("small file, flood:    ", round(float(str(send(near, small)["command_seconds"])), 2), "s")
            print("INITIALs sent:        ", flooding.communicate()[0].strip())
        finally:
            receiver.terminate()
            receiver.wait()


def rate_of(fields: dict[str, object]) -> str:
    """Return the goodput of a transfer, for a person."""
    goodput = fields.get("goodput_bps")
    return f"{float(str(goodput)) / 1e6:.0f} Mbit/s" if goodput else str(fields)


if __name__ == "__main__":
    main()
