"""iperf3 as an end of a trial: an outside baseline, without a file and without a digest.

Speaks the lines of `toolkit.compare.worker`. The time is iperf3's own, from the first byte to the last one received,
which leaves out the handshake; over UDP nothing is sent again, and what has arrived is told as it is.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from toolkit.compare.worker import cancelled_with_stdin, say, wait_for_go
from toolkit.errors import NettoolError, TransferError, printable

PROGRAM = "iperf3"
_LISTEN_LIMIT_S = 5.0
_POLL_S = 0.01
_LISTENING = "0A"  # st in /proc/net/tcp
_UDP_PAYLOAD_BYTES = 1448


def main() -> None:
    """Do the one job; ended by a signal, end iperf3 as well."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    job = json.loads(sys.stdin.readline())
    try:
        result = _send(job) if job["role"] == "send" else _receive(job)
    except NettoolError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    say(result)


def _receive(job: dict[str, Any]) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind((job["bind"], 0))
        port = probe.getsockname()[1]
    command = [PROGRAM, "-s", "-1", "-J", "-B", job["bind"], "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            _await_listening(port, server)
            cancel = cancelled_with_stdin()
            say({"port": port})
            while not cancel.is_set():
                try:
                    output, _ = server.communicate(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    continue
            else:
                raise TransferError("iperf3's server was given up")
        finally:
            if server.poll() is None:
                server.terminate()
    end = _parsed(output).get("end", {})
    cpu = end.get("cpu_utilization_percent", {}).get("host_total")
    seconds = end.get("sum_received", end.get("sum", {})).get("seconds")
    return {"cpu_seconds": cpu / 100 * seconds if cpu is not None and seconds else None}


def _await_listening(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + _LISTEN_LIMIT_S
    while time.monotonic() < deadline_s and server.poll() is None:
        for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    return
        time.sleep(_POLL_S)
    raise TransferError("iperf3's server does not listen; try 'iperf3 -s' by itself")


def _send(job: dict[str, Any]) -> dict[str, Any]:
    host, port = job["address"]
    is_udp = job["transport"] == "udp"
    command = [PROGRAM, "-c", host, "-p", str(port), "-n", str(job["payload_bytes"]), "-J"]
    if is_udp:
        command += ["-u", "-l", str(_UDP_PAYLOAD_BYTES)]
    if job.get("rate_bps") is not None:
        command += ["-b", str(round(job["rate_bps"]))]
    if job.get("congestion_control") is not None:
        command += ["-C", job["congestion_control"]]
    wait_for_go()
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    told = _parsed(ended.stdout)
    if ended.returncode or "error" in told:
        why = str(told.get("error") or ended.stderr.decode(errors="replace").strip() or ended.returncode)
        raise TransferError(f"iperf3: {printable(why)}")
    return _udp_result(told) if is_udp else _tcp_result(told, job)


def _tcp_result(told: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    end = told["end"]
    received = end["sum_received"]
    if not received["bytes"]:  # it stops counting when the sender has handed over its last byte
        raise TransferError("iperf3 was over before its receiver had counted anything: ask for a larger --size")
    return {
        "bytes": received["bytes"],
        "seconds": received["seconds"],
        "goodput_bps": received["bits_per_second"],
        "packets_retransmitted": end["sum_sent"].get("retransmits"),
        "congestion_control": end.get("sender_tcp_congestion", job.get("congestion_control")),
        "cpu_seconds": end["cpu_utilization_percent"]["host_total"] / 100 * received["seconds"],
        "is_delivered": True,
    }


def _udp_result(told: dict[str, Any]) -> dict[str, Any]:
    end = told["end"]
    whole = end["sum"]
    arrived = whole["packets"] - whole["lost_packets"]
    bytes_received = arrived * _UDP_PAYLOAD_BYTES
    return {
        "bytes": bytes_received,
        "seconds": whole["seconds"],
        "goodput_bps": 8 * bytes_received / whole["seconds"],
        "datagrams": whole["packets"],
        "datagrams_lost": whole["lost_packets"],
        "cpu_seconds": end["cpu_utilization_percent"]["host_total"] / 100 * whole["seconds"],
        "is_delivered": True,
        "is_unreliable": True,
    }


def _parsed(output: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(output))
    except ValueError:
        raise TransferError(f"iperf3 says no JSON: {printable(output.decode(errors='replace'), 80)}") from None


if __name__ == "__main__":
    main()
