"""One end of a trial, as a process: `python -m toolkit.compare.worker`, started by `toolkit.compare.worker_process`.

Two processes, because two machines do not share an interpreter either: neither end's work may wait for the
other's. It speaks lines of JSON: a job on standard input; on standard output `{"port": ...}` when it listens,
or `{"ready": true}` when everything is loaded and it waits for a line before it connects; and in the end one
object with what came of it. When standard input ends, the job is given up. docs/data-format.md describes
the objects (`sender` and `receiver` of a trial).
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from toolkit.channel import Address, Channel, TransportOptions
from toolkit.compare.discard import receive_and_discard
from toolkit.compare.sampler import Sampler
from toolkit.errors import NettoolError, TransferError, UnreachableError
from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER, controller_factory
from toolkit.transfer import ReceiveOptions, SendOptions, TransferResult, receive, send
from toolkit.transports.registry import transport
from toolkit.units import rate_of

_ACCEPT_TIMEOUT_S = 60.0


def main() -> None:
    """Do the one job."""
    job = json.loads(sys.stdin.readline())
    try:
        result = (_send if job["role"] == "send" else _receive)(job)
    except NettoolError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    except KeyboardInterrupt:
        result = {"error": "interrupted", "exit_code": 130}
    say(result)


def say(answer: dict[str, Any]) -> None:
    """One line to who started this process; nobody may be there any more."""
    try:
        print(json.dumps(answer, allow_nan=False), flush=True)  # noqa: T201
    except BrokenPipeError:
        os._exit(1)


def peak_memory_bytes() -> int | None:
    """The most that was resident, of this program since it was loaded; None where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def wait_for_go() -> threading.Event:
    """Say that everything is ready, and return at the next line; the event is set when standard input ends."""
    say({"ready": True})
    if not sys.stdin.readline():
        raise TransferError("given up before it began")
    return cancelled_with_stdin()


def cancelled_with_stdin() -> threading.Event:
    """An event that is set when standard input ends."""
    over = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=watch, daemon=True).start()
    return over


def _options(job: dict[str, Any]) -> TransportOptions:
    return TransportOptions(congestion_control=job.get("congestion_control"), rate_bps=job.get("rate_bps"))


def _send(job: dict[str, Any]) -> dict[str, Any]:
    chosen, address, options = transport(job["transport"]), Address(*job["address"]), _options(job)
    source, session = job["payload"], SendOptions()
    if job.get("is_endless"):
        source, session = "-", SendOptions(stream_name="flow", stream_fd=os.open("/dev/zero", os.O_RDONLY))
    if job["transport"] == "udp":
        controller_factory(options.congestion_control or DEFAULT_CONTROLLER)  # loads it
    cancel = wait_for_go()
    cpu_s, started_s = time.process_time(), time.monotonic()
    channel = chosen.connect(address, options)
    connected_s = time.monotonic() - started_s
    sampler = Sampler(started_s, channel.statistics)
    error: NettoolError | None = None
    report = TransferResult("")
    with sampler:
        try:
            report = send(channel, [source], session, cancel=cancel)
        except NettoolError as failure:
            error = failure
        seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
    _end(channel, error)
    told = _told(channel, report, seconds, cpu_seconds)
    told |= {"started_s": started_s, "connect_s": connected_s, "series": sampler.series()}
    if error is not None:
        told |= {"error": str(error), "exit_code": error.exit_code}
    return told


def _receive(job: dict[str, Any]) -> dict[str, Any]:
    listener = transport(job["transport"]).listen(Address(job["bind"], 0), _options(job))
    try:
        say({"port": listener.address.port})
        cancel = cancelled_with_stdin()
        channel = _accepted(listener, cancel)
        cpu_s, started_s = time.process_time(), time.monotonic()
        error: NettoolError | None = None
        report = TransferResult("")
        with Sampler(started_s) as sampler:
            try:
                if job.get("directory") is None:
                    report = receive_and_discard(channel, cancel=cancel)
                else:
                    report = receive(channel, job["directory"], ReceiveOptions(overwrite=True), cancel=cancel)
            except NettoolError as failure:
                error = failure
            seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
        _end(channel, error)
    finally:
        listener.close()
    told = _told(channel, report, seconds, cpu_seconds)
    series = sampler.series()
    told |= {"started_s": started_s, "series": {name: series[name] for name in ("t_s", "busy_s")}}
    if error is not None:
        told |= {"error": str(error), "exit_code": error.exit_code}
    return told


def _accepted(listener: Any, cancel: threading.Event) -> Channel:
    deadline_s = time.monotonic() + _ACCEPT_TIMEOUT_S
    while time.monotonic() < deadline_s and not cancel.is_set():
        channel: Channel | None = listener.accept(0.2)
        if channel is not None:
            return channel
    raise UnreachableError("no sender came")


def _end(channel: Channel, error: NettoolError | None) -> None:
    try:
        channel.close()
    except NettoolError:
        channel.abort()
        if error is None:
            raise


def _told(channel: Channel, report: TransferResult, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    return {
        "bytes": report.size_bytes,
        "seconds": seconds,
        "goodput_bps": rate_of(report.size_bytes, seconds),
        "algorithm": report.algorithm,
        "digest": report.digest,
        "cpu_seconds": cpu_seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **channel.statistics(),
    }


if __name__ == "__main__":
    main()
