"""iperf3 as an endpoint of a trial: an outside baseline, without a file and without a digest.

Speaks `toolkit.comparison.worker_protocol`. The time is iperf3's own, which leaves out the handshake. iperf3 ends when
its client has handed the last byte to the kernel: what its server had counted by then, and in which time, is the
result. Over TCP that may be a part of the content, and the rate is that of the part. Over UDP nothing is retransmitted,
and the result says how much has arrived.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.worker_protocol import (
    ReceiveJob,
    SendJob,
    cancelled_with_stdin,
    failure,
    read_job,
    report,
    report_port,
    wait_for_go,
)
from toolkit.errors import NettoolError, TransferError, printable

PROGRAM = "iperf3"
_LISTEN_LIMIT_S = 5.0
_POLL_S = 0.01
_LISTENING = "0A"  # st in /proc/net/tcp
_UDP_PAYLOAD_BYTES = 1448


def main() -> None:
    """Read the job, do it, and report the result. SIGTERM ends iperf3 as well."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        job = read_job()
        result = _send(job) if isinstance(job, SendJob) else _receive(job)
    except NettoolError as error:
        result = failure(error)
    report(result)


def _receive(job: ReceiveJob) -> EndpointResult:
    with socket.socket() as free:
        free.bind((job.bind, 0))
        port = free.getsockname()[1]
    command = [PROGRAM, "-s", "-1", "-J", "-B", job.bind, "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            _await_listening(port, server)
            cancel = cancelled_with_stdin()
            report_port(port)
            while not cancel.is_set():
                try:
                    output, _ = server.communicate(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    continue
            else:
                raise TransferError("iperf3's server was cancelled")
        finally:
            if server.poll() is None:
                server.terminate()
    end = _parsed(output).get("end", {})
    cpu = end.get("cpu_utilization_percent", {}).get("host_total")
    seconds = end.get("sum_received", end.get("sum", {})).get("seconds")
    return EndpointResult(cpu_seconds=cpu / 100 * seconds if cpu is not None and seconds else None)


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


def _send(job: SendJob) -> EndpointResult:
    is_udp = job.transport == "udp"
    command = [PROGRAM, "-c", job.host, "-p", str(job.port), "-n", str(job.payload_bytes), "-J"]
    if is_udp:
        command += ["-u", "-l", str(_UDP_PAYLOAD_BYTES)]
    if job.rate_bps is not None:
        command += ["-b", str(round(job.rate_bps))]
    if job.congestion_control is not None:
        command += ["-C", job.congestion_control]
    wait_for_go()
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    output = _parsed(ended.stdout)
    if ended.returncode or "error" in output:
        why = str(output.get("error") or ended.stderr.decode(errors="replace").strip() or ended.returncode)
        raise TransferError(f"iperf3: {printable(why)}")
    return _udp_result(output["end"]) if is_udp else _tcp_result(output["end"], job)


def _tcp_result(end: Mapping[str, Any], job: SendJob) -> EndpointResult:
    received = end["sum_received"]
    if not received["bytes"]:  # iperf3 stops counting when the sender has handed over its last byte
        raise TransferError("iperf3 ended before its receiver had counted anything: choose a larger size with `sizes`")
    return EndpointResult(
        size_bytes=received["bytes"],
        seconds=received["seconds"],
        goodput_bps=received["bits_per_second"],
        packets_retransmitted=end["sum_sent"].get("retransmits"),
        congestion_control=end.get("sender_tcp_congestion", job.congestion_control),
        cpu_seconds=end["cpu_utilization_percent"]["host_total"] / 100 * received["seconds"],
        is_delivered=True,
    )


def _udp_result(end: Mapping[str, Any]) -> EndpointResult:
    total = end["sum"]
    received = end.get("sum_received", total)  # before iperf3 3.11, there is one sum only
    size_bytes = (received["packets"] - received["lost_packets"]) * _UDP_PAYLOAD_BYTES
    if not size_bytes:
        raise TransferError("no datagram of iperf3 had arrived when it ended: choose a larger size with `sizes`")
    return EndpointResult(
        size_bytes=size_bytes,
        seconds=total["seconds"],
        goodput_bps=8 * size_bytes / total["seconds"],
        cpu_seconds=end["cpu_utilization_percent"]["host_total"] / 100 * total["seconds"],
        is_delivered=True,
        is_unreliable=True,
        counters={"datagrams": received["packets"], "datagrams_lost": received["lost_packets"]},
    )


def _parsed(output: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(output))
    except ValueError:
        raise TransferError(f"iperf3 printed no JSON: {printable(output.decode(errors='replace'), 80)}") from None


if __name__ == "__main__":
    main()
