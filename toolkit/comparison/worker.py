"""One endpoint of a trial, as a process: `python -m toolkit.comparison.worker`, which `worker_process` starts.

Sender and receiver are separate processes because two machines do not share an interpreter either: neither endpoint may
wait for the other's work. `toolkit.comparison.worker_protocol` defines what a worker reads and writes.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from toolkit.channel import Address, Channel, Listener, TransportOptions
from toolkit.comparison.discard import receive_and_discard
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.reused_storage import receive_reusing
from toolkit.comparison.reverse import ContentOrder, receive_asked
from toolkit.comparison.sampler import Sampler
from toolkit.comparison.timed import STREAM_NAME, Cut, TimedDestination, TimedStream
from toolkit.comparison.worker_protocol import (
    ReceiveJob,
    SendJob,
    cancelled_with_stdin,
    failure,
    peak_memory_bytes,
    read_job,
    report,
    report_port,
    wait_for_go,
)
from toolkit.errors import ExitCode, NettoolError, UnreachableError
from toolkit.security.admission import Method
from toolkit.security.credentials import KeyCredential, NoCredential
from toolkit.security.rehearsal import rehearse
from toolkit.transfer import SendOptions, TransferResult, send
from toolkit.transports.registry import load, transport
from toolkit.units import rate_of

_ACCEPT_TIMEOUT_S = 60.0


def main() -> None:
    """Read the job, do it, and report the result."""
    try:
        job = read_job()
        if isinstance(job, ReceiveJob):
            result = _receive(job)
        else:
            result = _receive_asked(job) if job.is_reverse else _send(job)
    except NettoolError as error:
        result = failure(error)
    except KeyboardInterrupt:
        result = EndpointResult(error="interrupted", exit_code=int(ExitCode.INTERRUPTED))
    report(result)


def _access(job: SendJob) -> TransportOptions:
    """How to connect, without how to send."""
    return TransportOptions(
        credential=KeyCredential(bytes.fromhex(job.key)) if job.key is not None else NoCredential(),
        plaintext=job.plaintext,
        returns_tokens=False,  # TCP saves no round trip either, and no trial depends on the one before it
    )


def _send(job: SendJob) -> EndpointResult:
    options = replace(
        _access(job),
        congestion_control=job.congestion_control,
        rate_bps=job.rate_bps,
        backlog_bytes=job.backlog_bytes,
    )
    chosen = transport(job.transport)
    if job.time_s is not None:
        source, session = "-", SendOptions(stream_name=STREAM_NAME)
    elif job.payload is None:
        source, session = "-", SendOptions(stream_name="flow", stream_fd=os.open("/dev/zero", os.O_RDONLY))
    else:
        source, session = job.payload, SendOptions()
    load(job.transport, options)
    rehearse(options.credential.method)
    cancel = wait_for_go()
    cpu_s, started_s = time.process_time(), time.monotonic()
    if job.time_s is not None:
        until_s = started_s + job.time_s
        make = partial(TimedStream, seed=job.seed, until_s=until_s, slice_bytes=job.slice_bytes)
        session = replace(session, open_stream=make)
    accepted_s: list[float] = []
    session = replace(session, on_accepted=lambda: accepted_s.append(time.monotonic() - started_s))
    channel = chosen.connect(Address(job.host, job.port), options)
    connect_s = time.monotonic() - started_s
    sampler = Sampler(started_s, channel.statistics)
    result = _measured(channel, sampler, lambda: send(channel, [source], session, cancel=cancel), cpu_s, started_s)
    return replace(result, connect_s=connect_s, accepted_s=accepted_s[0] if accepted_s else None)


def _receive_asked(job: SendJob) -> EndpointResult:
    options, chosen = _access(job), transport(job.transport)
    load(job.transport, options)
    rehearse(options.credential.method)
    cancel = wait_for_go()
    cpu_s, started_s = time.process_time(), time.monotonic()
    channel = chosen.connect(Address(job.host, job.port), options)
    connect_s = time.monotonic() - started_s
    order = ContentOrder(
        elapsed_s=connect_s,
        time_s=job.time_s,
        size_bytes=None if job.time_s is not None else job.payload_bytes,
        seed=job.seed,
        congestion_control=job.congestion_control,
        rate_bps=job.rate_bps,
        backlog_bytes=job.backlog_bytes,
        slice_bytes=job.slice_bytes,
    )
    sampler = Sampler(started_s)
    result = _measured(channel, sampler, lambda: receive_asked(channel, order, cancel), cpu_s, started_s)
    return replace(result, connect_s=connect_s)


def _receive(job: ReceiveJob) -> EndpointResult:
    rehearse(Method.NONE)
    listener = transport(job.transport).listen(Address(job.bind, 0), TransportOptions(plaintext=job.plaintext))
    try:
        report_port(listener.address.port)
        destination = TimedDestination()
        cut = Cut(destination)
        cancel = cancelled_with_stdin(lambda deadline_s: cut.take_at(float(deadline_s)))
        channel = cut.channel = _accepted(listener, cancel)
        cpu_s, started_s = time.process_time(), time.monotonic()

        def transfer() -> TransferResult:
            if job.is_timed:
                done = receive_and_discard(channel, cancel=cancel, destination=destination)
                cut.take_if_due()
                return done
            if job.directory is None:
                return receive_and_discard(channel, cancel=cancel)
            return receive_reusing(channel, job.directory, cancel)

        result = _measured(channel, Sampler(started_s), transfer, cpu_s, started_s)
        return replace(result, cut_s=cut.cut_s, cut_bytes=cut.cut_bytes)
    finally:
        listener.close()


def _accepted(listener: Listener, cancel: threading.Event) -> Channel:
    deadline_s = time.monotonic() + _ACCEPT_TIMEOUT_S
    while time.monotonic() < deadline_s and not cancel.is_set():
        channel = listener.accept(0.2)
        if channel is not None:
            return channel
    raise UnreachableError("no sender connected")


def _measured(
    channel: Channel, sampler: Sampler, transfer: Callable[[], TransferResult], cpu_s: float, started_s: float
) -> EndpointResult:
    """Run the transfer, close the channel, and report both. The clocks `cpu_s` and `started_s` have started before."""
    error: NettoolError | None = None
    done = TransferResult("")
    with sampler:
        try:
            done = transfer()
        except NettoolError as caught:
            error = caught
        seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
    _close(channel, error)
    result = EndpointResult() if error is None else failure(error)
    result = replace(
        result,
        size_bytes=done.size_bytes,
        seconds=seconds,
        goodput_bps=rate_of(done.size_bytes, seconds),
        algorithm=done.algorithm,
        digest=done.digest,
        cpu_seconds=cpu_seconds,
        peak_memory_bytes=peak_memory_bytes(),
        started_s=started_s,
        series=sampler.series(),
    )
    return result.with_statistics(channel.statistics())


def _close(channel: Channel, error: NettoolError | None) -> None:
    try:
        channel.close()
    except NettoolError:
        channel.abort()
        if error is None:
            raise


if __name__ == "__main__":
    main()
